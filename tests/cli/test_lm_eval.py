"""lm-evaluation-harness itself, offline, on a model built here: run, gated, swapped, replayed.

`make peers` brings it.
"""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from absent import absent
from commandline import Run
from safetensors.torch import load_file, save_file
from worlds import MERGE, World

import parentage
from parentage import Demands, PrivateKey
from parentage.attest.bundle import CLAIMS
from parentage.verify.benchmarks.samples import pick, read_log
from parentage.verify.benchmarks.scoring import scorer

pytestmark = pytest.mark.peer

LM_EVAL = Path(".peers/lm-eval/bin/lm_eval").absolute()
TINY = Path(__file__).parent.parent / "verify" / "results" / "model"
TRUST = """
version: "0.1"
roles:
  publisher: {any: [{key: owner.pub}]}
  evaluator: {any: [{key: lab.pub}]}
  verifier: {any: [{key: judge.pub}]}
"""
GATE = """
version: "0.1"
trust: trust.yaml
benchmark: {binding: BINDING, lineage: exact, tasks: [{id: tiny_choice, metrics: [acc]}]}
"""
TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}]
"""


def small_files(folder: Path) -> None:
    for path in TINY.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, folder)


def build(root: Path) -> World:
    """Two random models, and their merge, which is released with config and tokenizer."""
    world = World(root)
    generator = torch.Generator().manual_seed(5)
    shapes = {name: tensor.shape for name, tensor in load_file(TINY / "model.safetensors").items()}
    for name in ("a", "b"):
        save_file({n: 0.4 * torch.randn(s, generator=generator) for n, s in shapes.items()},
                  root / name / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    parents = {i: root / i for i in ("a", "b")}
    parentage.merge(world.recipe(["a", "b"], [MERGE]), root / "rio", parents=parents)
    small_files(root / "rio")
    world.sign("rio")
    for name, key in (("owner", world.key), ("lab", PrivateKey.generate()), ("judge", PrivateKey.generate())):  # fmt: skip
        (root / f"{name}.pub").write_bytes(key.public.pem)
        (root / f"{name}.key").write_bytes(key.to_pem(None))
    (root / "trust.yaml").write_text(TRUST)
    for binding in ("observed", "replayed"):
        (root / f"{binding}.yaml").write_text(GATE.replace("BINDING", binding))
    (root / "tasks").mkdir()
    (root / "tasks" / "tiny.yaml").write_text(TASK.replace("DATA", str(root / "data.jsonl")))
    rows = [{"question": f"{a} plus {b} is", "choices": [f" {a + b}", f" {a + b + 1}"], "answer": (a + b) % 2}
            for a in range(4) for b in range(4)]  # fmt: skip
    rows[0]["question"], rows[1]["question"] = "", "spaces at its end  "
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return world


def accuracy(world: World, name: str, log: Path) -> float:
    """Count what lm-eval counts, from log-likelihoods of these weights."""
    found = read_log(log)
    requests = pick(log, set(range(found.requests)), found.log)
    with scorer(world.root / name, world.trust, Demands(device="cpu")) as model:
        scores = model.scores([model.tokens(request) for request in requests], 1)
    said = [json.loads(line) for line in log.read_text().splitlines()]
    pairs = zip(requests, scores, strict=True)
    documents = [[s for _, s in some] for _, some in groupby(pairs, lambda p: p[0].where.rpartition(": ")[0])]  # fmt: skip
    right = [max(range(len(some)), key=some.__getitem__) == line["doc"]["answer"]
             for some, line in zip(documents, said, strict=True)]  # fmt: skip
    return sum(right) / len(right)


def test_scores_belong_to_weights(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not LM_EVAL.exists():
        absent("lm-eval", "make peers")
    world = build(tmp_path)
    rio = tmp_path / "rio"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def do(*arguments: object, code: int = 0, command: tuple[object, ...] = ()) -> Any:
        found, out, err = run(*arguments, "--json", *(("--", *command) if command else ()))
        assert found == code, out + err
        return json.loads(out)

    def gate(folder: Path, binding: str = "observed", code: int = 0) -> set[str]:
        report = do("gate", "benchmark", results, "--release", folder, "--gate", f"{binding}.yaml", code=code)  # fmt: skip
        return {one["code"] for one in report["findings"] if one["refutes"] or one["denies"]}

    do("attest", rio, "--policy", "trust.yaml", "--parent", "a", "--parent", "b", "--sign-key", "judge.key", "--device", "cpu")  # fmt: skip

    harness = [LM_EVAL, "--model", "hf", "--model_args", "pretrained={release},dtype=float32", "--tasks", "tiny_choice",
               "--include_path", "tasks", "--device", "cpu", "--batch_size", "4", "--output_path", "out", "--log_samples"]  # fmt: skip
    said = do("bench", "run", rio, "--results", "out/*/results_*.json", "--samples", "out/*/samples_*.jsonl",
              "--key", "lab.key", "--publisher", "owner.pub", command=tuple(harness))["predicate"]  # fmt: skip
    (results,), (log,) = (
        tmp_path.glob("out/*/results_*.json"),
        tmp_path.glob("out/*/samples_*.jsonl"),
    )
    score = json.loads(results.read_text())["results"]["tiny_choice"]["acc,none"]
    assert (said["binding"], said["scores"][0]["value"]) == ("observed", str(score))
    assert said["harness"]["version"] == "0.4.13"
    assert gate(rio) == set()
    assert gate(rio, "replayed", code=5) == {"binding-too-weak"}

    # A verifier scores what was logged again: another transformers, other batches, the same weights.
    again = do("bench", "replay", rio, "--samples-file", log, "--samples", "32", "--key", "judge.key", "--policy", "trust.yaml", "--device", "cpu")  # fmt: skip
    assert float(again["replay"]["most"]) <= float(again["replay"]["tolerance"])
    assert gate(rio, "replayed") == set()
    assert accuracy(world, "rio", log) == score

    # The weights are exchanged in place, after the run.
    honest = (rio / "model.safetensors").read_bytes()
    generator = torch.Generator().manual_seed(6)
    moved = {n: t * (1 + 1e-3 * torch.randn(t.shape, generator=generator)) for n, t in load_file(rio / "model.safetensors").items()}  # fmt: skip
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    save_file(moved, swapped / "model.safetensors", metadata={"format": "pt"})
    (rio / "model.safetensors").write_bytes((swapped / "model.safetensors").read_bytes())
    assert "tensor-digest" in gate(rio, code=1)
    (rio / "model.safetensors").write_bytes(honest)

    # Or released anew, under the publisher's own signature, with the claims of the honest ones beside.
    small_files(swapped)
    do("sign", swapped, "--observed", "--key", "owner.key")
    lines = (swapped / CLAIMS).read_bytes()
    (swapped / CLAIMS).write_bytes(lines + (rio / CLAIMS).read_bytes())
    assert {"weights-differ", "lineage-not-known"} <= gate(swapped, code=1)
    (swapped / CLAIMS).write_bytes(lines)

    # Even an evaluator who was shown this file for these weights is found out: the accuracy is the same,
    # and the log-likelihoods are not.
    do("bench", "attach", swapped, results, "--samples", log, "--key", "lab.key", "--publisher", "owner.pub")  # fmt: skip
    assert accuracy(world, "swapped", log) == score
    again = do("bench", "replay", swapped, "--samples-file", log, "--samples", "8", "--key", "judge.key", "--policy", "trust.yaml",
               "--device", "cpu", "-o", "no.jsonl", code=1)  # fmt: skip
    assert float(again["replay"]["median"]) > 10 * float(again["replay"]["tolerance"])
    report = do("gate", "benchmark", results, "--release", swapped, "--gate", "observed.yaml", "--statement", "no.jsonl", code=1)  # fmt: skip
    assert "replay-differs" in {one["code"] for one in report["findings"] if one["refutes"]}
