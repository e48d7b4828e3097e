"""Sums whose bits depend on nothing but the values and their order (docs/engines.md, parentage-1).

Float64, in blocks of 4,096 from the start; each block is a binary tree (first half plus second half,
repeatedly) over the next power of two, padded with zeros, and so is the list of blocks.
docs/parentage-1.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from parentage.verify import kernels, sum_kernels

BLOCK: Final = 4096
#: Elements that are widened and added at a time: more of them leave the cache in between.
PASS: Final = 8 * BLOCK


def tree(values: Tensor) -> Tensor:
    """Sum the last dimension as one binary tree."""
    width = 1
    while width < values.shape[-1]:
        width *= 2
    values = _padded(values, width)
    while width > 1:
        width //= 2
        values = values[..., :width] + values[..., width : 2 * width]
    return values[..., 0]


def tree_sum(values: Tensor) -> Tensor:
    """Sum float64 values along the last dimension, in blocks."""
    return tree(_block_sums(values) if values.shape[-1] > BLOCK else values)


def _block_sums(values: Tensor) -> Tensor:
    width = values.shape[-1] + -values.shape[-1] % BLOCK
    return tree(_padded(values, width).reshape(*values.shape[:-1], -1, BLOCK))


def _padded(values: Tensor, width: int) -> Tensor:
    # torch copies even where nothing is padded.
    more = width - values.shape[-1]
    return pad(values, (0, more)) if more else values


class RunningSum:
    """The sum of a stream: the same bits however it is cut into pieces."""

    def __init__(self) -> None:
        # Plain floats: small tensors kept between large temporaries would pin the heap around them.
        self._blocks: list[float] = []
        self._rest: Tensor | None = None

    def add(self, values: Tensor, *factors: Tensor) -> None:
        """Take the next piece, flat, or the products of several: float64, or what float64 holds exactly."""
        if self._rest is not None:
            product = _product(values, factors)
            values, factors, self._rest = torch.cat((self._rest, product)), (), None
        whole = values.numel() // BLOCK * BLOCK
        if whole:
            parts = [part[:whole] for part in (values, *factors)]
            add_up = kernels.compiled(sum_kernels.tree_sums, values.device)
            self._blocks.extend(add_up(parts, BLOCK, PASS).tolist())
        if whole < values.numel():
            self._rest = _product(values[whole:], [part[whole:] for part in factors])

    def add_blocks(self, sums: Sequence[float]) -> None:
        """Take the sums of the next whole blocks.

        Raises:
            ValueError: what came before does not end with a whole block.
        """
        if self._rest is not None:
            raise ValueError("a block that begins inside another")
        self._blocks.extend(sums)

    def total(self) -> float:
        """Return the sum so far."""
        rest = [] if self._rest is None else _block_sums(self._rest).tolist()
        return float(tree(torch.tensor(self._blocks + rest, dtype=torch.float64)))


def _product(values: Tensor, factors: Sequence[Tensor]) -> Tensor:
    found = values.to(torch.float64, copy=True)
    for factor in factors:
        found = found * factor.to(torch.float64)
    return found


class ColumnSums:
    """Sums over the first dimension: groups of 64 rows as binary trees, the groups in order."""

    ROWS: Final = 64

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, values: Tensor) -> None:
        """Take the next rows, float64, of shape (rows, columns): whole groups but for the last."""
        rows = pad(values, (0, 0, 0, -len(values) % self.ROWS))
        for group in rows.reshape(-1, self.ROWS, values.shape[1]):
            found = tree(group.T)
            self._total = found if self._total is None else self._total + found

    def total(self) -> Tensor:
        """Return one sum for each column."""
        if self._total is None:
            raise ValueError("a sum of nothing")
        return self._total
