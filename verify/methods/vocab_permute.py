"""vocab_permute/v1: rows of vocabulary tensors moved, averaged or zero (mergekit/tokenizer/embed.py).

both mk   copied rows keep their value in `compute` (else what the inputs promote to); an average is
          0 + row + row + ... in the order of the inputs, each sum rounded to that dtype, then divided
          by their number and rounded; a row from nowhere is zero.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.vocab_steps import VocabPermute
from parentage.manifest.wire import matches
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES
from parentage.verify.values import Scratch, Source


class VocabPermuteMethod:
    """A bound vocab_permute/v1."""

    proven_bound = True

    def __init__(self, step: VocabPermute, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, ("mk-0.1.5", "mk-0.1.4"))
        self._step, self._inputs = step, inputs
        self._own = inputs[step.inputs[0]]
        self.variants = (step.arithmetic.profile,)
        params = step.params
        self._runs = sorted(
            (to, start, count, name)
            for name, runs in params.copied.items()
            for to, start, count in runs
        )
        self._starts = [to for to, *_ in self._runs]
        self._means = {average.to: average.of for average in params.averaged}
        # 0.1.4 adds rows in the order of a set: of three or more the sum is any of several.
        many = any(len(of) > 2 for of in self._means.values())
        self.deterministic = not (step.arithmetic.profile == "mk-0.1.4" and many)
        self._ends = self._last_rows()
        self._moved = [name for name in self._own.specs if matches(name, params.tensors)]
        if not self._moved:
            raise ShapeMismatchError("no vocabulary tensor", where=f"step {step.id}")
        self.specs: Mapping[str, TensorSpec] = {
            name: self._spec(spec) if name in self._moved else spec
            for name, spec in self._own.specs.items()
        }

    def _last_rows(self) -> dict[str, int]:
        """Return how many rows are asked of each input."""
        ends: dict[str, int] = {}
        for _, start, count, name in self._runs:
            ends[name] = max(ends.get(name, 0), start + count)
        for of in self._means.values():
            for name, row in of.items():
                ends[name] = max(ends.get(name, 0), row + 1)
        return ends

    def _spec(self, own: TensorSpec) -> TensorSpec:
        where = f"step {self._step.id}: {own.name}"
        dtype: torch.dtype | None = None
        for name in self._step.inputs:
            spec = self._inputs[name].specs.get(own.name)
            fits = spec is not None and len(spec.shape) == 2 and spec.dtype in FLOAT_DTYPES
            if spec is None or not fits or spec.shape[1] != own.shape[-1]:
                found = f"{name}: {list(spec.shape) if spec else 'no such tensor'}"
                raise ShapeMismatchError("rows do not fit", where=where, found=found)
            if self._ends.get(name, 0) > spec.shape[0]:
                raise ShapeMismatchError(
                    "no such row",
                    where=f"{where} of {name}",
                    expected=f"< {spec.shape[0]}",
                    found=str(self._ends[name] - 1),
                )
            dtype = (
                DTYPES[spec.dtype]
                if dtype is None
                else torch.promote_types(dtype, DTYPES[spec.dtype])
            )
        promoted = next(key for key, value in DTYPES.items() if value == dtype)
        compute = self._step.arithmetic.compute or promoted
        return TensorSpec(own.name, compute, (self._step.params.rows, own.shape[-1]))

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return elements [start, stop), whole rows of which are read."""
        if name not in self._moved:
            return self._own.read(name, start, stop, scratch)
        spec = self.specs[name]
        columns = spec.shape[1]
        first, last = start // columns, -(-stop // columns)
        out = torch.zeros((last - first, columns), dtype=DTYPES[spec.dtype], device=scratch.device)
        for to, row, count, source in self._within(first, last):
            values = self._inputs[source].read(
                name, row * columns, (row + count) * columns, scratch
            )
            out[to - first : to - first + count] = values.reshape(count, columns).to(out.dtype)
        for to in range(first, last):
            if to in self._means:
                out[to - first] = self._mean(name, self._means[to], out.dtype, scratch)
        return out.reshape(-1)[start - first * columns : stop - first * columns]

    def _within(self, first: int, last: int) -> Iterator[tuple[int, int, int, str]]:
        """Yield the runs that touch rows [first, last), cut to them."""
        begin = max(bisect_right(self._starts, first) - 1, 0)
        for at in range(begin, bisect_left(self._starts, last)):
            to, row, count, name = self._runs[at]
            low, high = max(to, first), min(to + count, last)
            if low < high:
                yield low, row + low - to, high - low, name

    def _mean(
        self, name: str, of: Mapping[str, int], dtype: torch.dtype, scratch: Scratch
    ) -> Tensor:
        columns = self.specs[name].shape[1]
        total = torch.zeros(columns, dtype=dtype, device=scratch.device)
        for source in self._step.inputs:
            if source in of:
                row = of[source]
                part = self._inputs[source].read(name, row * columns, (row + 1) * columns, scratch)
                total = total + part.to(dtype)
        return total.div_(len(of))

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a move has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the first input's tensor where it is not a vocabulary."""
        return None if name in self._moved else self._own.alias(name)


def vocab_permute(step: VocabPermute, inputs: Mapping[str, Source]) -> VocabPermuteMethod:
    """Bind vocab_permute/v1."""
    return VocabPermuteMethod(step, inputs)
