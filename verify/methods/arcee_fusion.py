"""arcee_fusion/v1: the second input's elements where their importance passes a threshold.

Importance is |x - b| times the divergence of the row's softmax: Σ p ln(p / q), p and q the softmaxes of
x and b plus 1e-8. The threshold is median + 1.5 (q3 - q1) of the tensor's importances.

mk            every operation in `compute`; the mask is fp32, which widens the result (merge_methods/
              arcee_fusion.py). Above 10^6 elements mergekit takes the quartiles of a random sample of
              10^6, so that the threshold is a witness ("threshold"), near that of the whole tensor.
              exp and ln are vectorised differently on other kinds of CPU: elements at the threshold
              may then fall on its other side.

There is no `parentage-1`: a sum of exponentials has no bits that all devices share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softmax

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import ArceeFusion
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify.methods.base import Scalars
from parentage.verify.methods.merging import Merging, Span
from parentage.verify.rounding import DTYPES, bits
from parentage.verify.selection import cuts, from_ordered, ordered
from parentage.verify.sources import Scratch, Source

_EPSILON = 1e-8


class ArceeFusionMethod(Merging[ArceeFusion, float]):
    """A bound arcee_fusion/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("mk-0.1.5", "mk-0.1.4")
    }
    by_rows = True

    def __init__(self, step: ArceeFusion, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        if any(
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

    def facts(self, name: str, variant: str) -> float:
        """Return the threshold by the quartiles of the whole tensor."""
        n = self.specs[name].elements
        dtype = DTYPES[self.compute(name)]
        at = [int(torch.tensor(q) * (n - 1)) for q in (0.25, 0.5, 0.75)]

        def keys() -> Iterator[list[Tensor]]:
            for span, parts in self.pieces(name, variant):
                yield [ordered(self._importance(span, parts))]

        found = cuts(keys, 8 * dtype.itemsize, [[n - place for place in at]])[0]
        first, median, third = (from_ordered(cut.key, dtype) for cut in found)
        return float(median + 1.5 * (third - first))

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the threshold."""
        return {"threshold": self.found(name, variant)}

    def suggest(self, name: str, variant: str, release: Source) -> Scalars:
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
        threshold = torch.tensor(scalars["threshold"], dtype=base.dtype)
        mask = (self._importance(span, parts) >= threshold).float()
        return base + (other - base) * mask


def arcee_fusion(step: ArceeFusion, inputs: Mapping[str, Source]) -> ArceeFusionMethod:
    """Bind arcee_fusion/v1."""
    return ArceeFusionMethod(step, inputs)
