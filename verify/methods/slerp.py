"""slerp/v1: spherical interpolation of whole tensors (Shoemake 1985), lerp where |cos| > 0.9995.

parentage-1   <a,a>, <b,b>, <a,b> in float64 by blocks of 4096 elements, each block and then the list
              of blocks summed as a binary tree; cos = ab / (sqrt(aa) sqrt(bb)); the coefficients
              sin((1-t)θ)/sin θ and sin(tθ)/sin θ to 50 digits, rounded to float64;
              y = RN_store(RN(c_a a) + RN(c_b b)).
mk-0.1.5      fp32 norms of chunks of 2^20 elements, norm of those norms, dot of the normalised
              chunks, coefficients in fp32, c_a a + c_b b unfused (merge_methods/slerp.py). Its
              reductions depend on threads and kernels, so a tensor may miss rung A.
mk-0.1.4      as mk-0.1.5 but through numpy and BLAS; reductions likewise.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

import torch
from torch import Tensor

from parentage.manifest.merge_steps import Slerp
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches, ratio
from parentage.verify.decimals import acos, digits, sin
from parentage.verify.methods import boxes
from parentage.verify.methods.base import Interval, check_profile, same_tensors, same_values
from parentage.verify.rounding import DTYPES, round_once
from parentage.verify.sources import Scratch, Source
from parentage.verify.sums import RunningSum

THRESHOLD: Final = 0.9995
_PIECE: Final = 1 << 18
_MK_CHUNK: Final = 1 << 20
#: How far a coefficient may be from where a cosine in its box puts it (measured up to 5e-3).
SCALAR_BOX: Final = 1e-2
_VARIANTS: Final = {
    "parentage-1": ("parentage-1",),
    "mk-0.1.5": ("mk-0.1.5",),
    "mk-0.1.4": ("mk-0.1.4",),
}


class SlerpMethod:
    """A bound slerp/v1; coefficients are computed once a tensor and engine."""

    #: The box of the scalars is measured, not proven.
    proven_bound = False

    def __init__(self, step: Slerp, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, _VARIANTS)
        self._step = step
        self._where = f"step {step.id}"
        self._a, self._b = (inputs[name] for name in step.inputs)
        self._inputs = same_tensors(self._where, {name: inputs[name] for name in step.inputs})
        self.variants = _VARIANTS[step.arithmetic.profile]
        self.deterministic = step.arithmetic.profile == "parentage-1"
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._inputs.items()
        }
        self._known: dict[tuple[str, str], tuple[float, float]] = {}
        self._cosines: dict[str, float] = {}
        self._locks: dict[str, threading.Lock] = {name: threading.Lock() for name in self.specs}

    def _store(self, spec: TensorSpec) -> str:
        arithmetic = self._step.arithmetic
        if spec.dtype not in FLOAT_DTYPES:
            return spec.dtype
        return arithmetic.store or arithmetic.compute or spec.dtype

    def t(self, name: str) -> Fraction:
        """Return the exact t of a tensor."""
        for override in self._step.params.overrides:
            if matches(name, override.tensors):
                return ratio(override.t)
        return ratio(self._step.params.t)

    def coefficients(self, name: str, variant: str) -> tuple[float, float]:
        """Return (c_a, c_b) of a tensor under one engine."""
        with self._locks[name]:
            found = self._known.get((name, variant))
            if found is None:
                scratch = Scratch(self._device)
                found = (
                    self._exact(name, scratch)
                    if variant == "parentage-1"
                    else self._mergekit(name, scratch)
                )
                self._known[name, variant] = found
            return found

    _device = torch.device("cpu")

    def _exact(self, name: str, scratch: Scratch) -> tuple[float, float]:
        sums = [RunningSum(), RunningSum(), RunningSum()]
        elements = self.specs[name].elements
        for start in range(0, elements, _PIECE):
            scratch.reset()
            stop = min(start + _PIECE, elements)
            a = self._a.read(name, start, stop, scratch).to(torch.float64)
            b = self._b.read(name, start, stop, scratch).to(torch.float64)
            for found, left, right in zip(sums, (a, b, a), (a, b, b), strict=True):
                found.add(left * right)
        aa, bb, ab = (found.total() for found in sums)
        self._cosines[name] = _cosine(aa, bb, ab)
        return coefficients(aa, bb, ab, self.t(name))

    def _mergekit(self, name: str, scratch: Scratch) -> tuple[float, float]:
        """Mirror merge_methods/slerp.py of mergekit 0.1.5 for one tensor."""
        elements = self.specs[name].elements
        compute = self._step.arithmetic.compute
        ranges = [
            (start, min(start + _MK_CHUNK, elements)) for start in range(0, elements, _MK_CHUNK)
        ]

        def read(source: Source, start: int, stop: int) -> Tensor:
            values = source.read(name, start, stop, scratch)
            values = values.to(DTYPES[compute]) if compute else values
            return values.to(torch.float32).reshape(1, -1)

        norms: list[list[float]] = [[], []]
        for start, stop in ranges:
            scratch.reset()
            for found, source in zip(norms, (self._a, self._b), strict=True):
                part = read(source, start, stop)
                found.append(float(torch.linalg.vector_norm(part, dim=1)))
        whole = [torch.linalg.vector_norm(_column(found), dim=0) for found in norms]
        norm_a, norm_b = (torch.where(norm > 1e-8, norm, 1.0) for norm in whole)
        dots: list[float] = []
        for start, stop in ranges:
            scratch.reset()
            x = read(self._a, start, stop) / norm_a
            y = read(self._b, start, stop) / norm_b
            dots.append(float((x * y).sum(dim=1)))
        dot = _column(dots).sum(dim=0).clamp(-1, 1)
        t = torch.tensor(float(self.t(name)), dtype=torch.float32).reshape(-1, 1)
        linear = dot.abs() > THRESHOLD
        theta = torch.acos(torch.where(linear, 0.0, dot))
        sin_theta = torch.sin(theta)
        c_a = torch.where(linear, 1 - t, torch.sin((1 - t) * theta) / sin_theta)
        c_b = torch.where(linear, t, torch.sin(t * theta) / sin_theta)
        return float(c_a), float(c_b)

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the interpolated elements under one engine."""
        if self.specs[name].dtype not in FLOAT_DTYPES:
            parts = [s.read(name, start, stop, scratch) for s in (self._a, self._b)]
            return same_values(self._where, name, parts)
        c_a, c_b = self.coefficients(name, variant)
        a = self._a.read(name, start, stop, scratch)
        b = self._b.read(name, start, stop, scratch)
        store = self.specs[name].dtype
        if variant == "parentage-1":
            exact = a.to(torch.float64).mul(c_a).add_(b.to(torch.float64).mul(c_b))
            return round_once(exact, store)
        compute = self._step.arithmetic.compute
        a, b = (part.to(DTYPES[compute]) if compute else part for part in (a, b))
        mixed = a.to(torch.float32).mul(c_a).add_(b.to(torch.float32).mul(c_b))
        return mixed.to(a.dtype).to(DTYPES[store])

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return the values within the box of the scalars; too wide to prove, enough to refute."""
        store = self.specs[name].dtype
        if self.deterministic or store not in FLOAT_DTYPES:
            return None
        self.coefficients(name, "parentage-1")
        cosines = boxes.around(self._cosines[name], "F32", self.specs[name].elements)
        ranges = boxes.slerp_ranges(cosines, self.t(name))
        if ranges is None:
            return None
        a, b = (s.read(name, start, stop, scratch) for s in (self._a, self._b))
        compute = self._step.arithmetic.compute or self._inputs[name].dtype
        a, b = (part.to(DTYPES[compute]).to(torch.float64) for part in (a, b))
        ends = [boxes.scaled(part, by) for part, by in zip((a, b), ranges, strict=True)]
        size = a.abs() + b.abs()
        slack = size * SCALAR_BOX
        low, high = ends[0][0] + ends[1][0] - slack, ends[0][1] + ends[1][1] + slack
        return boxes.widened(low, high, size, steps=4, compute=compute, store=store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return None: an interpolation is computed."""
        return None


def _column(values: list[float]) -> Tensor:
    """Return fp32 values, each kept exactly as a float, in the shape that mergekit stacks them in."""
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)


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
