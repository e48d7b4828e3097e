"""arcee_fusion/v1: the second input's elements where their importance passes a threshold.

Importance is |x - b| times the divergence of the row's softmax: Σ p ln(p / q), p and q the softmaxes of
x and b plus 1e-8. The threshold is median + 1.5 (q3 - q1) of the tensor's importances.

parentage-1   every operation in float64: m the row's largest, e = exp(x - m), p = e / Σe + 1e-8 (tree sums
              along the row), Σ p ln(p / q) likewise and at least 0; exp and ln of fixed_math.py. Quartiles
              of the whole tensor: of n values in ascending order, those at floor((n - 1) / 4),
              floor((n - 1) / 2), floor(3 (n - 1) / 4), counted from 0. y = RN_store of one input's value.
mk            every operation in `compute`; the mask is fp32, which widens the result (merge_methods/
              arcee_fusion.py). Above 10^6 elements mergekit takes the quartiles of a random sample of
              10^6, so that the threshold is a witness ("threshold"), near that of the whole tensor.
              exp and ln are vectorised differently on other kinds of CPU: elements at the threshold
              may then fall on its other side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec
import torch
from torch import Tensor
from torch.nn.functional import softmax

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import ArceeFusion
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify import fixed_math
from parentage.verify.methods.base import Interval, Scalars
from parentage.verify.methods.merging import Merging, Span
from parentage.verify.rounding import DTYPES, bits
from parentage.verify.selection import cuts, from_ordered, keys_of, ordered
from parentage.verify.sums import tree_sum
from parentage.verify.values import Scratch, Source

_EPSILON = 1e-8


class Facts(msgspec.Struct):
    """What is known of a whole tensor.

    Attributes:
        threshold: the least importance that counts.
        divergence: of each row (`parentage-1`).
    """

    threshold: float
    divergence: Tensor | None = None


class ArceeFusionMethod(Merging[ArceeFusion, Facts]):
    """A bound arcee_fusion/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }
    by_rows = True

    def __init__(self, step: ArceeFusion, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        if not self.deterministic and any(
            self.compute(name) == "F64" for name, s in self.specs.items() if s.dtype in FLOAT_DTYPES
        ):
            raise RecipeError("arcee_fusion in float64 is not supported", where=self.where)

    def computed_store(self, compute: str) -> str:
        """Return fp32 at least: the mask is fp32."""
        return "F32" if compute in {"BF16", "F16"} else compute

    def _importance(self, span: Span, parts: Sequence[Tensor]) -> Tensor:
        base, other = (part.reshape(-1, span.columns) for part in parts)
        p = softmax(other, dim=-1) + _EPSILON
        q = softmax(base, dim=-1) + _EPSILON
        divergence = torch.sum(p * torch.log(p / q), dim=-1, keepdim=True)
        return ((other - base).abs() * divergence).reshape(-1)

    def facts(self, name: str, variant: str) -> Facts:
        """Return the threshold by the quartiles of the whole tensor."""
        if variant == "parentage-1":
            return self._exact_facts(name)
        n = self.specs[name].elements
        dtype = DTYPES[self.compute(name)]
        at = [int(torch.tensor(q) * (n - 1)) for q in (0.25, 0.5, 0.75)]

        def keys() -> Iterator[list[Tensor]]:
            for span, parts in self.pieces(name, variant):
                yield [ordered(self._importance(span, parts))]

        found = cuts(keys, 8 * dtype.itemsize, [[n - place for place in at]])[0]
        first, median, third = (from_ordered(cut.key, dtype) for cut in found)
        return Facts(float(median + 1.5 * (third - first)))

    def _exact_facts(self, name: str) -> Facts:
        n = self.specs[name].elements
        rows: list[Tensor] = []
        for span, parts in self.pieces(name, "parentage-1"):
            rows.append(_divergence(*(part.reshape(-1, span.columns) for part in parts)))
        divergence = torch.cat(rows)

        def keys() -> Iterator[list[Tensor]]:
            for span, parts in self.pieces(name, "parentage-1"):
                yield [keys_of(_exact_importance(span, parts, divergence))]

        ranks = [n - (n - 1) * quarter // 4 for quarter in (1, 2, 3)]
        found = cuts(keys, 63, [ranks])[0]
        quartiles = torch.tensor([cut.key for cut in found]).view(torch.float64)
        first, median, third = quartiles.tolist()
        return Facts(median + 1.5 * (third - first), divergence)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return the two values that an element may have, whatever the threshold."""
        if self.deterministic or self.specs[name].dtype not in FLOAT_DTYPES:
            return None
        base, other = self.parts(self.span(name, start, stop), self.bare(variant), scratch)
        store = DTYPES[self.specs[name].dtype]
        kept, taken = base.to(store), (base + (other - base).to(torch.float32)).to(store)
        cut = slice(start - self.span(name, start, stop).start, None)
        kept, taken = kept[cut][: stop - start], taken[cut][: stop - start]
        return kept.minimum(taken), kept.maximum(taken)

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the threshold."""
        if variant == "parentage-1":
            return {}
        return {"threshold": self.found(name, variant).threshold}

    def suggest(
        self, name: str, variant: str, release: Source, places: Sequence[int] = ()
    ) -> Scalars:
        """Return the least importance of the elements that are not the base's."""
        dtype, store = DTYPES[self.compute(name)], DTYPES[self.specs[name].dtype]
        scratch, least = Scratch(torch.device("cpu")), torch.tensor(torch.inf, dtype=dtype)
        for span, parts in self.pieces(name, variant):
            scratch.reset()
            found = release.read(name, span.start, span.stop, scratch)
            base = (parts[0] + (parts[1] - parts[0]) * 0.0).to(store)
            taken = self._importance(span, parts)[bits(found) != bits(base)]
            if taken.numel():
                least = torch.minimum(least, taken.min())
        return {"threshold": float(least)} if bool(least.isfinite()) else {}

    def scalar_dtype(self, name: str) -> str:
        """Return the dtype that importances are held in."""
        return self.compute(name)

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Take what passes the threshold."""
        base, other = parts
        if variant == "parentage-1":
            facts = self.found(span.name, variant)
            if facts.divergence is None:
                return base
            taken = _exact_importance(span, parts, facts.divergence) >= facts.threshold
            return torch.where(taken, other, base)
        threshold = torch.tensor(scalars["threshold"], dtype=base.dtype)
        mask = (self._importance(span, parts) >= threshold).float()
        return base + (other - base) * mask


def _divergence(base: Tensor, other: Tensor) -> Tensor:
    p, q = _shares(other), _shares(base)
    return tree_sum(p * fixed_math.log(p / q)).clamp(min=0.0)


def _shares(rows: Tensor) -> Tensor:
    powers = fixed_math.exp(rows - rows.amax(dim=-1, keepdim=True))
    return powers / tree_sum(powers).unsqueeze(-1) + _EPSILON


def _exact_importance(span: Span, parts: Sequence[Tensor], divergence: Tensor) -> Tensor:
    base, other = parts
    row = torch.arange(span.start, span.stop) // span.columns
    return (other - base).abs() * divergence[row].to(base.device)


def arcee_fusion(step: ArceeFusion, inputs: Mapping[str, Source]) -> ArceeFusionMethod:
    """Bind arcee_fusion/v1."""
    return ArceeFusionMethod(step, inputs)
