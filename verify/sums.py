"""Sums whose bits depend on nothing but the values and their order (docs/engines.md, parentage-1).

Float64, in blocks of 4,096 from the start; each block is a binary tree (first half plus second half,
repeatedly) over the next power of two, padded with zeros, and so is the list of blocks.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

BLOCK: Final = 4096


def tree(values: Tensor) -> Tensor:
    """Sum the last dimension as one binary tree."""
    width = 1
    while width < values.shape[-1]:
        width *= 2
    values = pad(values, (0, width - values.shape[-1]))
    while width > 1:
        width //= 2
        values = values[..., :width] + values[..., width : 2 * width]
    return values[..., 0]


def tree_sum(values: Tensor) -> Tensor:
    """Sum float64 values along the last dimension, in blocks."""
    return tree(_block_sums(values) if values.shape[-1] > BLOCK else values)


def _block_sums(values: Tensor) -> Tensor:
    return tree(pad(values, (0, -values.shape[-1] % BLOCK)).reshape(*values.shape[:-1], -1, BLOCK))


class RunningSum:
    """The sum of a stream that arrives in pieces of whole blocks; only the last may be short."""

    def __init__(self) -> None:
        # Plain floats: small tensors kept between large temporaries would pin the heap around them.
        self._blocks: list[float] = []

    def add(self, values: Tensor) -> None:
        """Take the next piece, float64 and flat."""
        if values.numel():
            self._blocks.extend(_block_sums(values).tolist())

    def total(self) -> float:
        """Return the sum so far."""
        return float(tree(torch.tensor(self._blocks, dtype=torch.float64)))
