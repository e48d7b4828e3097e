"""vocab_resize/v1: rows of vocabulary tensors cut, added from data, put in another order, or filled.

Rows move bit for bit. A filled row is the mean of all rows of an input (parentage-1: float64, rows added in
order, one division by their number, one rounding).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import msgspec
import torch
from torch import Tensor

from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.vocab_steps import RowIndex, RowMean, RowRange, VocabResize
from parentage.manifest.wire import matches
from parentage.verify.kept import Kept
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.moves import bounded, movable
from parentage.verify.rounding import STORED, round_once
from parentage.verify.values import Scratch, Source

#: Entries of an index that are read into memory: a hundred times today's vocabularies.
_MAX_INDEX = 1 << 24
_MAX_COLUMNS = 1 << 24
_INTEGERS = ("I32", "I64")
_PIECE = 1 << 18


class _Segment(msgspec.Struct, frozen=True):
    """Rows of the output that come from one place.

    Attributes:
        rows: how many.
        source: where from.
        first: the first of them there.
        index: their numbers there, if they are not consecutive.
        mean: whether each is the mean of all rows there.
    """

    rows: int
    source: Source
    first: int = 0
    index: Tensor | None = None
    mean: bool = False


class VocabResizeMethod:
    """A bound vocab_resize/v1."""

    proven_bound = True
    deterministic = True
    variants = ("parentage-1",)

    def __init__(self, step: VocabResize, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, self.variants)
        self.where = f"step {step.id}"
        self._base, self._inputs = inputs[step.inputs[0]], inputs
        self._indices: dict[tuple[str, str], Tensor] = {}
        self._means: Kept[Tensor] = Kept(4)
        self._segments = {
            name: [self._segment(name, rows) for rows in step.params.rows]
            for name in self._base.specs
            if matches(name, step.params.tensors)
        }
        if not self._segments:
            raise ShapeMismatchError("no such tensor to resize", where=self.where)
        self.specs: Mapping[str, TensorSpec] = {
            name: self._spec(spec) for name, spec in self._base.specs.items()
        }

    def _spec(self, spec: TensorSpec) -> TensorSpec:
        if spec.name not in self._segments:
            return spec
        rows = sum(segment.rows for segment in self._segments[spec.name])
        return bounded(self.where, TensorSpec(spec.name, spec.dtype, (rows, *spec.shape[1:])))

    def _segment(self, name: str, rows: RowRange | RowIndex | RowMean) -> _Segment:
        source = self._inputs[rows.input]
        height = self._height(name, rows.input)
        if isinstance(rows, RowMean):
            if self._base.specs[name].dtype not in FLOAT_DTYPES or not height:
                raise ShapeMismatchError("no mean of these rows", where=f"{self.where}: {name}")
            return _Segment(rows.count, source, mean=True)
        if isinstance(rows, RowIndex):
            index = self._index(rows)
            outside = index[(index < 0) | (index >= height)]
            if outside.numel():
                raise self._no_row(name, rows.input, height, str(int(outside[0])))
            return _Segment(index.numel(), source, index=index)
        end = height if rows.end is None else rows.end
        if not rows.start <= end <= height:
            raise self._no_row(name, rows.input, height, f"{rows.start} to {end}")
        return _Segment(end - rows.start, source, first=rows.start)

    def _no_row(self, name: str, read: str, height: int, found: str) -> ShapeMismatchError:
        return ShapeMismatchError(
            "no such row",
            where=f"{self.where}: {read}: {name}",
            expected=f"0 to {height}",
            found=found,
        )

    def _height(self, name: str, read: str) -> int:
        """Return an input's number of rows after checking that they fit."""
        want, have = self._base.specs[name], self._inputs[read].specs.get(name)
        movable(self.where, want)
        fits = have is not None and have.dtype == want.dtype and have.shape[1:] == want.shape[1:]
        if have is None or not fits or not want.shape or prod(want.shape[1:]) > _MAX_COLUMNS:
            raise ShapeMismatchError(
                "rows do not fit",
                where=f"{self.where}: {name}",
                expected=f"{want.dtype} rows of {list(want.shape[1:])}",
                found=f"{read}: {f'{have.dtype} {list(have.shape)}' if have else 'no such tensor'}",
            )
        return have.shape[0] if have.shape else 0

    def _index(self, rows: RowIndex) -> Tensor:
        key = (rows.index, rows.tensor)
        if key not in self._indices:
            source = self._inputs[rows.index]
            spec = source.specs.get(rows.tensor)
            if (
                spec is None
                or spec.dtype not in _INTEGERS
                or len(spec.shape) != 1
                or spec.elements > _MAX_INDEX
            ):
                raise ShapeMismatchError(
                    "no such index of rows",
                    where=f"{self.where}: {rows.index}",
                    expected=f"a vector of {' or '.join(_INTEGERS)}",
                    found=f"{rows.tensor}: {f'{spec.dtype} {list(spec.shape)}' if spec else 'absent'}",
                )
            scratch = Scratch(torch.device("cpu"))
            self._indices[key] = source.read(rows.tensor, 0, spec.elements, scratch).long().clone()
        return self._indices[key]

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the elements: read row by row where rows are scattered, else as they lie."""
        if name not in self._segments:
            return self._base.read(name, start, stop, scratch)
        columns = prod(self.specs[name].shape[1:])
        out = scratch.tensor(stop - start, STORED[self.specs[name].dtype])
        begin = 0
        for at, segment in enumerate(self._segments[name]):
            end = begin + segment.rows * columns
            low, high = max(start, begin), min(stop, end)
            if low < high:
                part = out[low - start : high - start]
                self._fill(part, name, at, low - begin, high - begin, scratch)
            begin = end
        return out

    def _fill(
        self, out: Tensor, name: str, at: int, start: int, stop: int, scratch: Scratch
    ) -> None:
        """Write elements [start, stop) of one segment."""
        segment = self._segments[name][at]
        columns = prod(self.specs[name].shape[1:])
        if segment.mean:
            mean = self._mean(name, at).to(out.device)
            places = torch.arange(start, stop, device=out.device) % columns
            out.copy_(mean[places])
        elif segment.index is None:
            shift = segment.first * columns
            with scratch.borrowed():
                out.copy_(segment.source.read(name, start + shift, stop + shift, scratch))
        else:
            first, last = start // columns, -(-stop // columns)
            numbers: list[int] = segment.index[first:last].tolist()
            for row, number in enumerate(numbers, first):
                low = max(start - row * columns, 0)
                high = min(stop - row * columns, columns)
                where = number * columns
                with scratch.borrowed():
                    values = segment.source.read(name, where + low, where + high, scratch)
                    to = row * columns + low - start
                    out[to : to + high - low] = values

    def _mean(self, name: str, at: int) -> Tensor:
        """Return the mean of a segment's source rows, found once."""
        source = self._segments[name][at].source
        return self._means.get((name, at), lambda: self._found_mean(name, source))

    def _found_mean(self, name: str, source: Source) -> Tensor:
        spec = source.specs[name]
        columns = prod(spec.shape[1:])
        total = torch.zeros(columns, dtype=torch.float64)
        scratch = Scratch(torch.device("cpu"))
        batch = max(_PIECE // max(columns, 1), 1)
        for first in range(0, spec.shape[0], batch):
            last = min(first + batch, spec.shape[0])
            with scratch.borrowed():
                rows = source.read(name, first * columns, last * columns, scratch)
                for row in rows.to(torch.float64).view(last - first, columns):
                    total.add_(row)
        return round_once(total / spec.shape[0], spec.dtype)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a copy has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the input's tensor where it keeps its rows."""
        return None if name in self._segments else self._base.alias(name)


def vocab_resize(step: VocabResize, inputs: Mapping[str, Source]) -> VocabResizeMethod:
    """Bind vocab_resize/v1."""
    return VocabResizeMethod(step, inputs)
