"""The wire formats as JSON Schema, generated from the models (`make schemas`) and held by a test."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

NAMES: Final = ("lineage-v0.1", "recipe-v0.1", "tensors-v0.1", "report-v0.1")


def load(name: str) -> dict[str, Any]:
    """Return a schema by name.

    Raises:
        KeyError: there is no such schema.
    """
    if name not in NAMES:
        raise KeyError(name)
    text = resources.files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
