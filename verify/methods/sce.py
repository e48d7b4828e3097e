"""sce/v1: select elements of high variance, calculate weights by energy, erase minority signs.

Of the elements whose variance over the task vectors d_i is not 0, int(share of them) with the largest
stay in all d_i. w_i is the mean square of d_i, as a share of all (equal where they sum to less than
1e-6). An element counts where its sign is that of Σ d_i; y = b + Σ w_i d_i / max(Σ w_i, 1e-6) over those
that count (arXiv 2408.07990).

parentage-1   every operation in float64, inputs in order; tree sums; equal variances ranked by index.
mk            every operation in `compute` (merge_methods/sce.py). Scalars: "weight.i". "/topk" lets
              torch.topk choose among equal variances, as mergekit does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec
import torch
from torch import Tensor

from parentage.manifest.merge_steps import Sce
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import ratio
from parentage.verify.masking import packed, unpacked
from parentage.verify.methods import boxes
from parentage.verify.methods.base import Interval, Scalars
from parentage.verify.methods.merging import Merging, Span, in_any_order
from parentage.verify.rounding import DTYPES, rounded
from parentage.verify.selection import Cut, cuts, keys_of
from parentage.verify.sums import RunningSum
from parentage.verify.values import Scratch, Source

_SMALL = 1e-6


class Facts(msgspec.Struct):
    """What is known of a tensor.

    Attributes:
        cut: where the selected elements end; None: all are.
        chosen: the selection as bits, where equal variances had to be told apart.
        weights: of the task vectors.
    """

    cut: Cut | None
    chosen: Tensor | None
    weights: list[float]


class SceMethod(Merging[Sce, Facts]):
    """A bound sce/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }

    def __init__(self, step: Sce, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.base_at = step.inputs.index(step.params.base)
        self._share = ratio(step.params.select_topk)
        self.variants = in_any_order(step.arithmetic.profile, len(inputs) - 1)
        if self._share < 1 and not self.deterministic:
            self.variants = tuple(f"{name}/topk" for name in self.variants)

    @property
    def exact_is_costly(self) -> bool:
        """Say whether rung A needs whole tensors in memory, and rung C does not."""
        return self._share < 1 and not self.deterministic

    def vectors(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the task vectors as rows."""
        base = parts[self.base_at]
        return torch.stack([p - base for i, p in enumerate(parts) if i != self.base_at])

    def facts(self, name: str, variant: str) -> Facts:
        """Find the selection, then the weights of what it leaves."""
        cut, chosen = self._select(name, variant) if self._share < 1 else (None, None)
        energy = [RunningSum() for _ in range(len(self.sources) - 1)]
        facts = Facts(cut, chosen, [])
        for span, parts in self.pieces(name, variant):
            vectors = self._selected(facts, span, self.vectors(parts), variant)
            for total, row in zip(energy, vectors, strict=True):
                total.add(row.square().to(torch.float64))
        n = max(self.specs[name].elements, 1)
        facts.weights = self._weights([total.total() / n for total in energy], name, variant)
        return facts

    def _weights(self, means: list[float], name: str, variant: str) -> list[float]:
        dtype = "F64" if variant == "parentage-1" else self.compute(name)
        means = [rounded(mean, dtype) for mean in means]
        total = 0.0
        for mean in means:
            total += mean
        total = rounded(total, dtype)
        if abs(total) < _SMALL:
            return [rounded(1.0 / len(means), dtype)] * len(means)
        return [rounded(mean / total, dtype) for mean in means]

    def _variance(self, vectors: Tensor, variant: str) -> Tensor:
        if variant != "parentage-1":
            return torch.var(vectors, dim=0, unbiased=False).abs()
        count = torch.full((1,), float(len(vectors)), dtype=vectors.dtype, device=vectors.device)
        mean = _added(list(vectors)) / count
        return _added([(row - mean) * (row - mean) for row in vectors]) / count

    def _select(self, name: str, variant: str) -> tuple[Cut, Tensor | None]:
        nonzero = 0
        for _, parts in self.pieces(name, variant):
            nonzero += int(torch.count_nonzero(self._variance(self.vectors(parts), variant)))
        if variant == "parentage-1":
            wanted = int(nonzero * self._share)
        else:
            wanted = int(torch.tensor(nonzero) * float(self._share))

        def keys() -> Iterator[list[Tensor]]:
            for _, parts in self.pieces(name, variant):
                yield [keys_of(self._variance(self.vectors(parts), variant))]

        dtype = DTYPES["F64" if variant == "parentage-1" else self.compute(name)]
        cut = cuts(keys, 8 * dtype.itemsize - 1, [[wanted]])[0][0]
        if variant.endswith("/topk"):
            variances = [
                self._variance(self.vectors(p), variant) for _, p in self.pieces(name, variant)
            ]
            mask = torch.zeros(self.specs[name].elements, dtype=torch.uint8)
            if wanted:
                mask[torch.topk(torch.cat(variances), k=wanted, largest=True).indices] = 1
            return cut, packed(mask)
        if variant == "parentage-1" and cut.quota != cut.ties:
            return cut, self._in_order(cut, keys())
        return cut, None

    def _in_order(self, cut: Cut, keys: Iterator[list[Tensor]]) -> Tensor:
        left, rows = cut.quota, []
        for (row,) in keys:
            tied = row == cut.key
            place = tied.cumsum(0)
            rows.append(((row > cut.key) | (tied & (place <= left))).to(torch.uint8))
            left -= min(left, int(place[-1]))
        return packed(torch.cat(rows))

    def _selected(self, facts: Facts, span: Span, vectors: Tensor, variant: str) -> Tensor:
        if facts.cut is None:
            return vectors
        if facts.chosen is not None:
            stay = unpacked(facts.chosen, span.start, span.stop).to(vectors.device)
        else:
            stay = keys_of(self._variance(vectors, variant)) >= facts.cut.key
            stay &= facts.cut.rank > 0
        return vectors * stay.to(vectors.dtype)

    def replay(self, name: str, variant: str) -> Scalars:
        """Reduce as mergekit does."""
        facts, n = self.found(name, variant), self.specs[name].elements
        span = Span(name, 0, n, self.specs[name].shape)
        vectors = self.vectors(self.whole(name, variant))
        means = self._selected(facts, span, vectors, variant).square().mean(dim=1)
        total = float(means.sum())
        weights = means / total if abs(total) >= _SMALL else torch.ones_like(means) / len(means)
        return {f"weight.{i}": w for i, w in enumerate(weights.tolist())}

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the weights."""
        if variant == "parentage-1":
            return {}
        return {f"weight.{i}": w for i, w in enumerate(self.found(name, variant).weights)}

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Select, elect and add."""
        facts, base = self.found(span.name, variant), parts[self.base_at]
        vectors = self._selected(facts, span, self.vectors(parts), variant)
        if variant == "parentage-1":
            return base + _elected(list(vectors), facts.weights)
        return base + self.mixed(vectors, list(scalars.values()))

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return the hull of base and task vectors: any selection and any weights stay inside."""
        spec, compute = self.specs[name], self.compute(name)
        if self.deterministic or spec.dtype not in FLOAT_DTYPES:
            return None
        parts = self.doubles(name, start, stop, variant, scratch)
        base, vectors = parts[self.base_at], self.vectors(parts)
        low, high = vectors.amin(dim=0).clamp(max=0.0), vectors.amax(dim=0).clamp(min=0.0)
        weights = [w for w in self.found(name, variant).weights if w > 0]
        lift = 1 / max(min(weights, default=0.0) / 2, _SMALL)
        return boxes.widened(
            base + low,
            base + high,
            base.abs() + vectors.abs().amax(dim=0),
            steps=2 * len(parts) + 12,
            compute=compute,
            store=spec.dtype,
            lift=lift,
        )

    def mixed(self, vectors: Tensor, weights: Sequence[float]) -> Tensor:
        """Merge selected task vectors under an `mk` engine."""
        sign = torch.where(vectors.sum(dim=0) >= 0, 1.0, -1.0).to(vectors.dtype)
        agrees = vectors.sign() == sign
        column = torch.tensor(weights, dtype=vectors.dtype, device=vectors.device).unsqueeze(-1)
        erased = column * agrees
        return (vectors * erased).sum(dim=0) / erased.sum(dim=0).clamp(min=_SMALL)


def _elected(vectors: list[Tensor], weights: Sequence[float]) -> Tensor:
    positive = _added(vectors) >= 0
    agrees = [(v > 0) & positive | (v < 0) & ~positive for v in vectors]
    shares = [a.to(torch.float64) * w for a, w in zip(agrees, weights, strict=True)]
    total = _added([v * s for v, s in zip(vectors, shares, strict=True)])
    return total / _added(shares).clamp(min=_SMALL)


def _added(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def sce(step: Sce, inputs: Mapping[str, Source]) -> SceMethod:
    """Bind sce/v1."""
    return SceMethod(step, inputs)
