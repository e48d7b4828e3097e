"""task_arithmetic/v1: sparse task vectors merged into a base (TIES, DARE, breadcrumbs, DELLA).

d_i = x_i - b; a mask keeps some elements of d_i (see masks.py); with `rescale` the rest grow to the former
L1 norm; v_i = w_i d_i. With `elect`, an element counts only where its sign is that of Σ v_i (0 counts
as +), and the divisor is the sum of the w_i that count (1 if that is 0); without, all count (1 if
|Σ w| < 1e-8). y = b + scale * Σ v_i [/ divisor if `normalize`].

parentage-1   every operation in float64, inputs in order, one rounding at the end; L1 norms by tree sums.
mk            every operation in `compute`, Σ in fp32 and rounded (merge_methods/
              generalized_task_arithmetic.py, sparsify.py). Scalars: "scale.i", the quotient of L1 norms.
              "/sort" lets torch's unstable sort choose among equal magnitudes, as mergekit does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import msgspec
import torch
from torch import Tensor

from parentage.manifest.merge_steps import TaskArithmetic
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import Ratio, matches, ratio
from parentage.verify import kernels, native, sum_kernels
from parentage.verify.masking import compared, count, kept
from parentage.verify.methods import boxes
from parentage.verify.methods.base import Choice, Interval, Scalars
from parentage.verify.methods.choosing import decide
from parentage.verify.methods.electing import Mix, added, mixed
from parentage.verify.methods.masks import Masks, MaskSource
from parentage.verify.methods.masks_at_random import CountedSource, ReplayedSource
from parentage.verify.methods.masks_by_rank import RankSource
from parentage.verify.methods.merging import PIECE, WITNESS, Merging, Span
from parentage.verify.rounding import DTYPES, TINY, bits, rounded
from parentage.verify.selection import keys_of
from parentage.verify.sums import BLOCK, PASS, RunningSum
from parentage.verify.values import Scratch, Source

_SMALL: Final = 1e-7
#: Elements that vote on the quotients of unknown masks, and quotients that they vote on.
_VOTERS: Final = 8192
_CANDIDATES: Final = 257


class Facts(msgspec.Struct):
    """Masks of a tensor, one for each task vector, and what rescaling multiplies them by."""

    masks: Masks
    scales: list[float]


class TaskArithmeticMethod(Merging[TaskArithmetic, Facts]):
    """A bound task_arithmetic/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }

    def __init__(self, step: TaskArithmetic, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self.base_at = step.inputs.index(step.params.base)
        self.by_rows = step.params.sparsify == "della"
        self.by_rank = step.params.sparsify in {"magnitude", "outliers"}
        if self.by_rank and not self.deterministic:
            self.variants = tuple(f"{name}/sort" for name in self.variants)
        self.unseeded = step.params.seed is None and step.params.sparsify in {"random", "della"}
        if self.unseeded:
            self.deterministic = False
        self._masks = self._source()

    def _source(self) -> MaskSource:
        """Return the way to choose that the step declares."""
        if self.by_rank:
            return RankSource(self)
        if self.step.arithmetic.profile == "parentage-1":
            return CountedSource(self)
        return ReplayedSource(self)

    def values(self, name: str, key: str, default: Ratio = "1") -> list[Ratio]:
        """Return a parameter of a tensor, one for each task vector."""
        params = self.step.params
        for override in params.overrides:
            found: tuple[Ratio, ...] | None = getattr(override, key)
            if found is not None and matches(name, override.tensors):
                return list(found)
        own: tuple[Ratio, ...] = getattr(params, key)
        return list(own) or [default] * len(params.weights)

    def scale(self, name: str) -> float:
        """Return mergekit's `lambda` for a tensor."""
        for override in self.step.params.overrides:
            if override.scale is not None and matches(name, override.tensors):
                return float(ratio(override.scale))
        return float(ratio(self.step.params.scale))

    def vectors(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the task vectors."""
        base = parts[self.base_at]
        others = [part for i, part in enumerate(parts) if i != self.base_at]
        subtract = kernels.compiled(kernels.less, base.device)
        out = torch.empty((len(others), base.numel()), dtype=base.dtype, device=base.device)
        return list(subtract(others, base, out, kernels.block_of(base.device)))

    def facts(self, name: str, variant: str) -> Facts:
        """Find the masks, and the L1 norms with and without them."""
        masks = self._masks.find(name, variant)
        if self.unseeded:
            return Facts(masks, self._expected(name))
        if not self.step.params.rescale:
            return Facts(masks, [1.0] * len(self.step.params.weights))
        before, after = self._norms(name, variant, masks)
        exact = variant == "parentage-1"
        dtype = "F64" if exact else self._work(name)
        scales = [_quotient(b, a, dtype) for b, a in zip(before, after, strict=True)]
        densities = [float(ratio(text)) for text in self.values(name, "densities")]
        return Facts(masks, [1.0 if d >= 1 else s for s, d in zip(scales, densities, strict=True)])

    def _norms(self, name: str, variant: str, masks: Masks) -> tuple[list[float], list[float]]:
        """Return the L1 norms of the task vectors, of all elements and of those that stay."""
        sums = [RunningSum() for _ in range(2 * len(self.step.params.weights))]
        # Where masks do not depend on the values, all of it is one chain of operations.
        drawn = self.step.params.sparsify == "random" and not self.by_rows
        for span, parts in self.pieces(name, variant):
            done = self._add_norms(sums, span, parts, masks) if drawn else 0
            if done == span.stop - span.start:
                continue
            rest = Span(name, span.start + done, span.stop, span.shape)
            for i, vector in enumerate(self.vectors([part[done:] for part in parts])):
                size = vector.abs()
                sums[2 * i].add(size)
                sums[2 * i + 1].add(kept(size, masks.mask(i, rest, vector)))
        totals = [one.total() for one in sums]
        return totals[::2], totals[1::2]

    def _add_norms(
        self, sums: Sequence[RunningSum], span: Span, parts: Sequence[Tensor], masks: Masks
    ) -> int:
        """Add whole blocks of sums, and return how many elements those are."""
        whole = (span.stop - span.start) // BLOCK * BLOCK
        base, *others = (part[:whole] for part in self._base_first(parts))
        part = Span(span.name, span.start, span.start + whole, span.shape)
        keep = [masks.mask(i, part, other).view(torch.int8) for i, other in enumerate(others)]
        rows = native.norms(base, others, keep)
        if rows is not None:
            for one, row in zip(sums, rows, strict=True):
                one.add_blocks(row)
            return whole
        values = torch.empty(min(PASS, whole), dtype=base.dtype, device=base.device)
        held = [values, bits(values), torch.empty_like(bits(values))]
        top = (1 << (8 * base.element_size() - 1)) - 1
        run = kernels.compiled(sum_kernels.norms, base.device)
        for one, row in zip(sums, run(others, base, keep, top, held, BLOCK, PASS), strict=True):
            one.add_blocks(row.tolist())
        return whole

    def size_of(self, facts: Facts) -> int:
        """Return the bytes of the masks."""
        return facts.masks.nbytes

    def _expected(self, name: str) -> list[float]:
        """Return the quotients that masks of unknown bits lead one to expect."""
        densities = [float(ratio(text)) for text in self.values(name, "densities")]
        if not self.step.params.rescale:
            return [1.0] * len(densities)
        return [rounded(1 / d, self._work(name)) if 0 < d < 1 else 1.0 for d in densities]

    def _work(self, name: str) -> str:
        """Return the dtype of masks and norms: fp16 has no random numbers on CPU."""
        compute = self.compute(name)
        drawn = self.step.params.sparsify in {"random", "della"}
        return "F32" if compute == "F16" and drawn else compute

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the quotients of L1 norms."""
        if not self.step.params.rescale or variant == "parentage-1":
            return {}
        return {f"scale.{i}": s for i, s in enumerate(self.found(name, variant).scales)}

    def replay(self, name: str, variant: str) -> Scalars:
        """Reduce as mergekit does."""
        if not self.step.params.rescale or variant == "parentage-1" or self.unseeded:
            return {}
        work, n = DTYPES[self._work(name)], self.specs[name].elements
        facts, count = self.found(name, variant), len(self.step.params.weights)
        sizes = [torch.empty(n, dtype=work) for _ in range(count)]
        for span, parts in self.pieces(name, variant):
            for size, vector in zip(sizes, self.vectors(parts), strict=True):
                size[span.start : span.stop].copy_(vector).abs_()
        found: Scalars = {}
        for i, size in enumerate(sizes):
            before = size.sum()
            for start in range(0, n, PIECE):
                span = Span(name, start, min(start + PIECE, n), self.specs[name].shape)
                part = size[span.start : span.stop]
                part.mul_(facts.masks.mask(i, span, part))
            after = size.sum()
            dense = facts.scales[i] == 1.0 or before < _SMALL or after < _SMALL
            found[f"scale.{i}"] = 1.0 if dense else float(before / after)
        return found

    def suggest(
        self, name: str, variant: str, release: Source, places: Sequence[int] = ()
    ) -> Scalars:
        """Return, for masks of unknown bits, the quotients that most elements kept alone fit."""
        if not self.unseeded or not self.step.params.rescale:
            return {}
        stop = min(self.specs[name].elements, _VOTERS)
        span, scratch = Span(name, 0, stop, self.specs[name].shape), Scratch(torch.device("cpu"))
        parts = self.parts(span, variant, scratch)
        vectors, found = self.vectors(parts), release.read(name, 0, stop, scratch)
        nothing = [torch.zeros_like(vector, dtype=torch.bool) for vector in vectors]
        reach = min(max(0.01, 8 / max(self.specs[name].elements, 1) ** 0.5), 0.9)
        suggested: Scalars = {}
        for i, expected in enumerate(self._expected(name)):
            if expected == 1.0:
                continue
            moved = vectors[i] != 0
            alone = [torch.ones_like(m) if j == i else m for j, m in enumerate(nothing)]
            votes: dict[float, int] = {}
            for share in torch.linspace(-reach, reach, _CANDIDATES).tolist():
                scale = rounded(expected * (1 + share), self._work(name))
                if scale not in votes:
                    scales = [scale if j == i else 1.0 for j in range(len(vectors))]
                    got = self.mixed(name, parts[self.base_at], vectors, alone, scales)
                    same = bits(got.to(found.dtype)) == bits(found)
                    votes[scale] = int((same & moved).sum())
            suggested[f"scale.{i}"] = max(votes, key=lambda scale: votes[scale])
        return suggested

    def scalar_dtype(self, name: str) -> str:
        """Return the dtype that quotients are held in."""
        return self._work(name)

    def known(
        self, name: str, start: int, stop: int, variant: str, found: Tensor, scratch: Scratch
    ) -> int:
        """Return how many elements of `found`, from the first, are known to be the merge."""
        plain, dtypes = variant.removesuffix(WITNESS), {self.compute(name), self._work(name)}
        dtypes.update(source.specs[name].dtype for source in self.sources)
        # Other masks depend on the vectors: those are made, and the rest of the way is short.
        drawn = self.step.params.sparsify == "random" and not self.unseeded
        if plain == "parentage-1" or not drawn or dtypes != {"BF16"}:
            return 0
        if not kernels.can_compare(found):
            return 0
        masks, scalars = self.found(name, plain).masks, self.scalars_of(name, variant)
        span = self.span(name, start, stop)
        base, *others = self._base_first(self.parts(span, plain, scratch))
        flags = [masks.mask(i, span, other) for i, other in enumerate(others)]
        scales = [scalars.get(f"scale.{i}", 1.0) for i in range(len(others))]
        mix = self._mix(name)
        return added(mix, base, others, flags, scales, found, subtract=True, compare=True)

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Mask, weigh, elect and add."""
        facts = self.found(span.name, variant)
        vectors = self.vectors(parts)
        masks = [facts.masks.mask(i, span, vector) for i, vector in enumerate(vectors)]
        if variant == "parentage-1":
            return self._exact(span.name, parts[self.base_at], vectors, masks, facts.scales)
        scales = [scalars.get(f"scale.{i}", 1.0) for i in range(len(vectors))]
        return self.mixed(span.name, parts[self.base_at], vectors, masks, scales)

    def mixed(
        self,
        name: str,
        base: Tensor,
        vectors: Sequence[Tensor],
        masks: Sequence[Tensor],
        scales: Sequence[float],
    ) -> Tensor:
        """Merge under an `mk` engine, given masks."""
        return mixed(self._mix(name), base, vectors, masks, scales)

    def _mix(self, name: str) -> Mix:
        params = self.step.params
        return Mix(
            weights=tuple(float(ratio(text)) for text in self.values(name, "weights")),
            elect=params.elect,
            normalize=params.normalize,
            scale=self.scale(name),
            work=DTYPES[self._work(name)],
        )

    def _base_first(self, parts: Sequence[Tensor]) -> list[Tensor]:
        return [parts[self.base_at], *parts[: self.base_at], *parts[self.base_at + 1 :]]

    def _exact(
        self,
        name: str,
        base: Tensor,
        vectors: Sequence[Tensor],
        masks: Sequence[Tensor],
        scales: Sequence[float],
    ) -> Tensor:
        weights = [float(ratio(text)) for text in self.values(name, "weights")]
        terms = [
            (vector * mask.to(vector.dtype)).mul_(scale).mul_(weight)
            for vector, mask, scale, weight in zip(vectors, masks, scales, weights, strict=True)
        ]
        if self.step.params.elect:
            positive = _added(terms) >= 0
            agrees = [(term > 0) & positive | (term < 0) & ~positive for term in terms]
            terms = [term * agree for term, agree in zip(terms, agrees, strict=True)]
            # A boolean times a number would be fp32.
            shares = [a.to(base.dtype) * w for a, w in zip(agrees, weights, strict=True)]
            divisor = _added(shares)
            divisor = torch.where(divisor == 0, 1.0, divisor)
        else:
            total = float(sum(ratio(text) for text in self.values(name, "weights")))
            divisor = torch.full((1,), total if abs(total) >= 1e-8 else 1.0, dtype=base.dtype)
        mixed = _added(terms)
        if self.step.params.normalize:
            mixed = mixed / divisor.to(mixed.device)
        return base + mixed * self.scale(name)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return what any quotients of L1 norms within their box give, where masks are replayed."""
        spec, params = self.specs[name], self.step.params
        known = params.sparsify == "random" and not self.unseeded
        if self.deterministic or not known or spec.dtype not in FLOAT_DTYPES:
            return None
        width = boxes.slack(self._work(name), spec.elements) if params.rescale else 0.0
        facts = self.found(name, self.bare(variant))
        parts = self.doubles(name, start, stop, variant, scratch)
        ends = [
            boxes.scaled(
                vector * facts.masks.mask(i, Span(name, start, stop, spec.shape), vector),
                (scale * (1 - width), scale * (1 + width)),
            )
            for i, (vector, scale) in enumerate(zip(self.vectors(parts), facts.scales, strict=True))
        ]
        weights = [float(ratio(text)) for text in self.values(name, "weights")]
        found = boxes.summed(
            ends,
            weights,
            elect=params.elect,
            normalize=params.normalize,
            tiny=4 * TINY[self.compute(name)],
        )
        if found is None or width >= 0.5:
            return None
        base, by = parts[self.base_at], self.scale(name)
        low, high = boxes.scaled_ends(found[:2], by)
        return boxes.widened(
            base + low,
            base + high,
            found[2] * abs(by) + base.abs(),
            steps=2 * len(parts) + 12,
            compute=self.compute(name),
            store=spec.dtype,
            lift=max(1.0, abs(by) / min(1.0, *map(abs, weights))),
        )

    @property
    def exact_is_costly(self) -> bool:
        """Say whether rung A needs a sort of whole tensors, and rung C does not."""
        return self.by_rank and not self.deterministic

    def choices(
        self, name: str, start: int, stop: int, found: Tensor, scratch: Scratch, scalars: Scalars
    ) -> Choice | None:
        """Try every way to decide the elements that the masks leave open."""
        engine = self.bare(self.variants[0])
        masks = self.found(name, engine).masks
        span = self.span(name, start, stop)
        parts = self.parts(span, engine, scratch)
        base, vectors = parts[self.base_at], self.vectors(parts)
        states = [masks.sure_and_tied(i, span, vector) for i, vector in enumerate(vectors)]
        scales = [scalars.get(f"scale.{i}", 1.0) for i in range(len(vectors))]
        store = DTYPES[self.specs[name].dtype]
        at = slice(start - span.start, stop - span.start)
        base, vectors = base[at], [vector[at] for vector in vectors]
        # An element of 0 is the same kept or dropped: it is free in number, and open in nothing.
        states = [(sure[at], tied[at]) for sure, tied in states]
        free = [0] * len(vectors)
        for i, (vector, (sure, tied)) in enumerate(zip(vectors, states, strict=True)):
            if masks.open_at_zero(i):
                zero = tied & compared(torch.eq, keys_of(vector), 0)
                states[i], free[i] = (sure, tied & ~zero), count(zero)

        def value(index: Tensor | slice, stay: Sequence[Tensor]) -> Tensor:
            picked = [vector[index] for vector in vectors]
            return self.mixed(name, base[index], picked, stay, scales).to(store)

        choice = decide(states, found, value)
        if choice is not None:
            choice.most = [most + more for most, more in zip(choice.most, free, strict=True)]
        return choice

    def allowed(self, name: str, index: int) -> tuple[float, float]:
        """Return how many elements of a mask stay: exactly so many, or within five deviations."""
        masks = self.found(name, self.bare(self.variants[0])).masks
        return masks.allowed(index)


def _added(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _quotient(before: float, after: float, dtype: str) -> float:
    if dtype != "F64":
        before, after = rounded(before, dtype), rounded(after, dtype)
    if before < _SMALL or after < _SMALL:
        return 1.0
    return rounded(before / after, dtype) if dtype != "F64" else before / after


def task_arithmetic(step: TaskArithmetic, inputs: Mapping[str, Source]) -> TaskArithmeticMethod:
    """Bind task_arithmetic/v1."""
    return TaskArithmeticMethod(step, inputs)
