"""Scores bound to weights: commands, real keys, real results files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from commandline import Run, ok
from safetensors.torch import load_file, save_file
from worlds import World

from parentage import KeySigner, PrivateKey, TrustedKeys, sign_release
from parentage.attest.bundle import CLAIMS, parse
from parentage.attest.statement import parse_statement
from parentage.attest.statements import benchmark

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
RESULTS = Path(__file__).parent.parent / "verify" / "results"
LM_EVAL = RESULTS / "lm-eval-0.4.13.json"
LOG = RESULTS / "lm-eval-0.4.13-samples.jsonl"


@pytest.fixture
def lab(world: World) -> World:
    """A release by `owner`, and a lab with a key of its own."""
    world.merge()
    for name, key in (("owner", world.key), ("lab", PrivateKey.generate())):
        (world.root / f"{name}.key").write_bytes(key.to_pem(None))
        (world.root / f"{name}.pub").write_bytes(key.public.pem)
    return world


def said(release: Path) -> list[benchmark.Benchmark]:
    lines = (release / CLAIMS).read_bytes().splitlines()
    found = [parse_statement(parse(line, "t").payload, "t") for line in lines]
    return [benchmark.parse(s, "t")[1] for s in found if s.predicate_type == benchmark.TYPE]


def test_attach(lab: World, run: Run) -> None:
    release = lab.root / "merged"
    out = ok(run("bench", "attach", release, LM_EVAL, "--samples", LOG, "--key", lab.root / "lab.key",
                 "--publisher", lab.root / "owner.pub", "--json"))  # fmt: skip
    document = json.loads(out)

    assert document["predicateType"] == benchmark.TYPE
    (found,) = said(release)
    assert found.binding == "asserted"
    assert dict(found.weights) == dict(lab.lineage("merged").weights.root)
    assert found.results.sha256 == hashlib.sha256(LM_EVAL.read_bytes()).hexdigest()
    assert found.samples[0].sha256 == hashlib.sha256(LOG.read_bytes()).hexdigest()
    assert found.samples[0].count == 16
    assert (found.scores[0].metric, found.scores[0].value) == ("acc", "0.3125")
    report = lab.verify("merged", ["a", "b"])
    assert report.verified
    shown = ok(run("show", release))
    assert "binding  asserted\n  score    tiny_choice acc none 0.3125\n" in shown


def test_attach_refuses_nan_and_strangers(lab: World, run: Run, tmp_path: Path) -> None:
    release, before = lab.root / "merged", (lab.root / "merged" / CLAIMS).read_bytes()
    broken = tmp_path / "nan.json"
    broken.write_text(LM_EVAL.read_text().replace("0.3125", "NaN"))

    code, out, _ = run("bench", "attach", release, broken, "--key", lab.root / "lab.key",
                       "--publisher", lab.root / "owner.pub", "--json")  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "json")
    assert json.loads(out)["error"]["found"] == "NaN"
    code, out, _ = run("bench", "attach", release, LM_EVAL, "--key", lab.root / "lab.key",
                       "--publisher", lab.root / "lab.pub", "--json")  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "signature")
    assert (release / CLAIMS).read_bytes() == before


def test_tokenizer_and_template_are_those_of_the_signature(world: World, run: Run) -> None:
    folder = world.save("plain", world.weights("a"))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (world.root / "owner.key").write_bytes(world.key.to_pem(None))
    ok(run("sign", folder, "--observed", "--key", world.root / "owner.key"))
    ok(run("bench", "attach", folder, LM_EVAL, "--key", world.root / "owner.key"))

    (found,) = said(folder)
    digests: Any = (found.tokenizer, found.chat_template)
    assert [one.sha256 for one in digests] == [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("tokenizer.json", "tokenizer_config.json")
    ]


HARNESS = """
import json, os, socket, sys
from pathlib import Path
release, mode, *more = sys.argv[1:]
said = json.loads(Path(os.environ["SAID"]).read_text())
said["model_name"] = "/elsewhere" if mode == "another-model" else release
said["config"]["model_args"] = {}
said["results"]["tiny_choice"]["acc,none"] = float("nan") if mode == "nan" else 0.4375
weights = Path(release, "model.safetensors")
if mode == "touch":
    data = weights.read_bytes()
    stamps = weights.stat()
    weights.write_bytes(data[:-1] + b"!")
    weights.write_bytes(data)
    os.utime(weights, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
if mode == "swap":
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
if mode == "rename":
    whole, aside = Path(release), Path("aside")
    whole.rename(aside)
    whole.mkdir()
    whole.joinpath("model.safetensors").write_bytes(b"other weights")
    whole.joinpath("model.safetensors").unlink()
    whole.rmdir()
    aside.rename(whole)
if mode == "connect":
    try:
        socket.create_connection(("127.0.0.1", int(more[0])), timeout=5).close()
        said["reached"] = True
    except OSError:
        said["reached"] = False
said["environment"] = dict(os.environ)
Path("out").mkdir(exist_ok=True)
if mode != "silent":
    Path("out", "results_1.json").write_text(json.dumps(said))
if mode == "twice":
    Path("out", "results_2.json").write_text(json.dumps(said))
sys.exit(int(more[0]) if mode == "exit" else 0)
"""


@pytest.fixture
def bench(lab: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`bench run` with a harness that does what it is told, in the folder of the lab."""
    (lab.root / "harness.py").write_text(HARNESS)
    monkeypatch.chdir(lab.root)
    monkeypatch.setenv("SAID", str(LM_EVAL))
    monkeypatch.setenv("HF_TOKEN", "a-token-of-the-environment")

    def runner(*command: str, release: str = "{release}") -> tuple[int, Any]:
        code, out, _ = run("bench", "run", lab.root / "merged", "--results", "out/results_*.json",
                           "--key", lab.root / "lab.key", "--publisher", lab.root / "owner.pub", "--json",
                           "--", sys.executable, "harness.py", release, *command)  # fmt: skip
        return code, json.loads(out)

    return runner


def test_run(lab: World, bench: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, document = bench("connect", str(server.getsockname()[1]))
    assert code == 0, document

    (found,) = said(lab.root / "merged")
    left = json.loads((lab.root / "out" / "results_1.json").read_text())
    assert found.binding == "observed"
    assert found.observed is not None
    assert found.observed.argv[1:4] == ("harness.py", "{release}", "connect")
    program = Path(sys.executable)
    assert found.observed.environment.executable == hashlib.sha256(program.read_bytes()).hexdigest()
    beside = [path.name.removesuffix(".dist-info") for path in program.parent.parent.glob("lib/python3*/site-packages/*.dist-info")]  # fmt: skip
    assert found.observed.environment.distributions == len(beside)
    listed = hashlib.sha256(json.dumps(sorted(beside), separators=(",", ":")).encode()).hexdigest()
    assert found.observed.environment.packages == listed
    assert left["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in left["environment"]
    # Where namespaces work, they are used, and not even this machine could be reached.
    tried = ["unshare", "--user", "--map-current-user", "--net", "true"]
    if (
        shutil.which("unshare")
        and subprocess.run(tried, capture_output=True, check=False).returncode == 0
    ):
        assert found.observed.isolation != "environment"
    assert left["reached"] == (found.observed.isolation == "environment")
    assert found.started is not None
    assert found.finished is not None


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (("exit", "7"), 7, "harness-failed"),
        (("touch",), 1, "file-set"),
        (("swap",), 1, "refused"),
        (("rename",), 1, "file-set"),
        (("nan",), 1, "json"),
        (("another-model",), 1, "results"),
        (("silent",), 1, "results"),
        (("twice",), 1, "results"),
        (("ok", "a-token-of-the-environment"), 2, "usage"),
        (("ok", "hf_" + "a" * 34), 2, "usage"),
    ],
)
def test_nothing_is_signed_of_a_bad_run(
    lab: World, bench: Any, command: tuple[str, ...], code: int, error: str
) -> None:
    before = (lab.root / "merged" / CLAIMS).read_bytes()

    found, document = bench(*command)
    assert (found, document["error"]["code"]) == (code, error)
    assert command[-1] not in json.dumps(document) or code != 2
    assert (lab.root / "merged" / CLAIMS).read_bytes() == before


def test_results_that_were_there_before_are_not_taken(lab: World, bench: Any) -> None:
    assert bench("ok")[0] == 0
    code, document = bench("silent")
    assert (code, document["error"]["code"]) == (1, "results")
    assert document["error"]["found"] == "none"


def test_a_command_without_the_release(bench: Any) -> None:
    code, document = bench("ok", release="elsewhere")
    assert (code, document["error"]["code"]) == (2, "usage")


def test_weights_that_were_never_signed_are_not_run(lab: World, bench: Any) -> None:
    weights = lab.root / "merged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    code, document = bench("ok")
    assert (code, document["error"]["code"]) == (1, "refused")
    assert not (lab.root / "out").exists()


TINY = RESULTS / "model"
#: Of tests: repeated runs of a replay score the same requests.
NONCE = "5" * 64


@pytest.fixture(scope="module")
def signed_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that lm-eval's log is of, the same with weights moved a little, and people with keys."""
    root = tmp_path_factory.mktemp("tiny")
    keys = {name: PrivateKey.generate() for name in ("owner", "lab", "judge")}
    for name, key in keys.items():
        (root / f"{name}.key").write_bytes(key.to_pem(None))
        (root / f"{name}.pub").write_bytes(key.public.pem)
    (root / "trust.yaml").write_text(
        'version: "0.1"\nroles: {publisher: {any: [{key: owner.pub}]}, '
        "evaluator: {any: [{key: lab.pub}, {key: judge.pub}]}}\n"
    )
    for name in ("honest", "moved"):
        shutil.copytree(TINY, root / name)
    weights = load_file(root / "moved" / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    moved = {k: v * (1 + 1e-3 * torch.randn(v.shape, generator=generator)) for k, v in weights.items()}  # fmt: skip
    save_file(moved, root / "moved" / "model.safetensors", metadata={"format": "pt"})
    for name in ("honest", "moved"):
        sign_release(root / name, KeySigner(keys["owner"]), TrustedKeys((keys["owner"].public,)), observed=True)  # fmt: skip
    return root


@pytest.fixture
def tiny(signed_tiny: Path, tmp_path: Path, run: Run) -> Path:
    """A copy of that; the lab says of both releases that the scores and the log are theirs."""
    root = tmp_path / "tiny"
    shutil.copytree(signed_tiny, root)
    for name in ("honest", "moved"):
        ok(run("bench", "attach", root / name, LM_EVAL, "--samples", LOG, "--key", root / "lab.key",
               "--policy", root / "trust.yaml"))  # fmt: skip
    return root


def replay(run: Run, root: Path, name: str, *more: object, key: str = "judge", log: Path = LOG) -> tuple[int, Any]:  # fmt: skip
    code, out, err = run("bench", "replay", root / name, "--samples-file", log, "--samples", "8", "--device", "cpu",
                         "--key", root / f"{key}.key", "--policy", root / "trust.yaml", "--json", *more)  # fmt: skip
    return code, json.loads(out) if out.strip() else err


def test_replay_agrees_with_what_lm_eval_logged(tiny: Path, run: Run) -> None:
    """lm-eval is the oracle: its own log, of another version of transformers, in batches of four."""
    code, report = replay(run, tiny, "honest")

    assert (code, report["verdict"]) == (0, "verified"), report
    found = report["replay"]
    assert (found["requests"], found["ofRequests"]) == (8, 32)
    assert float(found["most"]) <= float(found["tolerance"]) < 1e-3
    assert float(found["sameWeights"]["most"]) * 4 <= float(found["tolerance"])
    first, second = said(tiny / "honest")
    assert second.binding == "replayed"
    assert second.scores == first.scores
    assert second.replayed is not None
    assert second.replayed.agrees
    jsonschema.validate(report, json.loads((SCHEMAS / "bench-v0.1.json").read_text()))


def test_replay_on_moved_weights_disagrees(tiny: Path, run: Run) -> None:
    """A thousandth of each weight: no score changes, and every log-likelihood does."""
    before = (tiny / "moved" / CLAIMS).read_bytes()
    code, report = replay(run, tiny, "moved")

    assert (code, report["verdict"]) == (1, "refuted")
    assert [found["code"] for found in report["findings"]] == ["replay-differs"]
    assert float(report["replay"]["median"]) > 10 * float(report["replay"]["tolerance"])
    assert (tiny / "moved" / CLAIMS).read_bytes() == before
    code, report = replay(run, tiny, "moved", "-o", tiny / "no.jsonl", "--nonce", NONCE)
    assert code == 1
    made = parse_statement(parse((tiny / "no.jsonl").read_bytes(), "t").payload, "t")
    no = benchmark.parse(made, "t")[1].replayed
    assert no is not None
    assert (no.agrees, no.nonce) == (False, NONCE)


def test_it_computes_as_the_logged_run_did(tiny: Path, run: Run) -> None:
    """Said to have run in bfloat16, which it did not: the tolerance is wide, and says so."""
    said_of = json.loads(LM_EVAL.read_text())
    said_of["config"]["model_dtype"] = "torch.bfloat16"
    (tiny / "r.json").write_text(json.dumps(said_of))
    ok(run("bench", "attach", tiny / "honest", tiny / "r.json", "--samples", LOG, "--key", tiny / "lab.key",
           "--policy", tiny / "trust.yaml", "-o", tiny / "said.jsonl"))  # fmt: skip
    (tiny / "honest" / CLAIMS).write_bytes(
        (tiny / "honest" / CLAIMS).read_bytes().split(b"\n")[0]
        + b"\n"
        + (tiny / "said.jsonl").read_bytes()
    )
    _, report = replay(run, tiny, "honest", "-o", tiny / "x.jsonl")
    assert report["replay"]["dtype"] == "bfloat16"
    assert float(report["replay"]["tolerance"]) > 0.01
    _, report = replay(run, tiny, "honest", "-o", tiny / "x.jsonl", "--dtype", "float32")
    assert (report["verdict"], report["replay"]["dtype"]) == ("verified", "float32")


def test_the_same_nonce_draws_the_same_places(tiny: Path, run: Run) -> None:
    _, one = replay(run, tiny, "honest", "-o", tiny / "x.jsonl", "--nonce", NONCE)
    _, two = replay(run, tiny, "honest", "-o", tiny / "y.jsonl", "--nonce", NONCE)
    assert one["worst"] == two["worst"]


def gated(run: Run, root: Path, name: str, *more: object) -> tuple[int, Any]:
    (root / "gate.yaml").write_text(
        'version: "0.1"\ntrust: trust.yaml\nbenchmark: {binding: replayed, lineage: signed}\n'
    )
    code, out, _ = run("gate", "benchmark", LM_EVAL, "--release", root / name, "--gate", root / "gate.yaml",
                       "--device", "cpu", "--json", *more)  # fmt: skip
    return code, json.loads(out)


def test_a_gate_replays_by_itself(tiny: Path, run: Run) -> None:
    code, report = gated(run, tiny, "honest")
    assert (code, [found["code"] for found in report["findings"]]) == (5, ["binding-too-weak"])
    code, report = gated(run, tiny, "honest", "--samples-file", LOG)
    assert (code, report["binding"], report["replay"]["requests"]) == (0, "replayed", 16)
    code, report = gated(run, tiny, "moved", "--samples-file", LOG)
    assert (code, report["findings"][0]["code"]) == (1, "replay-differs")
    other = tiny / "other.jsonl"
    other.write_bytes(LOG.read_bytes().replace(b"0 plus 0", b"0 plus 9"))
    code, report = gated(run, tiny, "honest", "--samples-file", other)
    assert code == 5
    assert {found["code"] for found in report["findings"]} == {"log-unsigned", "binding-too-weak"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model_type": "somebodys-own", "auto_map": {"AutoConfig": "code.Config"}}, "can't load"),
        ({"num_hidden_layers": 2}, "do not fit"),
        ({"hidden_size": 32}, "can't load|do not fit"),
        ({"tie_word_embeddings": False}, "do not fit"),
    ],
)
def test_a_model_that_can_not_be_replayed(
    tiny: Path, run: Run, change: dict[str, Any], what: str
) -> None:
    """Code of a release is never run, and no tensor is made up or left out."""
    folder = tiny / "odd"
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    (folder / "code.py").write_text("raise SystemExit(99)\n")
    ok(run("sign", folder, "--observed", "--key", tiny / "owner.key"))
    ok(run("bench", "attach", folder, LM_EVAL, "--samples", LOG, "--key", tiny / "lab.key",
           "--policy", tiny / "trust.yaml"))  # fmt: skip
    code, report = replay(run, tiny, "odd")
    assert (code, report["error"]["code"]) == (4, "cannot-run")
    assert re.search(what, report["error"]["message"])


@pytest.mark.parametrize("key", ["owner", "lab"])
def test_nobody_replays_what_they_signed(tiny: Path, run: Run, key: str) -> None:
    code, report = replay(run, tiny, "honest", key=key)
    assert (code, report["error"]["code"]) == (2, "usage")


def test_a_log_that_nobody_signed(tiny: Path, run: Run) -> None:
    other = tiny / "other.jsonl"
    other.write_bytes(LOG.read_bytes().replace(b"0 plus 0", b"0 plus 9"))
    code, report = replay(run, tiny, "honest", log=other)
    assert (code, report["error"]["code"]) == (3, "unsigned")


def test_weights_that_are_not_the_signed_ones_are_not_replayed(tiny: Path, run: Run) -> None:
    (tiny / "honest" / "model.safetensors").write_bytes(
        (tiny / "moved" / "model.safetensors").read_bytes()
    )
    code, report = replay(run, tiny, "honest")
    assert (code, report["error"]["code"]) == (1, "refused")
    assert len(said(tiny / "honest")) == 1
