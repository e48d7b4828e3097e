"""Which elements of a task vector stay: what the ways to choose have in common.

By rank: masks_by_rank.py. At random: masks_at_random.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from parentage.verify.masking import unpacked
from parentage.verify.methods.merging import Span


class Masks(Protocol):
    """The masks of one tensor.

    Attributes:
        nbytes: that they take.
    """

    nbytes: int

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        """Return which elements of a task vector stay, as booleans.

        Args:
            index: which task vector.
            span: which elements.
            vector: its elements there, flat.
        """

    def sure_and_tied(self, index: int, span: Span, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the elements that must stay, and those that may."""

    def open_at_zero(self, index: int) -> bool:
        """Say whether an element that is 0 may be among those of which only a number must stay."""

    def allowed(self, index: int) -> tuple[float, float]:
        """Return how few and how many elements may stay."""


class MaskSource(Protocol):
    """A way to choose."""

    def find(self, name: str, variant: str) -> Masks:
        """Find the masks of a tensor."""


class Packed:
    """Masks kept as bits."""

    def __init__(self, bits: Sequence[Tensor | None]) -> None:
        self._bits = bits
        self.nbytes = sum(0 if part is None else part.numel() for part in bits)

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        """Return which elements stay."""
        bits = self._bits[index]
        if bits is None:
            return torch.ones_like(vector, dtype=torch.bool)
        return unpacked(bits, span.start, span.stop).to(vector.device)

    def sure_and_tied(self, index: int, span: Span, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask, and nothing open."""
        mask = self.mask(index, span, vector)
        return mask, torch.zeros_like(mask)

    def open_at_zero(self, index: int) -> bool:
        """Say no: nothing is open."""
        return False

    def allowed(self, index: int) -> tuple[float, float]:
        """Return every count: nothing is open."""
        return 0.0, math.inf
