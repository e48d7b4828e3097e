"""multislerp/v1: barycentric interpolation on the sphere, in the tangent space at the weighted mean.

With unit vectors u_i = v_i / (|v_i| + eps): m = Σ w_i u_i, brought to length 1; T = Σ w_i (u_i - <u_i,m> m);
y = (m cos|T| + T sin|T| / |T|) Σ w_i |v_i|. Where |m| < eps, two inputs are mixed in a straight line.

parentage-1   the coefficients of that combination, from the scalar products (see gram.py).
mk            every operation in `compute` (merge_methods/multislerp.py). Scalars, in the order in which
              they are found: "norm.i", "mean", "dot.i", "tangent".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import MultiSlerp
from parentage.manifest.wire import matches, ratio
from parentage.verify.decimals import cos, sin
from parentage.verify.methods.base import Scalars
from parentage.verify.methods.gram import Combination, Facts, Gram, decimal, lengths, norm, product
from parentage.verify.methods.merging import Span, in_any_order, in_order
from parentage.verify.rounding import rounded
from parentage.verify.sums import RunningSum
from parentage.verify.values import Source


class MultiSlerpMethod(Combination[MultiSlerp]):
    """A bound multislerp/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }
    #: The tangent at the weighted mean is zero but for rounding, and near zero its length hardly matters.
    noise: ClassVar[Mapping[str, float]] = {"dot": 1e-5, "tangent": 1e-2}

    def __init__(self, step: MultiSlerp, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.variants = in_any_order(step.arithmetic.profile, len(step.params.weights))

    def weights(self, name: str) -> list[Fraction]:
        """Return the exact weights of a tensor, as declared."""
        texts = next(
            (o.weights for o in self.step.params.overrides if matches(name, o.tensors)),
            self.step.params.weights,
        )
        return [ratio(text) for text in texts]

    def coefficients(self, name: str, gram: Gram) -> list[Decimal]:
        """Follow the formula on coefficients instead of elements."""
        eps = decimal(ratio(self.step.params.eps))
        exact = self.weights(name)
        total = sum(exact, Fraction(0)) if self.step.params.normalize else Fraction(1)
        weights = [decimal(weight / total) for weight in exact]
        norms = lengths(gram)
        if len(weights) == 1:
            return [Decimal(1)]
        units = [1 / (length + eps) for length in norms]
        mean = [weight * unit for weight, unit in zip(weights, units, strict=True)]
        size = norm(mean, gram)
        if size < eps:
            return self._straight(weights)
        mean = [part / size for part in mean]
        axes = [
            [unit if i == j else Decimal(0) for j in range(len(units))]
            for i, unit in enumerate(units)
        ]
        drift = sum(
            (w * product(axis, gram, mean) for w, axis in zip(weights, axes, strict=True)),
            Decimal(0),
        )
        tangent = [w * u - drift * m for w, u, m in zip(weights, units, mean, strict=True)]
        angle = norm(tangent, gram) + eps
        scale = sum((w * n for w, n in zip(weights, norms, strict=True)), Decimal(0))
        return [
            (m * cos(angle) + t * (sin(angle) / angle)) * scale
            for m, t in zip(mean, tangent, strict=True)
        ]

    def _straight(self, weights: list[Decimal]) -> list[Decimal]:
        if len(weights) != 2:
            raise RecipeError("weighted mean of the inputs is zero", where=self.where)
        return weights

    def facts(self, name: str, variant: str) -> Facts:
        """Return coefficients, or the engine's scalars in order."""
        if variant == "parentage-1":
            return super().facts(name, variant)
        count = len(self.weights(name))
        if count == 1:
            return Facts([])
        compute = self.compute(name)
        values: list[float] = []

        def sums(of: int, pick: str) -> list[float]:
            totals = [RunningSum() for _ in range(of)]
            for span, parts in self.pieces(name, variant):
                found = self._reduced(span, parts, values, pick, variant)
                for total, terms in zip(totals, found, strict=True):
                    total.add(terms.to(torch.float64))
            return [total.total() for total in totals]

        values += [rounded(total**0.5, compute) for total in sums(count, "norms")]
        values += [rounded(total**0.5, compute) for total in sums(1, "mean")]
        if self._degenerate(values, count):
            return Facts(values)
        values += [rounded(total, compute) for total in sums(count, "dots")]
        values += [rounded(total**0.5, compute) for total in sums(1, "tangent")]
        return Facts(values)

    def _degenerate(self, values: list[float], count: int) -> bool:
        return values[count] < float(ratio(self.step.params.eps))

    def scalars(self, name: str, variant: str) -> Scalars:
        """Name the engine's scalars."""
        count = len(self.weights(name))
        if variant == "parentage-1" or count == 1:
            return {}
        return self._named(self.found(name, variant).values, count)

    def _named(self, values: Sequence[float], count: int) -> Scalars:
        names = [f"norm.{i}" for i in range(count)] + ["mean"]
        names += [f"dot.{i}" for i in range(count)] + ["tangent"]
        return dict(zip(names, values, strict=False))

    def replay(self, name: str, variant: str) -> Scalars:
        """Reduce as mergekit does."""
        count = len(self.weights(name))
        if variant == "parentage-1" or count == 1:
            return {}
        vectors = torch.stack(self.vectors(self.whole(name, variant)))
        known = torch.norm(vectors, dim=-1).tolist()
        unit, mean, weights = self._mean(name, vectors, known, variant)
        known.append(float(torch.norm(mean)))
        if not self._degenerate(known, count):
            mean = mean / torch.tensor(known[count], dtype=vectors.dtype)
            known += (unit * mean).sum(-1).tolist()
            known.append(float(torch.norm(self._tangent(unit, mean, weights, known))))
        return self._named(known, count)

    def _reduced(
        self, span: Span, parts: Sequence[Tensor], known: Sequence[float], pick: str, variant: str
    ) -> list[Tensor]:
        """Return the terms of the sums that come next, given the scalars known so far."""
        vectors = torch.stack(self.vectors(parts))
        if pick == "norms":
            return list(vectors.to(torch.float64).square())
        unit, mean, weights = self._mean(span.name, vectors, known, variant)
        if pick == "mean":
            return [mean.to(torch.float64).square()]
        mean = mean / torch.tensor(known[len(vectors)], dtype=vectors.dtype)
        if pick == "dots":
            return list(unit * mean)
        tangent = self._tangent(unit, mean, weights, known)
        return [tangent.to(torch.float64).square()]

    def _mean(
        self, name: str, vectors: Tensor, known: Sequence[float], variant: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        values = [float(weight) for weight in in_order(variant, self.weights(name), None)]
        weights = torch.tensor(values, dtype=vectors.dtype, device=vectors.device)
        if self.step.params.normalize:
            weights = weights / weights.sum()
        norms = torch.tensor(known[: len(values)], dtype=vectors.dtype, device=vectors.device)
        unit = vectors / (norms.view(-1, 1) + float(ratio(self.step.params.eps)))
        return unit, (unit * weights.view(-1, 1)).sum(0), weights

    def _tangent(
        self, unit: Tensor, mean: Tensor, weights: Tensor, known: Sequence[float]
    ) -> Tensor:
        count = len(weights)
        dots = torch.tensor(known[count + 1 : 2 * count + 1], dtype=unit.dtype, device=unit.device)
        return ((unit - dots.view(-1, 1) * mean) * weights.view(-1, 1)).sum(0)

    def engine(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Interpolate as mergekit does."""
        base, others = self.split(parts)
        if len(others) == 1:
            return others[0]
        vectors = torch.stack(self.vectors(parts))
        known, count = list(scalars.values()), len(vectors)
        unit, mean, weights = self._mean(span.name, vectors, known, variant)
        if self._degenerate(known, count):
            self._straight([Decimal(0)] * count)
            mixed = vectors[0] * weights[0] + vectors[1] * weights[1]
            return mixed if base is None else mixed + base
        scalar = [torch.tensor(value, dtype=vectors.dtype) for value in known]
        mean = mean / scalar[count]
        tangent = self._tangent(unit, mean, weights, known)
        length = scalar[-1] + float(ratio(self.step.params.eps))
        mixed = mean * torch.cos(length) + tangent * (torch.sin(length) / length)
        norms = torch.tensor(known[:count], dtype=vectors.dtype)
        mixed = mixed * (norms * weights.cpu()).sum()
        return mixed if base is None else mixed + base


def multislerp(step: MultiSlerp, inputs: Mapping[str, Source]) -> MultiSlerpMethod:
    """Bind multislerp/v1."""
    return MultiSlerpMethod(step, inputs)
