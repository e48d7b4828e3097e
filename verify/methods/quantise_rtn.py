"""quantise_rtn/v1: symmetric rounding to nearest, INT8 and FP8, per tensor, channel or group.

m = max|x| over the elements that share a scale; c is float64 (parentage-1) or `compute` (torch); each
operation rounds once to c.

    s = RN(m / limit), or RN(m x RN(1 / limit));  s = max(s, floor);  s = zero where s is 0;  stored = RN_scale(s)
    t = RN(x / s'), RN(x x RN(1 / s')), RN(x x RN(limit / m)), or RN(x x RN(limit x RN(1 / m)));  s' is `using`
    q = RN_dtype(clamp(t)); a NaN is 0 in I8
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping

import msgspec
import torch
from torch import Tensor

from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.quantise_steps import QuantiseRtn
from parentage.manifest.tensor import TensorSpec
from parentage.manifest.wire import ratio
from parentage.verify.fp8 import FP8, LARGEST, round_fp8
from parentage.verify.methods.base import check_profile
from parentage.verify.methods.quantising import PIECE, Quantising, halves_away, largest, whole
from parentage.verify.rounding import DTYPES, round_once
from parentage.verify.values import Scratch, Source

#: Scales that a tensor without elements may have: (0, 4096) has 4,096 columns; (0, 2^40) is a bomb.
_FEW = 1 << 16


class Runs(msgspec.Struct, frozen=True):
    """Which elements share a scale: run k of `length` elements has scale k mod `scales`."""

    length: int
    scales: int


class Scales(msgspec.Struct, frozen=True):
    """Some scales: the largest magnitudes, and the scales before and after they are stored."""

    largest: Tensor
    computed: Tensor
    stored: Tensor


class QuantiseRtnMethod(Quantising):
    """A bound quantise_rtn/v1."""

    def __init__(self, step: QuantiseRtn, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, ("parentage-1", "torch"))
        self._step, self._params = step, step.params
        profile = step.arithmetic.profile
        self._compute = (
            torch.float64 if profile == "parentage-1" else DTYPES[step.arithmetic.compute or "F32"]
        )
        self.variants = (profile,)
        self._runs: dict[str, Runs] = {}
        self._known: dict[str, Tensor] = {}
        super().__init__(step.id, inputs[step.inputs[0]], step.params, self._become)
        self._locks = {name: threading.Lock() for name in self._runs}

    def _become(self, spec: TensorSpec) -> Iterable[tuple[str, TensorSpec]]:
        params, shape = self._params, spec.shape
        if params.axis is not None:
            axis = params.axis + len(shape) * (params.axis < 0)
            if not 0 <= axis < len(shape):
                raise self._misfit(spec, f"dimension {params.axis}")
            runs = Runs(math.prod(shape[axis + 1 :]), shape[axis])
            scales = tuple(n if i == axis else 1 for i, n in enumerate(shape))
            flat: tuple[int, ...] = (shape[axis],)
        elif params.group is not None:
            if not shape or shape[-1] % params.group:
                raise self._misfit(spec, f"a last dimension in groups of {params.group}")
            runs = Runs(params.group, spec.elements // params.group)
            scales = flat = (*shape[:-1], shape[-1] // params.group)
        else:
            runs = Runs(spec.elements, 1)
            scales, flat = (1,) * len(shape), ()
        if runs.scales > max(spec.elements, _FEW):
            raise self._misfit(spec, "no more scales than elements")
        self._runs[spec.name] = runs
        yield "q", TensorSpec(params.values.replace("{}", spec.name), params.dtype, shape)
        yield (
            "s",
            TensorSpec(
                params.scales.replace("{}", spec.name),
                self._step.arithmetic.scale,
                scales if params.keep_dimensions else flat,
            ),
        )

    def _misfit(self, spec: TensorSpec, expected: str) -> ShapeMismatchError:
        where = f"step {self._step.id}: {spec.name}"
        return ShapeMismatchError(
            "tensor can't be quantised so", where=where, expected=expected, found=str(spec.shape)
        )

    def compute(
        self, origin: str, part: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Tensor:
        """Return scales, or quantised elements, [start, stop)."""
        if part == "s":
            return self._scales(self._maxima(origin, start, stop, scratch)).stored
        runs = self._runs[origin]
        first, last = start // runs.length, -(-stop // runs.length)
        if self._params.group is not None:
            maxima = self._maxima(origin, first, last, scratch)
        else:
            every = self._maxima(origin, 0, runs.scales, scratch)
            maxima = every[torch.arange(first, last, device=every.device) % runs.scales]
        counts: Tensor | None = None
        if runs.length > 1:
            counts = torch.full((last - first,), runs.length, device=maxima.device)
            counts[0] -= start - first * runs.length
            counts[-1] -= last * runs.length - stop
        scales = self._scales(maxima)
        values = self.source.read(origin, start, stop, scratch).to(self._compute)
        return self._store(self._quotient(values, scales, counts))

    def _maxima(self, name: str, first: int, last: int, scratch: Scratch) -> Tensor:
        """Return the largest magnitudes of scales [first, last)."""
        if self._params.group is not None:
            group = self._params.group
            values = self.source.read(name, first * group, last * group, scratch)
            return largest(values.reshape(-1, group)).to(self._compute)
        with self._locks[name]:
            if name not in self._known:
                self._known[name] = self._pass(name, Scratch(scratch.device))
            return self._known[name][first:last]

    def _pass(self, name: str, scratch: Scratch) -> Tensor:
        """Read a tensor once, a piece at a time, for the largest magnitude of every scale."""
        runs, spec = self._runs[name], self.source.specs[name]
        found = torch.zeros(runs.scales, dtype=self._compute, device=scratch.device)
        if not spec.elements:
            return found
        at_once = max(PIECE // runs.length, 1)
        for period in range(0, spec.elements, runs.length * runs.scales):
            for first in range(0, runs.scales, at_once):
                last = min(first + at_once, runs.scales)
                begin, end = period + first * runs.length, period + last * runs.length
                for start in range(begin, end, PIECE):
                    scratch.reset()
                    stop = min(start + PIECE, end)
                    values = self.source.read(name, start, stop, scratch)
                    part = largest(values.reshape(last - first, -1)).to(self._compute)
                    found[first:last] = torch.maximum(found[first:last], part)
        return found

    def _number(self, text: str) -> float:
        return float(ratio(text))

    def _one(self, value: float, like: Tensor) -> Tensor:
        """Return a number as a tensor: dividing by a Python number is a product on some devices."""
        return torch.full((1,), value, dtype=self._compute, device=like.device)

    def _scales(self, maxima: Tensor) -> Scales:
        params = self._params
        limit = ratio(params.limit)
        if params.scale_by == "divide":
            scale = maxima / self._one(float(limit), maxima)
        else:
            scale = maxima * self._one(float(1 / limit), maxima)
        scale = torch.maximum(scale, self._one(self._number(params.floor), scale))
        scale = torch.where(scale == 0, self._one(self._number(params.zero), scale), scale)
        stored = round_once(scale.to(torch.float64), self._step.arithmetic.scale)
        return Scales(maxima, scale, stored)

    def _quotient(self, values: Tensor, scales: Scales, counts: Tensor | None) -> Tensor:
        params = self._params
        used = scales.stored.to(self._compute) if params.using == "stored" else scales.computed
        limit = self._one(self._number(params.limit), values)
        one = self._one(1.0, values)
        factor = {
            "x/s": lambda: used,
            "x*(1/s)": lambda: one / used,
            "x*(limit/max)": lambda: limit / scales.largest,
            "x*(limit*(1/max))": lambda: limit * (one / scales.largest),
        }[params.quotient]()
        if counts is not None and len(factor) > 1:
            factor = factor.repeat_interleave(counts)
        return values / factor if params.quotient == "x/s" else values * factor

    def _store(self, quotient: Tensor) -> Tensor:
        params = self._params
        least, most = self._clamp()
        quotient = quotient.clamp(least, most)
        if params.dtype in FP8:
            return round_fp8(quotient.to(torch.float64), params.dtype)
        away = params.ties == "away"
        return whole(halves_away(quotient) if away else quotient.round(), torch.int8)

    def _clamp(self) -> tuple[float, float]:
        clamp = self._params.clamp
        if clamp is not None:
            return self._number(clamp[0]), self._number(clamp[1])
        most = LARGEST.get(self._params.dtype, 127.0)
        return (-128.0, most) if self._params.dtype == "I8" else (-most, most)


def quantise_rtn(step: QuantiseRtn, inputs: Mapping[str, Source]) -> QuantiseRtnMethod:
    """Bind quantise_rtn/v1."""
    return QuantiseRtnMethod(step, inputs)
