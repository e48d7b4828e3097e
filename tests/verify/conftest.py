"""Small real models on disk, as sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine
from parentage.verify.values import FileSource

Tensors = Mapping[str, torch.Tensor]


@pytest.fixture
def engine() -> Engine:
    return Engine(torch.device("cpu"), threads=2)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Callable[[Tensors], FileSource]]:
    opened: list[Any] = []

    def make(tensors: Tensors) -> FileSource:
        path = tmp_path / f"source-{len(opened)}.safetensors"
        save_file({name: t.contiguous() for name, t in tensors.items()}, path)
        opened.append(open_model(path))
        return FileSource(opened[-1])

    yield make
    for model in opened:
        model.files.close()


@pytest.fixture
def step() -> Callable[..., Any]:
    """Build one checked step from its JSON form."""

    def make(**fields: Any) -> Any:
        inputs = list(dict.fromkeys(fields["inputs"]))
        document = {
            "version": "0.1",
            "parents": [{"id": i} for i in inputs],
            "steps": [{"id": "s", **fields}],
        }
        return recipe.parse(document, where="test").steps[0]

    return make
