"""model_stock/v1: between base and average, by the mean cosine c of the task vectors (arXiv 2403.19522).

t = N c / (1 + (N - 1) c), 0 where the divisor is below 1e-6; y = t mean(x) + (1 - t) b.

parentage-1   c from scalar products (see gram.py), each divisor at least 1e-6; by rows (`filter_wise`)
              likewise, for each row by itself.
mk            every operation in `compute` (merge_methods/model_stock.py). Scalar: "t", per tensor; by
              rows (`filter_wise`) none, as rows do not depend on threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import ModelStock
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify import fixed_math
from parentage.verify.methods import boxes
from parentage.verify.methods.base import Interval, Scalars
from parentage.verify.methods.gram import Combination, Facts, Gram, RowGram, added, lengths
from parentage.verify.methods.merging import Span
from parentage.verify.rounding import DTYPES, UNIT, rounded
from parentage.verify.sums import RunningSum
from parentage.verify.values import Scratch, Source

_SMALL = 1e-6


class ModelStockMethod(Combination[ModelStock]):
    """A bound model_stock/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }

    def __init__(self, step: ModelStock, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.by_rows = step.params.filter_wise

    def coefficients(self, name: str, gram: Gram) -> list[Decimal]:
        """Return t / N for each task vector."""
        norms, count = lengths(gram), len(gram)
        small = Decimal("0.000001")
        cosines = [
            max(min(gram[i][j] / max(norms[i] * norms[j], small), Decimal(1)), Decimal(-1))
            for i, j in combinations(range(count), 2)
        ]
        cosine = sum(cosines, Decimal(0)) / len(cosines)
        divisor = 1 + (count - 1) * cosine
        t = Decimal(0) if abs(divisor) < small else count * cosine / divisor
        return [t / count] * count

    def row_coefficients(self, name: str, gram: RowGram) -> list[Tensor]:
        """Return the same in float64, row by row."""
        count = len(gram)
        norms = [fixed_math.sqrt(gram[i][i]) for i in range(count)]
        cosines = [
            (gram[i][j] / (norms[i] * norms[j]).clamp(min=_SMALL)).clamp(min=-1.0, max=1.0)
            for i, j in combinations(range(count), 2)
        ]
        # Numbers that divide are tensors: a device may multiply by 1 / scalar instead.
        pairs, many = (torch.full_like(norms[0], float(n)) for n in (len(cosines), count))
        cosine = added(cosines) / pairs
        divisor = 1.0 + (many - 1.0) * cosine
        t = torch.where(divisor.abs() < _SMALL, 0.0, many * cosine / divisor)
        return [t / many] * count

    def facts(self, name: str, variant: str) -> Facts:
        """Return coefficients, or the engine's t."""
        if variant == "parentage-1":
            return super().facts(name, variant)
        if self.by_rows:
            return Facts([])
        compute = self.compute(name)
        count = len(self.sources) - 1
        squares = [RunningSum() for _ in range(count)]
        dots = [RunningSum() for _ in combinations(range(count), 2)]
        for _, parts in self.pieces(name, variant):
            offsets = self.vectors(parts)
            for total, offset in zip(squares, offsets, strict=True):
                total.add(offset.to(torch.float64).square())
            for total, (a, b) in zip(dots, combinations(offsets, 2), strict=True):
                total.add((a * b).to(torch.float64))
        norms = [
            torch.tensor(rounded(s.total() ** 0.5, compute), dtype=DTYPES[compute]) for s in squares
        ]
        products = [torch.tensor(rounded(d.total(), compute), dtype=DTYPES[compute]) for d in dots]
        t = _t(norms, products, count, variant)
        return Facts([float(t)])

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return t of whole tensors."""
        if variant == "parentage-1" or self.by_rows:
            return {}
        return {"t": self.found(name, variant).values[0]}

    def replay(self, name: str, variant: str) -> Scalars:
        """Reduce as mergekit does."""
        if variant == "parentage-1" or self.by_rows:
            return {}
        offsets = self.vectors(self.whole(name, variant))
        norms = [torch.norm(offset, dim=-1) for offset in offsets]
        products = [(a * b).sum(dim=-1) for a, b in combinations(offsets, 2)]
        return {"t": float(_t(norms, products, len(offsets), variant))}

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return what any cosines within their box can give: enough to refute."""
        spec, compute, count = self.specs[name], self.compute(name), len(self.sources) - 1
        if self.deterministic or self.by_rows or spec.dtype not in FLOAT_DTYPES:
            return None
        t, unit = self.found(name, self.bare(variant)).values[0], 16 * UNIT[compute]
        if not math.isfinite(t) or count - (count - 1) * t * (1 + unit) < 0.1:
            return None
        found = [x / (count - (count - 1) * x) for x in (t * (1 - unit), t * (1 + unit))]
        low = boxes.around(min(found), compute, spec.elements)[0]
        high = boxes.around(max(found), compute, spec.elements)[1]
        if 1 + (count - 1) * low < 0.5:
            return None
        ends = [count * c / (1 + (count - 1) * c) for c in (low, high)]
        parts = self.doubles(name, start, stop, variant, scratch)
        base, others = self.split(parts)
        if base is None:
            return None
        average = added(others) * (1 / count)
        mixed = [t * average + (1 - t) * base for t in ends]
        size = added([part.abs() for part in others]) * (1 / count) + base.abs()
        size = size * (1 + 2 * max(map(abs, ends)))
        return boxes.widened(
            mixed[0].minimum(mixed[1]),
            mixed[0].maximum(mixed[1]),
            size,
            steps=count + 12,
            compute=compute,
            store=spec.dtype,
        )

    def engine(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Interpolate as mergekit does."""
        base, others = self.split(parts)
        if base is None:
            raise RecipeError("model_stock without a base", where=self.where)
        if self.by_rows:
            base, others = (
                base.reshape(-1, span.columns),
                [part.reshape(-1, span.columns) for part in others],
            )
            offsets = [part - base for part in others]
            norms = [torch.norm(offset, dim=-1) for offset in offsets]
            products = [(a * b).sum(dim=-1) for a, b in combinations(offsets, 2)]
            t = _t(norms, products, len(others), variant)
        else:
            t = torch.tensor([scalars["t"]], dtype=base.dtype, device=base.device)
        average = others[0]
        for part in others[1:]:
            average = average + part
        average = average / len(others)
        return t * average + (1 - t) * base


def _t(norms: list[Tensor], products: list[Tensor], count: int, variant: str) -> Tensor:
    cosines = [
        (product / (a * b).clamp(min=_SMALL)).clamp(-1, 1)
        for product, (a, b) in zip(products, combinations(norms, 2), strict=True)
    ]
    cosine = torch.stack(cosines).mean(dim=0).unsqueeze(-1)
    divisor = 1 + (count - 1) * cosine
    if variant == "mk-0.1.4":
        return (count * cosine) / divisor
    singular = divisor.abs() < _SMALL
    safe = torch.where(singular, torch.ones_like(divisor), divisor)
    return torch.where(singular, torch.zeros_like(cosine), (count * cosine) / safe)


def model_stock(step: ModelStock, inputs: Mapping[str, Source]) -> ModelStockMethod:
    """Bind model_stock/v1."""
    return ModelStockMethod(step, inputs)
