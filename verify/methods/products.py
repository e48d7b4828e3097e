"""Scalar products of two whole tensors, from pieces that come in any order."""

from __future__ import annotations

import threading

from torch import Tensor

from parentage.verify import kernels, native, sum_kernels
from parentage.verify.methods.base import Scalars
from parentage.verify.sums import BLOCK, PASS, RunningSum

_PRODUCTS = ("aa", "bb", "ab")


class Products:
    """<a,a>, <b,b> and <a,b> in float64, as sums.py adds: the bits do not depend on the pieces."""

    def __init__(self, elements: int) -> None:
        """Know nothing yet.

        Args:
            elements: of each tensor.
        """
        self._elements = elements
        self._missing = elements
        self._blocks: dict[int, list[list[float]]] = {}
        self._last: tuple[Tensor, Tensor] | None = None
        self._lock = threading.Lock()

    def add(self, start: int, a: Tensor, b: Tensor) -> None:
        """Take a piece, flat: whole blocks of both tensors from element `start`, or up to their end.

        Raises:
            ValueError: it begins or ends inside a block.
        """
        stop = start + a.numel()
        if start % BLOCK or (stop % BLOCK and stop != self._elements):
            raise ValueError("a piece that begins or ends inside a block")
        whole = a.numel() // BLOCK * BLOCK
        rows = _sums(a[:whole], b[:whole])
        with self._lock:
            if start not in self._blocks:
                self._missing -= a.numel()
            self._blocks[start] = rows
            if whole < a.numel():
                self._last = a[whole:].double(), b[whole:].double()

    def totals(self) -> Scalars | None:
        """Return the products, or None where a piece has not come."""
        if self._missing:
            return None
        sums, at = [RunningSum() for _ in _PRODUCTS], 0
        for start, rows in sorted(self._blocks.items()):
            if start != at:
                return None
            at += BLOCK * len(rows[0])
            for one, row in zip(sums, rows, strict=True):
                one.add_blocks(row)
        if self._last is not None:
            a, b = self._last
            for one, left, right in zip(sums, (a, b, a), (a, b, b), strict=True):
                one.add(left, right)
        return {key: one.total() for key, one in zip(_PRODUCTS, sums, strict=True)}


def _sums(a: Tensor, b: Tensor) -> list[list[float]]:
    """Return the sums of whole blocks."""
    rows = native.gram(a, b)
    if rows is not None:
        return rows
    add_up = kernels.compiled(sum_kernels.tree_sums, a.device)
    return [add_up([x, y], BLOCK, PASS).tolist() for x, y in ((a, a), (b, b), (a, b))]
