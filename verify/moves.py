"""Index maps over sources: tensors joined, cut and permuted, any range of them in bounded memory.

A range of a joined or cut tensor reads just the ranges that it is made of. A range of a permuted one
may be scattered over the whole source, so permuted tensors are made in blocks of 32 MiB: a block's runs
are read, small gaps with them, and the block is kept for the chunks that follow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, product
from math import prod
from typing import Final, Protocol

import msgspec
import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.tensor import TensorSpec
from parentage.verify.kept import Kept
from parentage.verify.rounding import STORED
from parentage.verify.values import Scratch, Source, own_pages

#: Elements of the largest tensor that an index map may give; steps in a chain could double it for ever.
MAX_ELEMENTS: Final = 1 << 40
#: Bytes of a block of a permuted tensor.
BLOCK: Final = 32 << 20
#: Blocks kept for each step: chunks at work may lie on both sides of a border.
KEPT: Final = 2
#: Elements read at a time: what a source computes, it computes in float64.
_PIECE: Final = 1 << 18
#: Bytes that are read over: one more read costs as much.
_GAP: Final = 1 << 14
#: Elements below which runs are read together with what lies between them.
_SHORT: Final = 512


class Move(Protocol):
    """Where the elements of an output tensor lie in its sources."""

    @property
    def dtype(self) -> str:
        """Its dtype, which is that of all its sources."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""

    def read(self, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop), flat."""


class Origin(msgspec.Struct, frozen=True):
    """A tensor of a source."""

    source: Source
    name: str

    @property
    def spec(self) -> TensorSpec:
        """Its dtype and shape."""
        return self.source.specs[self.name]

    def read(self, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop)."""
        return self.source.read(self.name, start, stop, scratch)


def movable(where: str, spec: TensorSpec) -> torch.dtype:
    """Return the torch dtype that the elements of a tensor are moved in.

    Raises:
        ShapeMismatchError: they have no address of their own (sub-byte), or torch has no such width.
    """
    if spec.dtype not in STORED:
        raise ShapeMismatchError(
            "can't move single elements of this dtype",
            where=f"{where}: {spec.name}",
            expected=", ".join(sorted(STORED)),
            found=spec.dtype,
        )
    return STORED[spec.dtype]


def bounded(where: str, spec: TensorSpec) -> TensorSpec:
    """Return a tensor's spec after checking its size.

    Raises:
        RecipeError: no model has such a tensor.
    """
    if spec.elements > MAX_ELEMENTS:
        raise RecipeError(
            "step makes a tensor too large",
            where=f"{where}: {spec.name}",
            expected=f"<= {MAX_ELEMENTS} elements",
            found=str(list(spec.shape)),
        )
    return spec


