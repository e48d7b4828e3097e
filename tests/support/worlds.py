"""A publisher with a key, parents and releases: small, real, on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import torch
from safetensors.torch import load_file, save_file

import parentage
from parentage import Demands, KeySigner, PrivateKey, Report, TrustedKeys
from parentage.attest.claims import find_lineage
from parentage.attest.opening import open_bundle
from parentage.manifest import recipe as recipes
from parentage.manifest.files import open_files
from parentage.manifest.lineage import Lineage
from parentage.manifest.lineage import parse as parse_lineage

MERGE = {
    "id": "merge",
    "op": "weighted_sum/v1",
    "inputs": ["a", "b"],
    "params": {"weights": ["0.6", "0.4"], "normalize": True},
    "arithmetic": {"profile": "parentage-1"},
}


def training(base: str, **changes: Any) -> dict[str, Any]:
    record = {
        "method": "sft",
        "steps": 100,
        "optimizer": {"name": "adamw", "betas": ["0.9", "0.95"]},
        "hyperparameters": {},
        "sumLearningRate": "0.001",
        "sumLearningRateWeightDecay": "0.0001",
        "data": [],
        "program": {"sha256": "0" * 64},
        "trainable": ["*"],
        "tiedEmbeddings": False,
        **changes,
    }
    return {"id": "train", "op": "training/v1", "inputs": [base], "training": record}


class World:
    """A publisher with a key, two parents, and whatever they release."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = PrivateKey.generate()
        self.trust = TrustedKeys((self.key.public,))
        generator = torch.Generator().manual_seed(7)
        base = {f"layers.{i}.w": torch.randn(96, 64, generator=generator) for i in range(4)}
        base["norm"] = torch.ones(64)
        for name in ("base", "a", "b"):
            far = {k: v + 0.02 * torch.randn(v.shape, generator=generator) for k, v in base.items()}
            self.save(name, base if name == "base" else far)

    def save(self, name: str, tensors: dict[str, torch.Tensor]) -> Path:
        (self.root / name).mkdir(exist_ok=True)
        save_file(tensors, self.root / name / "model.safetensors")
        return self.root / name

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.root / name / "model.safetensors")

    def recipe(self, parents: list[str], steps: list[Any]) -> recipes.Recipe:
        document = {"version": "0.1", "parents": [{"id": p} for p in parents], "steps": steps}
        return recipes.parse(document, where="test")

    def merge(self, name: str = "merged", step: Any = MERGE) -> Path:
        parents = {i: self.root / i for i in step["inputs"]}
        parentage.merge(self.recipe(step["inputs"], [step]), self.root / name, parents=parents)
        return self.sign(name)

    def chain(self, name: str) -> list[Any]:
        """Release a merge that was cast; the merge itself was never written."""
        arithmetic = {"profile": "parentage-1", "store": "BF16"}
        steps = [
            MERGE,
            {"id": "cast", "op": "cast/v1", "inputs": ["merge"], "arithmetic": arithmetic},
        ]
        parents = {i: self.root / i for i in ("a", "b")}
        parentage.merge(self.recipe(["a", "b"], steps), self.root / name, parents=parents)
        self.sign(name)
        return steps

    def declare(self, name: str, parents: list[str], steps: list[Any], **outputs: Path) -> Path:
        parentage.declare(
            self.root / name,
            self.recipe(parents, steps),
            parents={i: self.root / i for i in parents},
            step_outputs=outputs,
        )
        return self.sign(name)

    def sign(self, name: str) -> Path:
        parentage.sign_release(self.root / name, KeySigner(self.key), self.trust)
        return self.root / name

    def lineage(self, name: str) -> Lineage:
        """Read the lineage that a release carries, by this publisher."""
        with open_files(self.root / name) as files:
            data = files.files["model.sig"].read_small()
            return find_lineage(files, open_bundle(data, self.trust, "model.sig"), self.trust)

    def lineage_unbound(self, name: str) -> Lineage:
        """Read the lineage in the first claim, whatever it is about."""
        line = (self.root / name / ".parentage" / "claims.jsonl").read_bytes().split(b"\n")[0]
        statement = open_bundle(line, self.trust, "claims.jsonl").statement
        return parse_lineage(statement.predicate, where="lineage")

    def verify(
        self, name: str, parents: list[str], against: list[str] | None = None, **demands: Any
    ) -> Report:
        return parentage.verify_release(
            self.root / name,
            trust=self.trust,
            parents=[(None, self.root / p) for p in parents],
            against=[self.root / p for p in against or []],
            demands=Demands(device="cpu", **demands),
        )


def raw_safetensors(header: object, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Return a safetensors file with any header at all: an object, text or bytes."""
    if isinstance(header, bytes):
        raw = header
    else:
        raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    size = len(raw) if length is None else length
    return size.to_bytes(8, "little") + raw + payload


def command(
    *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does; whatever happens, it never shows a traceback."""
    words, environment = [*map(str, arguments)], {**os.environ, **(env or {})}
    if forked.possible(words, env or {}, options):
        done = forked.run(words, environment, timeout=120, **options)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "parentage", *words],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment,
            **options,
        )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done
