"""nearswap/v1: w = t / max(|a - b|, 1e-6), held to [0, 1]; y = w b + (1 - w) a.

t / x is RN(t RN(1 / x)), as torch divides a number by a tensor.

parentage-1   every operation in float64, one rounding at the end.
mk            every operation in `compute` (merge_methods/nearswap.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from parentage.manifest.merge_steps import NearSwap
from parentage.manifest.wire import matches, ratio
from parentage.verify.methods.base import Scalars
from parentage.verify.methods.merging import Merging, Span
from parentage.verify.values import Source


class NearSwapMethod(Merging[NearSwap, None]):
    """A bound nearswap/v1: each element by itself."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }

    def __init__(self, step: NearSwap, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.deterministic = True

    def t(self, name: str) -> float:
        """Return t of a tensor, rounded to float64."""
        overrides = self.step.params.overrides
        text = next((o.t for o in overrides if matches(name, o.tensors)), self.step.params.t)
        return float(ratio(text))

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Swap what is near."""
        a, b = parts
        distance = (a - b).abs().clamp(min=1e-6)
        weight = distance.reciprocal().mul(self.t(span.name)).clamp(min=0, max=1)
        return weight * b + (1 - weight) * a


def nearswap(step: NearSwap, inputs: Mapping[str, Source]) -> NearSwapMethod:
    """Bind nearswap/v1."""
    return NearSwapMethod(step, inputs)
