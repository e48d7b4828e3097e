"""Releases that are declared and small: a card beside a draft, without keys or torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from parentage.manifest import lineage

COMMIT_A, COMMIT_B = "a" * 40, "b" * 40
NEX = {
    "id": "nex",
    "weights": {"ptd1-b3": "1" * 64},
    "uri": f"pkg:huggingface/nex-agi/nex-n2-pro@{COMMIT_A}",
    "license": "Apache-2.0",
}
QWEN = {
    "id": "qwen",
    "weights": {"ptd1-b3": "2" * 64},
    "uri": f"pkg:huggingface/qwen/qwen3.5-397b-a17b@{COMMIT_B}",
    "license": "Apache-2.0",
}
MERGE = {
    "id": "merge",
    "op": "weighted_sum/v1",
    "inputs": ["nex", "qwen"],
    "params": {"weights": ["0.6", "0.4"], "normalize": True},
    "arithmetic": {"profile": "parentage-1"},
}
TRAINING = {
    "id": "distill",
    "op": "training/v1",
    "inputs": ["nex"],
    "training": {
        "method": "on-policy-distillation",
        "steps": 10,
        "optimizer": {"name": "adamw"},
        "hyperparameters": {},
        "sumLearningRate": "0.001",
        "sumLearningRateWeightDecay": "0",
        "data": [],
        "program": {"sha256": "0" * 64},
        "trainable": ["*"],
        "tiedEmbeddings": False,
    },
}
QUANTISE = {
    "id": "int8",
    "op": "quantise_rtn/v1",
    "inputs": ["nex"],
    "params": {"dtype": "I8", "limit": "127"},
    "arithmetic": {"profile": "parentage-1"},
}
FOLD = {
    "id": "fold",
    "op": "lora_merge/v1",
    "inputs": ["qwen", "nex"],
    "params": {"alpha": "16"},
    "arithmetic": {"profile": "parentage-1"},
}
COPY = {"id": "copy", "op": "copy/v1", "inputs": ["nex"], "params": {}}
OPAQUE = {"id": "magic", "op": "opaque/v1", "inputs": ["nex"], "description": "a secret"}
#: What `card sync` would say of the merge of both.
TRUE = """\
base_model:
- nex-agi/Nex-N2-Pro
- Qwen/Qwen3.5-397B-A17B
base_model_relation: merge
license: apache-2.0
"""


def draft(
    folder: Path,
    *,
    parents: tuple[dict[str, Any], ...] = (NEX, QWEN),
    steps: tuple[dict[str, Any], ...] = (MERGE,),
    source: dict[str, Any] | None = None,
) -> Path:
    """Write `.parentage/draft.json` and return the folder."""
    recipe: dict[str, Any] = {"steps": list(steps)}
    if source is not None:
        recipe["source"] = source
    document = {
        "weights": {"root": {"ptd1-b3": "3" * 64}, "tensors": 1, "bytes": "8"},
        "parents": list(parents),
        "recipe": recipe,
        "created": "2026-06-14T09:00:00Z",
    }
    lineage.parse(document, where="test")
    (folder / ".parentage").mkdir(parents=True, exist_ok=True)
    (folder / ".parentage" / "draft.json").write_text(json.dumps(document))
    return folder


def card(folder: Path, matter: str, body: str = "# Rio\n") -> Path:
    """Write README.md and return the folder."""
    (folder / "README.md").write_bytes(f"---\n{matter}---\n{body}".encode())
    return folder


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
