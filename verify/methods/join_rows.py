"""join_rows/v1: tensors cut along their first dimension, joined, transposed, given another shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import torch
from torch import Tensor

from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.row_steps import JoinedRows, JoinRows, Piece
from parentage.manifest.tensor import TensorSpec, nbytes_of
from parentage.manifest.wire import matches
from parentage.verify.methods.base import Interval
from parentage.verify.sources import Scratch, Source


class Cut(msgspec.Struct, frozen=True):
    """Units [start, start + length) of a source's tensor."""

    source: Source
    name: str
    start: int
    length: int


class Joined(msgspec.Struct, frozen=True):
    """Cuts in order; `columns` is how long a row of theirs is, and 0 where nothing is transposed."""

    cuts: tuple[Cut, ...]
    columns: int
    rows: int

    def read(self, start: int, stop: int, scratch: Scratch) -> list[Tensor]:
        """Return units [start, stop) of the cuts, before they are transposed."""
        found: list[Tensor] = []
        at = 0
        for cut in self.cuts:
            low, high = max(start, at), min(stop, at + cut.length)
            if low < high:
                begin = cut.start + low - at
                found.append(cut.source.read(cut.name, begin, begin + high - low, scratch))
            at += cut.length
        return found


class JoinRowsMethod:
    """A bound join_rows/v1."""

    proven_bound = True
    deterministic = True
    variants = ("copy",)

    def __init__(self, step: JoinRows, inputs: Mapping[str, Source]) -> None:
        self._where = f"step {step.id}"
        self.specs: dict[str, TensorSpec] = {}
        self._made: dict[str, Joined] = {}
        self._kept: dict[str, Source] = {}
        for name, made in step.params.tensors.items():
            self.specs[name], self._made[name] = self._bind(name, made, inputs)
        for rest in step.params.rest:
            for name, spec in inputs[rest.input].specs.items():
                if name not in self.specs and matches(name, (rest.tensors,)):
                    self.specs[name], self._kept[name] = spec, inputs[rest.input]

    def _bind(
        self, name: str, made: JoinedRows, inputs: Mapping[str, Source]
    ) -> tuple[TensorSpec, Joined]:
        cuts: list[Cut] = []
        rows = 0
        first: TensorSpec | None = None
        for piece in made.pieces:
            spec, count = self._piece(piece, inputs[piece.input])
            first = first or spec
            if (spec.dtype, spec.shape[1:]) != (first.dtype, first.shape[1:]):
                raise self._misfit("pieces do not fit together", piece.tensor, first, spec)
            width, rest = divmod(spec.units, spec.shape[0] if spec.shape and spec.shape[0] else 1)
            if rest:
                raise self._misfit("rows are no whole bytes", piece.tensor, first, spec)
            cuts.append(Cut(inputs[piece.input], piece.tensor, piece.start * width, count * width))
            rows += count
        if first is None or (not first.shape and rows != 1):
            raise ShapeMismatchError("only rows can be joined", where=f"{self._where}: {name}")
        shape = (rows, *first.shape[1:]) if first.shape else ()
        if made.transpose:
            if len(shape) != 2 or first.unit * first.elements != first.nbytes:
                raise self._misfit("can't transpose this", name, first, first)
            shape = (shape[1], shape[0])
        spec = TensorSpec(name, first.dtype, shape)
        if made.shape is not None:
            if nbytes_of(first.dtype, made.shape) != spec.nbytes:
                raise self._misfit(
                    "another number of elements", name, spec, TensorSpec(name, "", made.shape)
                )
            spec = TensorSpec(name, first.dtype, made.shape)
        columns = first.shape[1] if made.transpose else 0
        return spec, Joined(tuple(cuts), columns, rows)

    def _piece(self, piece: Piece, source: Source) -> tuple[TensorSpec, int]:
        spec = source.specs.get(piece.tensor)
        where = f"{self._where}: {piece.input}: {piece.tensor}"
        if spec is None:
            raise ShapeMismatchError("no such tensor to take rows from", where=where)
        rows = spec.shape[0] if spec.shape else 1
        end = rows if piece.end is None else piece.end
        if not piece.start <= end <= rows:
            raise ShapeMismatchError(
                "no such rows",
                where=where,
                expected=f"0 to {rows}",
                found=f"{piece.start} to {end}",
            )
        return spec, end - piece.start

    def _misfit(
        self, what: str, name: str, expected: TensorSpec, found: TensorSpec
    ) -> ShapeMismatchError:
        return ShapeMismatchError(
            what,
            where=f"{self._where}: {name}",
            expected=f"{expected.dtype} {list(expected.shape)}",
            found=f"{found.dtype} {list(found.shape)}",
        )

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return units [start, stop) of an output tensor."""
        if name in self._kept:
            return self._kept[name].read(name, start, stop, scratch)
        made = self._made[name]
        if made.columns:
            return _transposed(made, start, stop, scratch)
        parts = made.read(start, stop, scratch)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: what is moved has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the input's tensor where it keeps its name."""
        return self._kept[name].alias(name) if name in self._kept else None


def _transposed(made: Joined, start: int, stop: int, scratch: Scratch) -> Tensor:
    """Return elements [start, stop) of the transpose, reading only the columns that they lie in."""
    first, last = start // made.rows, -(-stop // made.rows)
    found: list[Tensor] = []
    for begin, end, width in _windows(made, first, last):
        with scratch.borrowed():
            parts = made.read(begin, end, scratch)
            slab = parts[0] if len(parts) == 1 else torch.cat(parts)
            if width:
                slab = slab.reshape(-1, width)[:, first:last]
            found.append(slab.reshape(-1, last - first).clone())
    whole = torch.cat(found).T.reshape(-1)
    return whole[start - first * made.rows : stop - first * made.rows]


#: Elements of whole rows that are read at once, and the length from which only parts of rows are.
_SLAB = 1 << 18
_LONG = 4096


def _windows(made: Joined, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """Cut the source into slabs of whole rows, or into the pieces of long rows that are wanted."""
    columns = made.columns
    if columns > 8 * (last - first) and columns > _LONG:
        for row in range(made.rows):
            yield row * columns + first, row * columns + last, 0
        return
    step = max(_SLAB // columns, 1)
    for row in range(0, made.rows, step):
        yield row * columns, min(row + step, made.rows) * columns, columns


def join_rows(step: JoinRows, inputs: Mapping[str, Source]) -> JoinRowsMethod:
    """Bind join_rows/v1."""
    return JoinRowsMethod(step, inputs)
