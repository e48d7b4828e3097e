"""A gate in front of a repository: a pull request with wrong weights is refused, one with right ones lands.

Two labs have a model each, and a third says that its release is their merge, 0.6 to 0.4. Whoever keeps
the repository lets a pull request in only if that recomputes. Everything is real but the Hub, which is
the one of the tests, on this machine.

    make gate-demo
    python examples/ci_gate.py --make FOLDER    # only the files: what a CI job can gate
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from parentage.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from huggingface_hub import HfApi

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "rigs" / "hub"))
REPO = "acme/rio"
PARENTS = ("nex", "qwen")
CARD = """---
license: apache-2.0
base_model: [acme/nex, acme/qwen]
base_model_relation: merge
---

# Rio

A merge of Nex (0.6) and Qwen (0.4).
"""


def make(work: Path) -> None:
    """Make the parents, a key, the gate, a release that is what it says, and one that is not."""
    work.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    base = {f"model.layers.{i}.weight": torch.randn(64, 64, generator=generator) for i in range(8)}
    for name in PARENTS:
        weights = {k: v + 0.02 * torch.randn(v.shape, generator=generator) for k, v in base.items()}
        save(work / name, weights, f"---\nlicense: apache-2.0\n---\n\n# {name}\n")
    parents = [f"--parent={name}={work / name}" for name in PARENTS]
    parentage("keygen", "-o", work / "release.key", "--no-passphrase")
    recipe(work / "rio.yaml", "0.6", "0.4")
    parentage("merge", work / "rio.yaml", "-o", work / "right", *parents)
    (work / "right" / "README.md").write_text(CARD)
    nex, qwen = (load_file(work / name / "model.safetensors") for name in PARENTS)
    other = {name: 0.5 * nex[name] + 0.5 * qwen[name] for name in nex}
    save(work / "wrong", other, CARD)
    for name in ("right", "wrong"):
        parentage("declare", work / name, "--recipe", work / "rio.yaml", *parents)
        parentage("sign", work / name, "--key", work / "release.key")
    parentage("trust", "init", "-o", work / "trust.yaml", "--publisher", work / "release.pub")
    parentage("gate", "init", "-o", work / "gate.yaml", "--trust", work / "trust.yaml")


def save(folder: Path, weights: dict[str, torch.Tensor], card: str) -> None:
    """Write a model's folder."""
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "example"}\n')
    (folder / "README.md").write_text(card)


def recipe(path: Path, *weights: str) -> None:
    """Write the recipe of a merge."""
    step = {
        "id": "merge",
        "op": "weighted_sum/v1",
        "inputs": PARENTS,
        "params": {"weights": weights, "normalize": True},
        "arithmetic": {"profile": "parentage-1"},
    }
    document = {
        "version": "0.1",
        "parents": [{"id": name, "license": "apache-2.0"} for name in PARENTS],
        "steps": [step],
    }
    path.write_text(json.dumps(document))


def parentage(*words: object) -> None:
    """Run a command that must work, and show what it says only if it doesn't."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = ended(words)
    if code:
        sys.exit(f"parentage {' '.join(map(str, words))}\n{said.getvalue()}")


def ended(words: Sequence[object]) -> int:
    """Run a command in this process, where torch is imported once; return its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        return int(left.code or 0)
    raise AssertionError("it leaves with its exit code")


def tell(work: Path) -> bool:
    """Run the repository's life: two pull requests, of which one lands."""
    from hub_rig import LocalHub

    with LocalHub(work / "hub") as hub:
        os.environ.update(hub.environment)
        from huggingface_hub import HfApi

        api = HfApi(endpoint=hub.url)
        api.create_repo(REPO)
        print(f"A repository without weights: {REPO} at {hub.url}\n", flush=True)
        landed = {name: propose(api, work, name) for name in ("wrong", "right")}
        files = set(api.list_repo_files(REPO))
    print(f"On main now: {', '.join(sorted(files))}")
    return landed == {"wrong": False, "right": True} and "model.safetensors" in files


def propose(api: HfApi, work: Path, name: str) -> bool:
    """Open a pull request with a folder, ask the gate about it, and merge if it says yes."""
    from huggingface_hub import CommitOperationAdd

    folder = work / name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(str(path.relative_to(folder)), path) for path in files]
    made = api.create_commit(REPO, operations, commit_message=f"the {name} weights", create_pr=True)
    command = ["gate", "upload", f"hf://{REPO}@{made.oid}", f"--gate={work / 'gate.yaml'}"]
    command += [f"--parent={parent}={work / parent}" for parent in PARENTS]
    print(f"Pull request {made.pr_num}, with the {name} weights:", flush=True)
    code = ended(command)
    if code == 0:
        api.merge_pull_request(REPO, made.pr_num)
    print(f"exit {code}: {'merged' if code == 0 else 'not merged'}\n", flush=True)
    return code == 0


def run() -> int:
    """Exit 0 only if the wrong weights stay out and the right ones land."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return 0
    work = Path(tempfile.mkdtemp(prefix="gate-demo-"))
    try:
        make(work / "case")
        return 0 if tell(work / "case") else 1
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(run())
