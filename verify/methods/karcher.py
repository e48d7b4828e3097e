"""karcher/v1: the Riemannian mean of the inputs' directions, at the mean of their lengths.

parentage-1   the iteration on coefficients instead of elements: every point of it is a combination of the
              inputs, so scalar products (see gram.py) are all it needs.
mk            the operations of merge_methods/karcher.py on the whole tensor, in memory: each iteration
              branches on norms and dot products of rounded vectors, which no witness can stand for. So it
              is done as torch does it on one thread, or on more ("/2-threads", ...), whose sums have
              other bits; what none of these gives stays unproven.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import ClassVar, Final

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import Karcher
from parentage.manifest.wire import ratio
from parentage.verify.decimals import acos, cos, sin
from parentage.verify.methods.base import Scalars
from parentage.verify.methods.gram import Combination, Facts, Gram, decimal, lengths, norm, product
from parentage.verify.methods.merging import Span
from parentage.verify.values import Source

_THREADS: Final = (2, 4, 8, 16)


class KarcherMethod(Combination[Karcher]):
    """A bound karcher/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {"parentage-1": ("parentage-1",)} | {
        name: (name, *(f"{name}/{threads}-threads" for threads in _THREADS))
        for name in ("mk-0.1.5", "mk-0.1.4")
    }

    def coefficients(self, name: str, gram: Gram) -> list[Decimal]:
        """Iterate on coefficients."""
        tol = decimal(ratio(self.step.params.tol))
        norms = lengths(gram)
        share = Decimal(1) / len(norms)
        valid = [i for i, length in enumerate(norms) if length > tol]
        if len(norms) == 1:
            return [Decimal(1)]
        if not valid:
            return [Decimal(0)] * len(norms)
        units = [[1 / norms[i] if i == j else Decimal(0) for j in range(len(norms))] for i in valid]
        mean = [sum(column, Decimal(0)) / len(valid) for column in zip(*units, strict=True)]
        size = norm(mean, gram)
        mean = units[0] if size < tol else [part / size for part in mean]
        for _ in range(self.step.params.max_iter):
            step = _tangent(mean, units, gram, tol, self.where)
            size = norm(step, gram)
            if size < tol:
                break
            mean = [cos(size) * m + sin(size) / size * s for m, s in zip(mean, step, strict=True)]
            length = norm(mean, gram)
            mean = [part / length for part in mean] if length > tol else mean
        scale = sum((share * length for length in norms), Decimal(0))
        return [scale * part for part in mean]

    def facts(self, name: str, variant: str) -> Facts:
        """Return coefficients, or the whole merged tensor."""
        if variant == "parentage-1":
            return super().facts(name, variant)
        engine, _, threads = variant.partition("/")
        before = torch.get_num_threads()
        torch.set_num_threads(int(threads.partition("-")[0] or 1))
        try:
            return Facts([], self._mean(self.whole(name, engine), engine))
        finally:
            torch.set_num_threads(before)

    def engine(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Return the elements of the tensor that was merged whole."""
        whole = self.found(span.name, variant).whole
        if whole is None:
            return parts[0]
        return whole[span.start : span.stop].to(parts[0].device)

    def _mean(self, parts: list[Tensor], variant: str) -> Tensor:
        """Mirror karcher_merge_tensors, alphas all equal."""
        tol = float(ratio(self.step.params.tol))
        wide = torch.float64 if parts[0].dtype == torch.float64 else torch.float32
        norms = [torch.linalg.vector_norm(part.to(wide)) for part in parts]
        units = [
            torch.zeros_like(part) if float(size) == 0 else (part / size).to(part.dtype)
            for part, size in zip(parts, norms, strict=True)
        ]
        units = [unit for unit, size in zip(units, norms, strict=True) if float(size) > tol]
        alphas = [1.0 / len(parts)] * len(parts)
        if not units:
            return torch.zeros_like(parts[0])
        total = sum(alphas[: len(units)])
        shares = [alpha / total for alpha in alphas[: len(units)]]
        mean = torch.zeros_like(units[0])
        for share, unit in zip(shares, units, strict=True):
            mean += share * unit
        size = torch.linalg.vector_norm(mean.to(wide))
        old = variant == "mk-0.1.4"
        if float(size) < tol:
            mean = units[0].clone()
        else:
            mean = (mean / (float(size) if old else size)).to(mean.dtype)
        mean = self._iterate(mean, units, shares, wide, tol)
        if old:
            scale: float | Tensor = 0.0
            for alpha, length in zip(alphas, norms, strict=True):
                scale += alpha * float(length)
        else:
            scale = sum(alpha * length for alpha, length in zip(alphas, norms, strict=True))
        return scale * mean

    def _iterate(
        self, mean: Tensor, units: list[Tensor], shares: list[float], wide: torch.dtype, tol: float
    ) -> Tensor:
        for _ in range(self.step.params.max_iter):
            step = torch.zeros_like(mean)
            for share, unit in zip(shares, units, strict=True):
                dot = torch.clamp(torch.dot(mean, unit), -1.0, 1.0)
                theta = torch.arccos(dot)
                if float(theta) >= tol:
                    step += share * (theta / torch.sin(theta)) * (unit - dot * mean)
            size = torch.linalg.vector_norm(step.to(wide))
            if float(size) < tol:
                break
            mean = (torch.cos(size) * mean + torch.sin(size) * (step / size)).to(mean.dtype)
            length = torch.linalg.vector_norm(mean.to(wide))
            if float(length) > tol:
                mean = (mean / length).to(mean.dtype)
        return mean


def _tangent(
    mean: list[Decimal], units: list[list[Decimal]], gram: Gram, tol: Decimal, where: str
) -> list[Decimal]:
    step = [Decimal(0)] * len(mean)
    for unit in units:
        dot = max(min(product(mean, gram, unit), Decimal(1)), Decimal(-1))
        if dot <= -1:
            raise RecipeError("karcher mean of opposite inputs is not defined", where=where)
        theta = acos(dot)
        if theta < tol:
            continue
        pull = theta / sin(theta) / len(units)
        step = [s + pull * (u - dot * m) for s, u, m in zip(step, unit, mean, strict=True)]
    return step


def karcher(step: Karcher, inputs: Mapping[str, Source]) -> KarcherMethod:
    """Bind karcher/v1."""
    return KarcherMethod(step, inputs)
