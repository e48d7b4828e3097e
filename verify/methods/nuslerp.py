"""nuslerp/v1: spherical interpolation of two inputs, or of their task vectors.

t = w_2 / (w_1 + w_2), 1/2 where the sum is below 1e-6.

parentage-1   cos = <a,b> / (|a| |b|); where 1 - cos^2 <= 1e-16: 1 - t and t; else sin((1-t)θ) / sin θ and
              sin(tθ) / sin θ. By rows and by columns likewise, for each by itself (gram.py).
mk            every operation in `compute` (merge_methods/nuslerp.py): x / max(|x|, 1e-7), the sum of
              products, acos, sines, (sin((1-t)θ) a + sin(tθ) b) / sin θ. Scalar: "cos", per tensor.
              Rows are independent of threads and need no witness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar, Final

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import NuSlerp
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import matches, ratio
from parentage.verify import fixed_math
from parentage.verify.decimals import acos, sin
from parentage.verify.methods import boxes
from parentage.verify.methods.base import Interval, Scalars
from parentage.verify.methods.gram import (
    Combination,
    Facts,
    Gram,
    RowGram,
    added,
    decimal,
    lengths,
)
from parentage.verify.methods.merging import PIECE, Span
from parentage.verify.rounding import UNIT, rounded
from parentage.verify.sums import ColumnSums, RunningSum
from parentage.verify.values import Scratch, Source

#: An angle times t must stay within what sin takes.
_LARGEST: Final = 100_000


class NuSlerpMethod(Combination[NuSlerp]):
    """A bound nuslerp/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }
    noise: ClassVar[Mapping[str, float]] = {"cos": 1e-5}

    def __init__(self, step: NuSlerp, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.by_rows = not step.params.flatten and not step.params.row_wise
        self._by_columns = not step.params.flatten and step.params.row_wise
        if not step.params.flatten and self.deterministic:
            for texts in (step.params.weights, *(o.weights for o in step.params.overrides)):
                if abs(_share(texts)) > _LARGEST:
                    raise RecipeError(
                        "weights nearly cancel: t is too large for an angle",
                        where=self.where,
                        expected=f"at most {_LARGEST}",
                        found=str(list(texts)),
                    )

    def t(self, name: str) -> Fraction:
        """Return the exact t of a tensor."""
        overrides = self.step.params.overrides
        texts = next(
            (o.weights for o in overrides if matches(name, o.tensors)), self.step.params.weights
        )
        return _share(texts)

    def coefficients(self, name: str, gram: Gram) -> list[Decimal]:
        """Return the two sines' ratios, or those of a straight line."""
        t = decimal(self.t(name))
        scale = lengths(gram)[0] * lengths(gram)[1]
        cosine = max(min(gram[0][1] / scale, Decimal(1)), Decimal(-1)) if scale else Decimal(1)
        if 1 - cosine * cosine <= Decimal("1e-16"):
            return [1 - t, t]
        theta = acos(cosine)
        return [sin((1 - t) * theta) / sin(theta), sin(t * theta) / sin(theta)]

    def row_coefficients(self, name: str, gram: RowGram) -> list[Tensor]:
        """Return the same in float64, row by row."""
        t = self.t(name)
        scale = fixed_math.sqrt(gram[0][0]) * fixed_math.sqrt(gram[1][1])
        cosine = torch.where(scale == 0, 1.0, gram[0][1] / scale).clamp(min=-1.0, max=1.0)
        straight = (1.0 - cosine * cosine) <= 1e-16
        theta = fixed_math.acos(cosine)
        sine = fixed_math.sin(theta)
        return [
            torch.where(straight, share, fixed_math.sin(theta * share) / sine)
            for share in (float(1 - t), float(t))
        ]

    def facts(self, name: str, variant: str) -> Facts:
        """Return coefficients, an engine's cosine, or (by columns) the whole merged tensor."""
        if variant == "parentage-1":
            if self._by_columns:
                return Facts([], columns=self._column_coefficients(name))
            return super().facts(name, variant)
        if not self.step.params.flatten:
            return Facts([], self._columns(name, variant) if self._by_columns else None)
        return Facts([self._cosine(name, variant)])

    def _column_coefficients(self, name: str) -> list[Tensor]:
        spec = self.specs[name]
        rows = spec.shape[0] if spec.shape else 1
        width = spec.elements // rows
        sums = [[ColumnSums() for _ in range(2)] for _ in range(2)]
        group = ColumnSums.ROWS * max(PIECE // (ColumnSums.ROWS * width), 1)
        scratch = Scratch(torch.device("cpu"))
        for row in range(0, rows, group):
            scratch.reset()
            span = Span(name, row * width, min(row + group, rows) * width, spec.shape)
            vectors = self.vectors(self.parts(span, "parentage-1", scratch))
            vectors = [vector.reshape(-1, width) for vector in vectors]
            for i, j in ((0, 0), (0, 1), (1, 1)):
                sums[i][j].add(vectors[i] * vectors[j])
        gram = [[sums[min(i, j)][max(i, j)].total() for j in range(2)] for i in range(2)]
        return self.with_base(self.row_coefficients(name, gram))

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Combine the inputs."""
        if variant != "parentage-1" or not self._by_columns:
            return super().merged(span, parts, scalars, variant)
        columns = self.found(span.name, variant).columns
        at = torch.arange(span.start, span.stop) % len(columns[0])
        return added(
            [part * of[at].to(part.device) for part, of in zip(parts, columns, strict=True)]
        )

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the cosine of whole tensors."""
        if variant == "parentage-1" or not self.step.params.flatten:
            return {}
        return {"cos": self.found(name, variant).values[0]}

    def replay(self, name: str, variant: str) -> Scalars:
        """Reduce as mergekit does."""
        if variant == "parentage-1" or not self.step.params.flatten:
            return {}
        return {"cos": float(_cosines(self.vectors(self.whole(name, variant))))}

    def _cosine(self, name: str, variant: str) -> float:
        compute = self.compute(name)
        squares = [RunningSum(), RunningSum()]
        for _, parts in self.pieces(name, variant):
            for total, vector in zip(squares, self.vectors(parts), strict=True):
                total.add(vector.to(torch.float64).square())
        norms = [max(rounded(total.total() ** 0.5, compute), 1e-7) for total in squares]
        dot = RunningSum()
        for _, parts in self.pieces(name, variant):
            a, b = (v / n for v, n in zip(self.vectors(parts), norms, strict=True))
            dot.add((a * b).to(torch.float64))
        return rounded(min(max(dot.total(), -1.0), 1.0), compute)

    def _columns(self, name: str, variant: str) -> Tensor:
        elements, shape = self.specs[name].elements, self.specs[name].shape
        whole = self.whole(name, variant)
        vectors = [v.reshape(shape).transpose(0, -1) for v in self.vectors(whole)]
        mixed = self._mixed(vectors, _cosines(vectors), name, variant)
        base, _ = self.split(whole)
        out = mixed.transpose(0, -1).reshape(elements)
        return out if base is None else base + out

    def engine(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Interpolate as mergekit does."""
        if self._by_columns:
            whole = self.found(span.name, variant).whole
            if whole is not None:
                return whole[span.start : span.stop].to(parts[0].device)
        vectors = self.vectors(parts)
        if self.step.params.flatten:
            cosine = torch.tensor([scalars["cos"]], dtype=vectors[0].dtype)
        else:
            vectors = [vector.reshape(-1, span.columns) for vector in vectors]
            cosine = _cosines(vectors)
        mixed = self._mixed(vectors, cosine, span.name, variant).reshape(-1)
        base, _ = self.split(parts)
        return mixed if base is None else base + mixed

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return what any cosine within its box can give: enough to refute."""
        spec, compute = self.specs[name], self.compute(name)
        if self.deterministic or not self.step.params.flatten or spec.dtype not in FLOAT_DTYPES:
            return None
        cosine = self.found(name, self.bare(variant)).values[0]
        if not math.isfinite(cosine):
            return None
        ranges = boxes.slerp_ranges(boxes.around(cosine, compute, spec.elements), self.t(name))
        if ranges is None:
            return None
        parts = self.doubles(name, start, stop, variant, scratch)
        base, _ = self.split(parts)
        vectors = self.vectors(parts)
        ends = [boxes.scaled(v, by) for v, by in zip(vectors, ranges, strict=True)]
        low, high = ends[0][0] + ends[1][0], ends[0][1] + ends[1][1]
        size = added([v.abs() * by[1] for v, by in zip(vectors, ranges, strict=True)])
        if base is not None:
            low, high, size = base + low, base + high, size + base.abs()
        # sin θ is at least about sqrt(u) where the line is not straight.
        lift = 2 / UNIT[compute] ** 0.5
        return boxes.widened(
            low, high, size, steps=24, compute=compute, store=spec.dtype, lift=lift
        )

    def _mixed(self, vectors: Sequence[Tensor], cosine: Tensor, name: str, variant: str) -> Tensor:
        t, (a, b) = self._mk_t(name), vectors
        cosine = cosine.to(a.device)
        if variant == "mk-0.1.4":
            theta = torch.acos(cosine)
            sine = torch.sin(theta)
            straight = sine.abs() < 1e-8
        else:
            straight = (1 - cosine.square()) <= 1e-8**2
            theta = torch.acos(torch.where(straight, 0, cosine))
            sine = torch.sin(theta)
        mixed = (torch.sin((1 - t) * theta) * a + torch.sin(t * theta) * b) / sine
        return torch.where(straight, (1 - t) * a + t * b, mixed)

    def _mk_t(self, name: str) -> float:
        texts = next(
            (o.weights for o in self.step.params.overrides if matches(name, o.tensors)),
            self.step.params.weights,
        )
        weights = [float(ratio(text)) for text in texts]
        return 0.5 if abs(sum(weights)) < 1e-6 else weights[1] / sum(weights)


def _share(texts: Sequence[str]) -> Fraction:
    first, second = map(ratio, texts)
    total = first + second
    return Fraction(1, 2) if abs(total) < Fraction(1, 10**6) else second / total


def _cosines(vectors: Sequence[Tensor]) -> Tensor:
    units = [v / torch.norm(v, dim=-1, keepdim=True).clamp(min=1e-7) for v in vectors]
    return torch.sum(units[0] * units[1], dim=-1, keepdim=True).clamp(-1, 1)


def nuslerp(step: NuSlerp, inputs: Mapping[str, Source]) -> NuSlerpMethod:
    """Bind nuslerp/v1."""
    return NuSlerpMethod(step, inputs)
