"""What the quantisers share: an input, which of its tensors are quantised, and what those become."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import SelectParams
from parentage.verify.methods.base import Interval
from parentage.verify.values import Scratch, Source

Part = tuple[str, str]
"""A tensor of the input, and which of the tensors that it becomes ("" where it is copied)."""

#: Elements that one pass over a tensor reads at a time.
PIECE = 1 << 20

T = TypeVar("T")


class Quantising:
    """A step from one input: chosen float tensors become others, the rest is copied."""

    proven_bound = True
    deterministic = True
    variants: tuple[str, ...]

    def __init__(
        self,
        step: str,
        source: Source,
        params: SelectParams,
        become: Callable[[TensorSpec], Iterable[tuple[str, TensorSpec]]],
    ) -> None:
        self.source = source
        self.specs: dict[str, TensorSpec] = {}
        self.parts: dict[str, Part] = {}
        chosen = 0
        for name, spec in source.specs.items():
            takes_part = spec.dtype in FLOAT_DTYPES and params.chooses(name)
            chosen += takes_part
            for part, made in become(spec) if takes_part else [("", spec)]:
                if made.name in self.specs:
                    raise RecipeError(
                        "two tensors get one name", where=f"step {step}", found=made.name
                    )
                self.specs[made.name] = made
                self.parts[made.name] = (name, part)
        if not chosen:
            raise ShapeMismatchError("no float tensor is chosen", where=f"step {step}")

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return units [start, stop) of an output tensor."""
        origin, part = self.parts[name]
        if not part:
            return self.source.read(origin, start, stop, scratch)
        return self.compute(origin, part, start, stop, variant, scratch)

    def compute(
        self, origin: str, part: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Tensor:
        """Return units [start, stop) of what a tensor becomes."""
        raise NotImplementedError

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a quantiser has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the input's tensor where it is copied."""
        origin, part = self.parts[name]
        return None if part else self.source.alias(origin)


def largest(values: Tensor) -> Tensor:
    """Return the largest magnitude of each row; NaN if the row has one."""
    return values.abs().amax(dim=1)


def halves_away(values: Tensor) -> Tensor:
    """Round to whole numbers, ties away from zero, as C's round does."""
    size = values.abs()
    down = size.floor()
    return (down + (size - down >= 0.5).to(values.dtype)).copysign(values)


def whole(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert whole numbers within range to an integer dtype; NaN becomes 0."""
    return values.nan_to_num(nan=0.0).to(dtype)
