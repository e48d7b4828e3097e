"""Tensors in memory as a source, and a step's output computed chunk by chunk."""

from __future__ import annotations

from typing import Any

import torch

from parentage.manifest import recipe
from parentage.manifest.tensor import TensorSpec
from parentage.verify.engine import bind, chunks_of
from parentage.verify.values import Scratch

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int8: "I8",
    torch.uint8: "U8",
}


class Held:
    """A source in memory."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.specs = {n: TensorSpec(n, DTYPES[t.dtype], tuple(t.shape)) for n, t in tensors.items()}

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> torch.Tensor:
        return self.tensors[name].reshape(-1)[start:stop].clone()

    def alias(self, name: str) -> Any:
        return self, name


def one_step(**fields: Any) -> Any:
    """Return a checked step from its JSON form."""
    inputs = list(dict.fromkeys(fields.setdefault("inputs", ["a"])))
    document = {
        "version": "0.1",
        "parents": [{"id": i} for i in inputs],
        "steps": [{"id": "s", **fields}],
    }
    return recipe.parse(document, where="test").steps[0]


def output(
    step: Any, inputs: dict[str, Any], name: str, variant: str = "", width: int = 0
) -> torch.Tensor:
    """Return one output tensor, flat, put together from chunks as the engine cuts them."""
    bound = bind([step], inputs)[step.id]
    spec, scratch = bound.specs[name], Scratch(torch.device("cpu"))
    ranges = [(c.start, c.stop) for c in chunks_of(spec)]
    if width:
        ranges = [(at, min(at + width, spec.units)) for at in range(0, spec.units, width)]
    parts = []
    for start, stop in ranges:
        scratch.reset()
        part = bound.method.chunk(name, start, stop, variant or bound.variant, scratch)
        assert part.numel() * part.element_size() == (stop - start) * spec.unit
        parts.append(part.clone())
    return torch.cat(parts) if parts else torch.empty(0)
