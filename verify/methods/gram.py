"""Merges that are one linear combination for a whole tensor, whose coefficients follow from angles.

parentage-1   all scalar products of the vectors (inputs, or task vectors where there is a base) in
              float64 by tree sums; the coefficients from those by the method's formula to 50 digits,
              rounded once to float64 (NaN where a product is not finite);
              y = RN_store(RN(c_1 x_1) + RN(c_2 x_2) + ...), in input order.
              By rows: products by tree sums along each row, the formula in float64, operation by
              operation (fixed_math.py), c_base = 1 - c_1 - c_2 ...
mk            each method's own operations; see its file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

import msgspec
import torch
from torch import Tensor

from parentage.manifest.merge_steps import MergeStep
from parentage.verify.decimals import digits
from parentage.verify.methods.base import Scalars
from parentage.verify.methods.merging import Merging, Span
from parentage.verify.rounding import dot64
from parentage.verify.sums import RunningSum, tree_sum

S = TypeVar("S", bound=MergeStep)
Gram = Sequence[Sequence[Decimal]]
RowGram = Sequence[Sequence[Tensor]]


class Facts(msgspec.Struct):
    """What is known of a whole tensor.

    Attributes:
        values: coefficients of the inputs (`parentage-1`), or an engine's scalars.
        whole: the merged tensor, for what can't be cut into pieces.
        columns: a coefficient of each input for each column (`parentage-1`).
    """

    values: list[float]
    whole: Tensor | None = None
    columns: list[Tensor] = msgspec.field(default_factory=list)


class Combination(Merging[S, Facts]):
    """Coefficients of the inputs under `parentage-1`; an engine's scalars under the others."""

    def split(self, parts: Sequence[Tensor]) -> tuple[Tensor | None, list[Tensor]]:
        """Return the base and the others."""
        at = self.base_index()
        base = None if at is None else parts[at]
        return base, [part for index, part in enumerate(parts) if index != at]

    def vectors(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return what angles are taken between."""
        base, others = self.split(parts)
        return others if base is None else [part - base for part in others]

    def coefficients(self, name: str, gram: Gram) -> list[Decimal]:
        """Return the coefficient of each vector, from their scalar products."""
        raise NotImplementedError

    def row_coefficients(self, name: str, gram: RowGram) -> list[Tensor]:
        """Return the coefficient of each vector for each row, from float64 scalar products."""
        raise NotImplementedError

    def engine(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Compute elements under an `mk` engine."""
        raise NotImplementedError

    def facts(self, name: str, variant: str) -> Facts:
        """Return the coefficients of all inputs, base included."""
        count = len(self.sources) - (self.base_index() is not None)
        pairs = [(i, j) for i in range(count) for j in range(i, count)]
        sums = {pair: RunningSum() for pair in pairs}
        for _, parts in self.pieces(name, "parentage-1"):
            vectors = self.vectors(parts)
            for (i, j), total in sums.items():
                total.add(vectors[i] * vectors[j])
        values = {pair: total.total() for pair, total in sums.items()}
        if not all(map(math.isfinite, values.values())):
            return Facts([math.nan] * len(self.sources))
        totals = {pair: Decimal(value) for pair, value in values.items()}
        gram = [[totals[min(i, j), max(i, j)] for j in range(count)] for i in range(count)]
        with digits():
            found = self.coefficients(name, gram)
            at = self.base_index()
            if at is not None:
                found = [*found[:at], 1 - sum(found, Decimal(0)), *found[at:]]
            return Facts([float(coefficient) for coefficient in found])

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Combine the inputs."""
        if variant != "parentage-1":
            return self.engine(span, parts, scalars, variant)
        if self.by_rows:
            return self._rows(span, parts)
        return dot64(parts, self.found(span.name, variant).values)

    def _rows(self, span: Span, parts: Sequence[Tensor]) -> Tensor:
        rows = [part.reshape(-1, span.columns) for part in parts]
        vectors = self.vectors(rows)
        gram = [[tree_sum(a * b) for b in vectors] for a in vectors]
        found = self.with_base(self.row_coefficients(span.name, gram))
        return added([row * of.unsqueeze(-1) for row, of in zip(rows, found, strict=True)]).reshape(
            -1
        )

    def with_base(self, found: list[Tensor]) -> list[Tensor]:
        """Put the base's coefficients in their place: 1 less the others, in order."""
        at = self.base_index()
        if at is None:
            return found
        rest = torch.ones_like(found[0])
        for coefficient in found:
            rest = rest - coefficient
        return [*found[:at], rest, *found[at:]]


def added(terms: Sequence[Tensor]) -> Tensor:
    """Return a sum in order."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def decimal(value: Fraction | float) -> Decimal:
    """Return a number to the digits of the context."""
    return (
        Decimal(value.numerator) / Decimal(value.denominator)
        if isinstance(value, Fraction)
        else Decimal(value)
    )


def lengths(gram: Gram) -> list[Decimal]:
    """Return the vectors' norms."""
    return [gram[i][i].sqrt() for i in range(len(gram))]


def product(left: Sequence[Decimal], gram: Gram, right: Sequence[Decimal]) -> Decimal:
    """Return the scalar product of two combinations of the vectors."""
    return sum(
        (a * gram[i][j] * b for i, a in enumerate(left) for j, b in enumerate(right)), Decimal(0)
    )


def norm(of: Sequence[Decimal], gram: Gram) -> Decimal:
    """Return the length of a combination; rounding may leave a square below zero."""
    return max(product(of, gram, of), Decimal(0)).sqrt()
