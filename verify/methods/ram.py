"""ram/v1: task vectors that touch an element alone are kept, those that share it averaged (arXiv 2601.13572).

An input takes part in an element where |x - b| > epsilon. The "plus" variant multiplies elements that
are an input's own by 1 + r min(max(rho, 0), alpha), rho = shared / max(own, epsilon) elements of a tensor.

parentage-1   in float64, inputs in order, one rounding at the end.
mk            every operation in `compute`; the plus variant's factor is fp32, which widens the result
              (merge_methods/ram.py, 0.1.5 only). Counts are exact, so nothing is left to a witness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from parentage.manifest.merge_steps import Ram
from parentage.manifest.wire import ratio
from parentage.verify.methods.base import Scalars
from parentage.verify.methods.merging import Merging, Span
from parentage.verify.values import Source

Counts = list[tuple[int, int]]


class RamMethod(Merging[Ram, Counts]):
    """A bound ram/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5")
    }

    def __init__(self, step: Ram, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.deterministic = True

    @property
    def _plus(self) -> bool:
        return self.step.params.r is not None

    def computed_store(self, compute: str) -> str:
        """Return fp32 for the plus variant: its factors widen what is narrower."""
        return "F32" if self._plus and compute in {"BF16", "F16"} else compute

    def _vectors(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        at = self.step.inputs.index(self.step.params.base)
        base = parts[at]
        vectors = torch.stack([p - base for i, p in enumerate(parts) if i != at])
        return base, vectors, vectors.abs() > float(ratio(self.step.params.epsilon))

    def facts(self, name: str, variant: str) -> Counts:
        """Count, for each input, the elements that it shares and those that are its own."""
        shared = own = torch.zeros(len(self.sources) - 1, dtype=torch.int64)
        for _, parts in self.pieces(name, variant):
            _, _, active = self._vectors(parts)
            count = active.sum(dim=0)
            shared = shared + (active & (count > 1)).sum(dim=1)
            own = own + (active & (count == 1)).sum(dim=1)
        return list(zip(shared.tolist(), own.tolist(), strict=True))

    def _factors(self, name: str, variant: str) -> Tensor:
        epsilon = float(ratio(self.step.params.epsilon))
        r, alpha = (
            float(ratio(self.step.params.r or "0")),
            float(ratio(self.step.params.alpha or "0")),
        )
        counts = torch.tensor(self.found(name, variant))
        if variant == "parentage-1":
            counts = counts.to(torch.float64)
        rho = counts[:, 0] / counts[:, 1].clamp(min=epsilon)
        return 1 + r * rho.clamp(min=0, max=alpha)

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Add what each input brings."""
        base, vectors, active = self._vectors(parts)
        count = active.sum(dim=0, keepdim=True)
        mine = vectors * active
        alone = mine * (count == 1)
        if self._plus:
            alone = alone * self._factors(span.name, variant).to(base.device).unsqueeze(-1)
        terms = alone + mine * (count > 1) / count.clamp(min=1)
        if variant != "parentage-1":
            return base + terms.sum(dim=0)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return base + total


def ram(step: Ram, inputs: Mapping[str, Source]) -> RamMethod:
    """Bind ram/v1."""
    return RamMethod(step, inputs)
