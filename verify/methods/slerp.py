"""slerp/v1: spherical interpolation of whole tensors (Shoemake 1985), lerp where |cos| > 0.9995.

parentage-1   <a,a>, <b,b>, <a,b> in float64 by tree sums; cos = ab / (sqrt(aa) sqrt(bb)); the
              coefficients sin((1-t)θ)/sin θ and sin(tθ)/sin θ to 50 digits, rounded to float64;
              y = RN_store(RN(c_a a) + RN(c_b b)).
mk            fp32: norms, the dot product of the normalised inputs, c_a and c_b from it, c_a a + c_b b
              unfused (merge_methods/slerp.py). 0.1.5 reduces pieces of 2^20 elements with torch, 0.1.4
              whole tensors with numpy; both depend on threads and kernels, so that rung A takes torch's
              reading on one thread, and a witness any other. Scalars: "dot" (0.1.5); "a", "b", the
              coefficients (0.1.4, whose sines are numpy's).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar, Final

import torch
from torch import Tensor

from parentage.manifest.merge_steps import Slerp
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import matches, ratio
from parentage.verify import kernels, sum_kernels
from parentage.verify.decimals import acos, digits, sin
from parentage.verify.methods import boxes
from parentage.verify.methods.base import Interval, Scalars
from parentage.verify.methods.cosines import (
    Curve,
    Pair,
    Sampled,
    beside,
    bisected,
    fitted,
    swept,
)
from parentage.verify.methods.merging import PIECE, WITNESS, Merging, Span
from parentage.verify.methods.products import Products
from parentage.verify.rounding import DTYPES, bits, rounded, same_bits
from parentage.verify.sums import BLOCK
from parentage.verify.values import Scratch, Source

THRESHOLD: Final = 0.9995
_MK_CHUNK: Final = 1 << 20
_EPSILON: Final = 1e-8
#: Elements of the release that are looked at together.
_WINDOW: Final = 1 << 15
_WINDOWS: Final = 8
_ULPS: Final = range(-2, 3)
#: Pieces in which cosines that fit a sample are told apart.
_APART: Final = 8
#: Elements that are read at a time for scalar products.
_PIECE: Final = 4 * PIECE

#: The scalars of an engine.
_SCALARS: Final = {"mk-0.1.5": ("dot",), "mk-0.1.4": ("a", "b")}
#: How far a coefficient may be from where a cosine in its box puts it (measured up to 5e-3).
SCALAR_BOX: Final = 1e-2


class SlerpMethod(Merging[Slerp, Scalars]):
    """A bound slerp/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: (name,) for name in ("parentage-1", "mk-0.1.5", "mk-0.1.4")
    }
    noise: ClassVar[Mapping[str, float]] = {"dot": 1e-5}
    replay_streams = True

    def __init__(self, step: Slerp, inputs: Mapping[str, Source]) -> None:
        super().__init__(step, inputs)
        self._gathering = "", Products(0)

    def t(self, name: str) -> Fraction:
        """Return the exact t of a tensor."""
        for override in self.step.params.overrides:
            if matches(name, override.tensors):
                return ratio(override.t)
        return ratio(self.step.params.t)

    def facts(self, name: str, variant: str) -> Scalars:
        """Return the scalar products in float64, or mergekit's own reading on this thread."""
        if variant != "parentage-1":
            return self.replay(name, variant)
        products, scratch = Products(self.specs[name].elements), Scratch(torch.device("cpu"))
        for start in range(0, self.specs[name].elements, _PIECE):
            scratch.reset()
            stop = min(start + _PIECE, self.specs[name].elements)
            a, b = (source.read(name, start, stop, scratch) for source in self.sources)
            products.add(start, a, b)
        found = products.totals()
        if found is None:
            raise ValueError(f"{name}: a piece is missing")
        return found

    def coefficients(self, name: str) -> tuple[float, float]:
        """Return (c_a, c_b) of a tensor under `parentage-1`."""
        return coefficients(**self.found(name, "parentage-1"), t=self.t(name))

    def scalar_dtype(self, name: str) -> str:
        """Return the dtype of mergekit's reductions."""
        return "F64" if self._wide(name) == torch.float64 else "F32"

    def _wide(self, name: str) -> torch.dtype:
        wide = self.compute(name) == "F64" and self.step.arithmetic.profile == "mk-0.1.5"
        return torch.float64 if wide else torch.float32

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the cosine, or the coefficients, from float64."""
        if variant == "parentage-1":
            return {}
        dtype = self.scalar_dtype(name)
        if variant == "mk-0.1.4":
            c_a, c_b = self.coefficients(name)
            return {"a": rounded(c_a, dtype), "b": rounded(c_b, dtype)}
        known = self.found(name, "parentage-1")
        cosine = known["ab"] / (_length(known["aa"]) * _length(known["bb"]))
        return {"dot": rounded(min(max(cosine, -1.0), 1.0), dtype)}

    def scalars_of(self, name: str, variant: str) -> Scalars:
        """Return torch's own reading on one thread, or a witness."""
        witnessed = self.witness.get(name, {})
        if variant.endswith(WITNESS) and witnessed.keys() == set(
            _SCALARS.get(self.bare(variant), ())
        ):
            return witnessed
        if variant == "parentage-1" or variant.endswith(WITNESS):
            return super().scalars_of(name, variant)
        return self.found(name, variant)

    def replay(self, name: str, variant: str) -> Scalars:
        """Reduce as merge_methods/slerp.py does, with the threads that torch has now."""
        wide, elements = self._wide(name), self.specs[name].elements
        size = _MK_CHUNK if variant == "mk-0.1.5" else max(elements, 1)
        ranges = [(start, min(start + size, elements)) for start in range(0, elements, size)]
        scratch = Scratch(torch.device("cpu"))
        held = torch.empty(min(size, elements), dtype=wide)

        def read(start: int, stop: int) -> list[Tensor]:
            scratch.reset()
            return self.parts(Span(name, start, stop, self.specs[name].shape), variant, scratch)

        norms: list[list[float]] = [[], []]
        for start, stop in ranges:
            for found, part in zip(norms, read(start, stop), strict=True):
                values = held[: stop - start].copy_(part).reshape(1, -1)
                found.append(float(torch.linalg.vector_norm(values, dim=1)))
        whole = [torch.linalg.vector_norm(_column(found, wide), dim=0) for found in norms]
        lengths = [torch.where(norm > _EPSILON, norm, 1.0).reshape(()) for norm in whole]
        multiply = kernels.compiled(sum_kernels.products_of_directions, held.device)
        dots: list[float] = []
        for start, stop in ranges:
            out = held[: stop - start]
            multiply(*read(start, stop), *lengths, out, kernels.block_of(held.device))
            dots.append(float(out.reshape(1, -1).sum(dim=1)))
        dot = _column(dots, wide).sum(dim=0)
        if variant == "mk-0.1.4":
            c_a, c_b = self._coefficients_014(name, float(dot))
            return {"a": c_a, "b": c_b}
        return {"dot": float(dot.clamp(-1, 1))}

    def suggest(
        self, name: str, variant: str, release: Source, places: Sequence[int] = ()
    ) -> Scalars:
        """Return the scalars, near those of float64, that fit a sample best."""
        if variant == "parentage-1" or not self.specs[name].elements:
            return {}
        a, b, found = self._sample(name, variant, release, places)
        store = DTYPES[self.specs[name].dtype]
        wide, block = self._wide(name), kernels.block_of(a.device)
        interpolate = kernels.compiled(kernels.interpolated, a.device)

        def made(x: Tensor, y: Tensor, pair: Pair) -> Tensor:
            factors = (torch.tensor(factor, dtype=wide) for factor in pair)
            return interpolate(x, y, *factors, torch.empty_like(x), block).to(store)

        def misses(pair: Pair) -> int:
            return int((bits(made(a, b, pair)) != bits(found)).sum())

        def exact(dots: Sequence[float]) -> list[Pair]:
            if variant == "mk-0.1.4":
                return [self._coefficients_014(name, dot) for dot in dots]
            c_a, c_b = self._mk(name, {"dot": list(dots)})
            return list(zip(c_a.tolist(), c_b.tolist(), strict=True))

        def by_dot(dot: float) -> int:
            return misses(exact([dot])[0])

        dtype, sampled = self.scalar_dtype(name), Sampled(a, b, found, made)
        curve = Curve(float(self.t(name)), exact, dtype, THRESHOLD)
        # Whatever is known by now: who runs a tensor alone must suggest the same.
        cosine = _cosine(**_products(a, b))
        fitting, missed = bisected(sampled, curve, cosine, SCALAR_BOX)
        if missed:
            # A sample need not be like the rest.
            cosine = _cosine(**self.found(name, "parentage-1"))
            fitting, missed = bisected(sampled, curve, cosine, SCALAR_BOX)
        left = fitting if missed else self._left(name, variant, release, fitting)
        dot = left[len(left) // 2]
        if missed:
            # fp32 sums of so many numbers lie near each other, and further from float64's.
            torch_says = self.found(name, variant).get("dot", cosine)
            dot = swept((torch_says, dot), by_dot)
        if variant == "mk-0.1.5":
            return {"dot": rounded(dot, dtype)}
        best = min((exact([dot])[0], fitted(a, b, found)), key=misses)
        c_a, c_b = min((beside(best, i, j) for i in _ULPS for j in _ULPS), key=misses)
        return {"a": c_a, "b": c_b}

    def _left(
        self, name: str, variant: str, release: Source, dots: Sequence[float]
    ) -> Sequence[float]:
        """Return those cosines that give the first elements of a tensor too, as many as tell them apart."""
        if variant == "mk-0.1.4":
            return dots
        n, scratch = self.specs[name].elements, Scratch(torch.device("cpu"))
        c_a, c_b = self._mk(name, {"dot": list(dots)})
        left = list(zip(dots, c_a, c_b, strict=True))
        for start in range(0, min(n, _APART * PIECE), PIECE):
            scratch.reset()
            stop = min(start + PIECE, n)
            if len(left) == 1:
                break
            found = release.read(name, start, stop, scratch)
            parts = self.parts(self.span(name, start, stop), variant, scratch)
            left = [each for each in left if _gives(parts, each[1:], found)] or left
        return [dot for dot, *_ in left]

    def _sample(
        self, name: str, variant: str, release: Source, places: Sequence[int]
    ) -> list[Tensor]:
        n, scratch = self.specs[name].elements, Scratch(torch.device("cpu"))
        picked: list[list[Tensor]] = []
        near = {place // _WINDOW * _WINDOW for place in places}
        for start in sorted(near.union(range(0, n, max(n // _WINDOWS, _WINDOW)))):
            span = Span(name, start, min(start + _WINDOW, n), self.specs[name].shape)
            parts = self.parts(span, variant, scratch)
            picked.append([*parts, release.read(name, span.start, span.stop, scratch)])
        return [torch.cat(column) for column in zip(*picked, strict=True)]

    def _coefficients_014(self, name: str, dot: float) -> tuple[float, float]:
        t = float(self.t(name))
        if abs(dot) > THRESHOLD:
            return rounded(1 - t, "F32"), rounded(t, "F32")
        theta = torch.acos(torch.tensor(dot, dtype=torch.float32))
        part = theta * t
        sine = torch.sin(theta)
        return float(torch.sin(theta - part) / sine), float(torch.sin(part) / sine)

    def _mk(self, name: str, scalars: Mapping[str, float | list[float]]) -> tuple[Tensor, Tensor]:
        """Return (c_a, c_b) of mergekit from what is known of a tensor; of several cosines, several."""
        wide = self._wide(name)
        if "dot" not in scalars:
            return torch.tensor(scalars["a"], dtype=wide), torch.tensor(scalars["b"], dtype=wide)
        t = torch.tensor(float(self.t(name)), dtype=wide)
        dot = torch.tensor(scalars["dot"], dtype=wide)
        linear = dot.abs() > THRESHOLD
        theta = torch.acos(torch.where(linear, 0.0, dot))
        sine = torch.sin(theta)
        c_a = torch.where(linear, 1 - t, torch.sin((1 - t) * theta) / sine)
        return c_a, torch.where(linear, t, torch.sin(t * theta) / sine)

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Interpolate."""
        a, b = parts
        if variant == "parentage-1":
            c_a, c_b = self.coefficients(span.name)
            return (a * c_a).add_(b * c_b)
        interpolate = kernels.compiled(kernels.interpolated, a.device)
        out = torch.empty_like(a)
        return interpolate(a, b, *self._mk(span.name, scalars), out, kernels.block_of(a.device))

    def known(
        self, name: str, start: int, stop: int, variant: str, found: Tensor, scratch: Scratch
    ) -> int:
        """Return how many elements of `found`, from the first, are known to be the interpolation."""
        plain = variant.removesuffix(WITNESS)
        dtypes = {self.compute(name), *(source.specs[name].dtype for source in self.sources)}
        if plain == "parentage-1" or dtypes != {"BF16"} or not kernels.can_compare(found):
            return 0
        factors = self._mk(name, self.scalars_of(name, variant))
        parts = self.parts(self.span(name, start, stop), plain, scratch)
        if variant.endswith(WITNESS):
            self._gather(name, start, parts)
        return kernels.known(kernels.interpolated, found, *parts, *factors)

    def _gather(self, name: str, start: int, parts: Sequence[Tensor]) -> None:
        """Find the scalar products of a tensor while it is compared, if they are not known.

        With a published cosine the comparison comes first, and nothing is read twice.
        """
        key, spec = (name, "parentage-1"), self.specs[name]
        with self._lock:
            if key in self._facts or start % BLOCK:
                return
            if self._gathering[0] != name:
                self._gathering = name, Products(spec.elements)
            _, products = self._gathering
        if parts[0].numel() % BLOCK and start + parts[0].numel() != spec.elements:
            return
        products.add(start, *parts)
        if (totals := products.totals()) is not None:
            with self._lock:
                self._facts[key] = totals

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return the values within the box of the scalars; too wide to prove, enough to refute."""
        store = self.specs[name].dtype
        if self.deterministic or store not in FLOAT_DTYPES:
            return None
        cosine = _cosine(**self.found(name, "parentage-1"))
        ranges = boxes.slerp_ranges(
            boxes.around(cosine, "F32", self.specs[name].elements), self.t(name)
        )
        if ranges is None:
            return None
        a, b = self.doubles(name, start, stop, variant, scratch)
        ends = [boxes.scaled(part, by) for part, by in zip((a, b), ranges, strict=True)]
        size = a.abs() + b.abs()
        slack = size * SCALAR_BOX
        low, high = ends[0][0] + ends[1][0] - slack, ends[0][1] + ends[1][1] + slack
        compute = self.compute(name)
        return boxes.widened(low, high, size, steps=4, compute=compute, store=store)


def _gives(parts: Sequence[Tensor], factors: Sequence[Tensor], found: Tensor) -> bool:
    """Say whether two inputs interpolated are what a release has; alike with and without native.c."""
    # Where something is no number, what is known ends though it may be equal.
    if kernels.can_compare(found) and not bool(found.isnan().any()):
        return kernels.known(kernels.interpolated, found, *parts, *factors) == found.numel()
    interpolate = kernels.compiled(kernels.interpolated, found.device)
    out, block = torch.empty_like(parts[0]), kernels.block_of(found.device)
    return same_bits(interpolate(*parts, *factors, out, block).to(found.dtype), found)


def _products(a: Tensor, b: Tensor) -> Scalars:
    """Return scalar products of a sample, about."""
    every = -(-a.numel() // _WINDOW)
    x, y = a[::every].double(), b[::every].double()
    return {"aa": float(x @ x), "bb": float(y @ y), "ab": float(x @ y)}


def _column(values: list[float], dtype: torch.dtype) -> Tensor:
    """Return scalars, each kept exactly as a float, in the shape that mergekit stacks them in."""
    return torch.tensor(values, dtype=dtype).reshape(-1, 1, 1)


def _length(square: float) -> float:
    length = math.sqrt(square)
    return length if length > _EPSILON else 1.0


def _cosine(aa: float, bb: float, ab: float) -> float:
    lengths = math.sqrt(aa) * math.sqrt(bb)
    return ab / lengths if lengths > 0 else 1.0


def coefficients(aa: float, bb: float, ab: float, t: Fraction) -> tuple[float, float]:
    """Return the two coefficients of slerp from <a,a>, <b,b>, <a,b>, rounded to float64."""
    cosine = _cosine(aa, bb, ab)
    if not abs(cosine) <= THRESHOLD:
        return float(1 - t), float(t)
    with digits():
        theta = acos(Decimal(cosine))
        share = Decimal(t.numerator) / Decimal(t.denominator)
        sine = sin(theta)
        return float(sin((1 - share) * theta) / sine), float(sin(share * theta) / sine)


def slerp(step: Slerp, inputs: Mapping[str, Source]) -> SlerpMethod:
    """Bind slerp/v1."""
    return SlerpMethod(step, inputs)
