"""checkpoint_merge/v1: merges of image models, in their mergers' own arithmetic.

webui        modules/extras.py (8faafb6): `((1 - a) * A) + (a * B)` and `A + (a * (B - C))` by torch on the
             CPU, in the dtype that A and B promote to; every operation rounds to it. 1 - a in float64.
             Integers times a float are fp32. Merged fp32 tensors become fp16 if `half`.
supermerger  scripts/mergers/mergers.py (0b1c491), calcmode "normal". "/lerp": torch.lerp in fp32, rounded to
             A's dtype; "/plain" ("use old calc method"): as webui. alpha 0 leaves A, 1 takes B as it is.
             add: A + a D in their dtype, "/fp32" ("use float32") in fp32 and rounded to A's.
             difference: in fp32, rounded to B's.
sd-mecha     sd_mecha 1.1.8, linear.py: everything cast to fp32 first; torch.lerp; addcmul; -; *.

torch.lerp is A + w (B - A) below w = 0.5, B - (1 - w)(B - A) from there, with one fused multiply-add where
the build has one; engines "/fused" and "/unfused" are the two. The same holds for addcmul.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from parentage.manifest.checkpoint_steps import CheckpointMerge
from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches, ratio
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES, STORED, TINY, UNIT, fma, fp32, round_once
from parentage.verify.values import Scratch, Source

_VARIANTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "webui": {},
    "supermerger": {
        "weighted_sum": ("supermerger/fused", "supermerger/unfused", "supermerger/plain"),
        "add": ("supermerger/plain", "supermerger/fp32"),
    },
    "sd-mecha": {
        "weighted_sum": ("sd-mecha/fused", "sd-mecha/unfused"),
        "add": ("sd-mecha/fused", "sd-mecha/unfused"),
    },
}
#: Floats, and the integers that checkpoints hold (step counters, position ids).
_MERGED: Final = FLOAT_DTYPES | {"I64", "I32"}


class CheckpointMergeMethod:
    """A bound checkpoint_merge/v1."""

    proven_bound = True

    def __init__(self, step: CheckpointMerge, inputs: Mapping[str, Source]) -> None:
        self._profile = step.arithmetic.profile
        check_profile(step.id, self._profile, _VARIANTS)
        self._step, self._params = step, step.params
        self._sources = [inputs[name] for name in step.inputs]
        self.variants = _VARIANTS[self._profile].get(step.params.function, (self._profile,))
        self.deterministic = len(self.variants) == 1
        first = self._sources[0].specs
        self.specs: dict[str, TensorSpec] = {name: self._spec(name) for name in first}
        if self._params.join:
            self.specs |= {
                name: spec
                for name, spec in self._sources[1].specs.items()
                if name not in first and self._chosen(name)
            }

    def _chosen(self, name: str) -> bool:
        params = self._params
        return matches(name, params.include) and not matches(name, params.exclude)

    def _computed(self, name: str) -> bool:
        """Say whether the function changes a tensor of A."""
        if not self._chosen(name) or self._params.function == "keep":
            return False
        return self._params.function == "difference" or all(name in s.specs for s in self._sources)

    def _second(self, name: str) -> TensorSpec | None:
        return self._sources[1].specs.get(name) if len(self._sources) > 1 else None

    def alpha(self, name: str) -> float:
        """Return a tensor's alpha."""
        others = (o.alpha for o in self._params.overrides if matches(name, o.tensors))
        return float(ratio(next(others, self._params.alpha)))

    def _spec(self, name: str) -> TensorSpec:
        own, other = self._sources[0].specs[name], self._second(name)
        if self._computed(name) and other is not None and other.shape != own.shape:
            raise ShapeMismatchError(
                "checkpoints have other shapes (inpainting and instruct merges are not recomputed)",
                where=f"step {self._step.id}: {name}",
                expected=str(list(own.shape)),
                found=str(list(other.shape)),
            )
        dtype = own.dtype
        if self._profile == "sd-mecha":
            dtype = self._step.arithmetic.store or "F32"
        elif self._computed(name) and other is not None:
            dtype = self._result(name, own.dtype, other.dtype)
        halves = self._computed(name) or (self._params.function == "keep" and self._chosen(name))
        if self._params.half and halves and dtype in self._halved():
            dtype = "F16"
        return TensorSpec(name, dtype, own.shape)

    def _halved(self) -> frozenset[str]:
        return frozenset({"F32"}) if self._profile == "webui" else frozenset({"F64", "F32", "BF16"})

    def _result(self, name: str, own: str, other: str) -> str:
        """Return the dtype of a computed tensor before it is halved."""
        function, alpha = self._params.function, self.alpha(name)
        if not {own, other} <= _MERGED:
            where = f"step {self._step.id}: {name}"
            raise ShapeMismatchError(
                "dtype that is not merged", where=where, found=f"{own}, {other}"
            )
        if self._profile == "supermerger" and function != "add":
            # "/plain" promotes; A and B of two dtypes are rare, and A's is what the other engines give.
            return other if function == "weighted_sum" and alpha == 1 else own
        promoted = torch.promote_types(_torch(own), _torch(other))
        if function != "difference" and not promoted.is_floating_point:
            promoted = torch.float32
        return next(key for key, value in STORED.items() if value == promoted)

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the elements in their stored dtype."""
        store = _torch(self.specs[name].dtype)
        if name not in self._sources[0].specs:
            return self._sources[1].read(name, start, stop, scratch)
        first = self._sources[0].read(name, start, stop, scratch)
        if not self._computed(name):
            return first.to(store)
        if self._second(name) is None and self._params.function == "difference":
            return torch.zeros_like(first).to(store)
        second = (
            self._sources[1].read(name, start, stop, scratch) if len(self._sources) > 1 else first
        )
        out = self._merged(first, second, self.alpha(name), variant)
        if self._profile == "supermerger" and self._params.function != "keep":
            out = out.to(_torch(self._result(name, *self._dtypes(name))))
        return out.to(store)

    def _dtypes(self, name: str) -> tuple[str, str]:
        own, other = self._sources[0].specs[name], self._second(name)
        return own.dtype, (other or own).dtype

    def _merged(self, a: Tensor, b: Tensor, alpha: float, variant: str) -> Tensor:
        function = self._params.function
        if self._profile == "sd-mecha":
            return _mecha(function, a.to(torch.float32), b.to(torch.float32), alpha, variant)
        if self._profile == "supermerger":
            if function == "weighted_sum" and alpha in {0.0, 1.0}:
                return b if alpha else a
            if not variant.endswith("/plain"):
                a, b = a.to(torch.float32), b.to(torch.float32)
            if variant.endswith("fused"):
                return _lerp(a, b, fp32(alpha), variant)
        if function == "difference":
            return a - b
        if function == "scale":
            return a * alpha
        return a + (b * alpha) if function == "add" else (a * (1 - alpha)) + (b * alpha)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return what fp32 can give in any order: at most 4 roundings of terms no larger than 2 (|A| + |B|)."""
        store = self.specs[name].dtype
        if not variant.endswith("fused") or not self._computed(name) or store not in FLOAT_DTYPES:
            return None
        a, b = (s.read(name, start, stop, scratch).to(torch.float64) for s in self._sources)
        alpha = self.alpha(name)
        add = self._params.function == "add"
        exact = a + b * alpha if add else a * (1 - alpha) + b * alpha
        steps = 5 * UNIT["F32"]
        size = (a.abs() + b.abs()).mul_(2 * max(1.0, abs(alpha)))
        error = size.mul_(steps / (1 - steps)).add_(5 * TINY["F32"])
        low, high = (round_once(exact + side, "F32").to(torch.float64) for side in (-error, error))
        if self._profile == "supermerger":
            own = self._result(name, *self._dtypes(name))
            low, high = (round_once(side, own).to(torch.float64) for side in (low, high))
        return round_once(low, store), round_once(high, store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return where a tensor is copied from unchanged."""
        if name not in self._sources[0].specs:
            return self._sources[1].alias(name)
        same = self.specs[name].dtype == self._sources[0].specs[name].dtype
        return None if self._computed(name) or not same else self._sources[0].alias(name)


def _torch(dtype: str) -> torch.dtype:
    return DTYPES[dtype] if dtype in DTYPES else STORED[dtype]


def _mecha(function: str, a: Tensor, b: Tensor, alpha: float, variant: str) -> Tensor:
    """Return sd-mecha's result on fp32: alphas 0 and 1 choose, and are not computed with."""
    if function == "difference":
        return a - b
    if not alpha:
        return torch.zeros_like(a) if function == "scale" else a
    if function == "add":
        return _axpy(a, b, fp32(alpha), variant)
    if alpha == 1:
        return a if function == "scale" else b
    return a * fp32(alpha) if function == "scale" else _lerp(a, b, fp32(alpha), variant)


def _axpy(total: Tensor, values: Tensor, factor: float, variant: str) -> Tensor:
    if variant.endswith("unfused"):
        return total + values * factor
    return fma(total.clone(), values, factor)


def _lerp(a: Tensor, b: Tensor, weight: float, variant: str) -> Tensor:
    near = abs(weight) < 0.5
    factor = weight if near else fp32(weight - 1.0)
    return _axpy(a if near else b, b - a, factor, variant)


def checkpoint_merge(step: CheckpointMerge, inputs: Mapping[str, Source]) -> CheckpointMergeMethod:
    """Bind checkpoint_merge/v1."""
    return CheckpointMergeMethod(step, inputs)