class Joined:
    """Tensors side by side: row i of the output is row i of each, one after another."""

    def __init__(self, parts: Sequence[Origin], shape: tuple[int, ...], rows: int) -> None:
        self.dtype, self.shape = parts[0].spec.dtype, shape
        self._parts = [(part, part.spec.elements // max(rows, 1)) for part in parts]
        self._starts = [0, *accumulate(width for _, width in self._parts)]
        self._width = self._starts.pop()

    def read(self, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop)."""
        out = scratch.tensor(stop - start, STORED[self.dtype])
        shortest = min(width for _, width in self._parts)
        if shortest < _SHORT and self._width <= _PIECE:
            self._by_rows(start, stop, out, scratch)
            return out
        at = start
        while at < stop:
            row, column = divmod(at, self._width)
            which = bisect_right(self._starts, column) - 1
            part, width = self._parts[which]
            column -= self._starts[which]
            end = min(stop, at + width - column)
            begin = row * width + column
            with scratch.borrowed():
                out[at - start : end - start] = part.read(begin, begin + end - at, scratch)
            at = end
        return out

    def _by_rows(self, start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
        count = max(_PIECE // self._width, 1)
        first, last = start // self._width, -(-stop // self._width)
        for at in range(first, last, count):
            rows = min(count, last - at)
            with scratch.borrowed():
                tiles = [
                    part.read(at * width, (at + rows) * width, scratch).view(rows, width)
                    for part, width in self._parts
                ]
                _place(out, torch.cat(tiles, dim=1), at * self._width, start, stop)


class Cut:
    """Columns [begin, begin + width) of a source that is seen as rows of `pitch` elements."""

    def __init__(
        self, origin: Origin, shape: tuple[int, ...], pitch: int, begin: int, width: int
    ) -> None:
        self.dtype, self.shape = origin.spec.dtype, shape
        self._origin, self._pitch, self._begin, self._width = origin, pitch, begin, width

    def read(self, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop)."""
        out = scratch.tensor(stop - start, STORED[self.dtype])
        first, last = start // self._width, -(-stop // self._width)
        batch = max(_PIECE // self._pitch, 1) if self._width < _SHORT else 1
        for at in range(first, last, batch):
            rows = min(batch, last - at)
            begin = at * self._pitch + self._begin
            with scratch.borrowed():
                if rows == 1:
                    low, high = (
                        max(start - at * self._width, 0),
                        min(stop - at * self._width, self._width),
                    )
                    tile = self._origin.read(begin + low, begin + high, scratch)
                    _place(out, tile, at * self._width + low, start, stop)
                else:
                    span = self._origin.read(
                        begin, begin + (rows - 1) * self._pitch + self._width, scratch
                    )
                    tile = span.as_strided((rows, self._width), (self._pitch, 1))
                    _place(out, tile, at * self._width, start, stop)
        return out


def _place(out: Tensor, tile: Tensor, at: int, start: int, stop: int) -> None:
    """Copy what `tile`, elements from `at` on, has of [start, stop)."""
    flat = tile.reshape(-1)
    low, high = max(at, start), min(at + flat.numel(), stop)
    out[low - start : high - start] = flat[low - at : high - at]


class Permuted:
    """A source seen with the dimensions `view`, these in another order."""

    def __init__(
        self,
        name: str,
        origin: Origin,
        shape: tuple[int, ...],
        view: Sequence[int],
        order: Sequence[int],
        blocks: Kept[Tensor],
    ) -> None:
        self.dtype, self.shape = origin.spec.dtype, shape
        self._name, self._origin, self._blocks = name, origin, blocks
        strides = [prod(view[axis + 1 :]) for axis in range(len(view))]
        self._sizes, self._strides = _coalesced([(view[a], strides[a]) for a in order])
        limit = BLOCK // STORED[self.dtype].itemsize
        # Blocks lie along the first axis whose steps fit one; each axis before it is one index.
        self._axis = 0
        while prod(self._sizes[self._axis + 1 :]) > limit:
            self._axis += 1
        self._unit = prod(self._sizes[self._axis + 1 :])
        self._count = max(min(self._sizes[self._axis], limit // max(self._unit, 1)), 1)

    def read(self, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop)."""
        out = scratch.tensor(stop - start, STORED[self.dtype])
        whole = self._sizes[self._axis] * self._unit
        at = start
        while at < stop:
            prefix, rest = divmod(at, whole)
            number = rest // (self._count * self._unit)
            begin = prefix * whole + number * self._count * self._unit
            with scratch.borrowed():
                block = self._blocks.get(
                    (self._name, prefix, number, str(scratch.device)),
                    lambda prefix=prefix, number=number: self._make(prefix, number, scratch),  # type: ignore[misc]
                )
            _place(out, block, begin, start, stop)
            at = begin + block.numel()
        return out

    def _make(self, prefix: int, number: int, scratch: Scratch) -> Tensor:
        """Read the runs of a block in the order of the source, and put them in that of the output."""
        axis, first = self._axis, number * self._count
        offset = first * self._strides[axis]
        for size, stride in zip(self._sizes[:axis][::-1], self._strides[:axis][::-1], strict=True):
            prefix, index = divmod(prefix, size)
            offset += index * stride
        sizes = [min(self._count, self._sizes[axis] - first), *self._sizes[axis + 1 :]]
        strides = self._strides[axis:]
        order = sorted(range(len(sizes)), key=lambda at: -strides[at])
        dtype = STORED[self.dtype]
        tile = _room(prod(sizes), dtype, scratch.device)
        done = 0
        for begin, count, pitch, length in _runs(
            offset, [sizes[at] for at in order], [strides[at] for at in order]
        ):
            for piece in self._pieces(begin, count, pitch, length, scratch):
                tile[done : done + piece.numel()] = piece.reshape(-1)
                done += piece.numel()
        back = [order.index(at) for at in range(len(order))]
        block = _room(prod(sizes), dtype, scratch.device)
        block.view(sizes).copy_(tile.view([sizes[at] for at in order]).permute(back))
        return block

    def _pieces(
        self, begin: int, count: int, pitch: int, length: int, scratch: Scratch
    ) -> Iterator[Tensor]:
        """Read `count` runs of `length`, `pitch` apart: together where the gaps are small."""
        width = STORED[self.dtype].itemsize
        together = max(_PIECE // pitch, 1) if (pitch - length) * width <= _GAP else 1
        for at in range(0, count, together):
            rows = min(together, count - at)
            start = begin + at * pitch
            if rows > 1:
                with scratch.borrowed():
                    span = self._origin.read(start, start + (rows - 1) * pitch + length, scratch)
                    yield span.as_strided((rows, length), (pitch, 1))
                continue
            for low in range(start, start + length, _PIECE):
                with scratch.borrowed():
                    yield self._origin.read(low, min(low + _PIECE, start + length), scratch)


def _room(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.empty(count, dtype=dtype, device=device)
    return own_pages(count, dtype)


def _coalesced(axes: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return sizes and strides with axes dropped that are 1, and joined that follow each other."""
    kept: list[tuple[int, int]] = []
    for size, stride in axes:
        if size == 1:
            continue
        if kept and kept[-1][1] == size * stride:
            kept[-1] = (kept[-1][0] * size, stride)
        else:
            kept.append((size, stride))
    kept = kept or [(1, 1)]
    return [size for size, _ in kept], [stride for _, stride in kept]


def _runs(offset: int, sizes: list[int], strides: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Give a box in the source as (begin, count, pitch, length): runs at equal distances."""
    length = 1
    while sizes and (sizes[-1] == 1 or strides[-1] == length):
        length *= sizes.pop()
        strides.pop()
    count, pitch = (sizes.pop(), strides.pop()) if sizes else (1, length)
    for index in product(*map(range, sizes)):
        at = offset + sum(i * stride for i, stride in zip(index, strides, strict=True))
        yield at, count, pitch, length
