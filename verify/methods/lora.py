"""lora_merge/v1: W + s B A (Hu et al. 2021; s = alpha / r, or alpha / sqrt(r) for rsLoRA).

parentage-1   the r products B[i,k] A[k,j] summed in float64 in order of k. Each product of two
              numbers of at most 24 bits is exact there, so FMA or not makes no difference;
              y = RN_store(RN(W + RN(s sum))).
peft          fp32 `(B @ A) * s`, added to W in fp32, rounded (peft/tuners/lora/layer.py, 0.21). The order
              of a BLAS product is unknown, so it is tried for rung A and bounded for rung C.
              "/fp32" as it is; "/adapter-dtype" rounds the product to the adapter's dtype first
              (adapters kept in bf16 or fp16); "/safe-merge" to W's dtype first (safe_merge=True).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from parentage.manifest.adapter_steps import LoraMerge
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.verify.methods.adapters import Adapter
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES, TINY, UNIT, round_once
from parentage.verify.values import Scratch, Source

_PROFILES: Final = ("parentage-1", "peft")


class LoraMethod:
    """A bound lora_merge/v1."""

    proven_bound = True

    def __init__(self, step: LoraMerge, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, _PROFILES)
        self._step = step
        self._adapter = Adapter(step, inputs)
        self._base, self._pairs = self._adapter.base, self._adapter.pairs
        self.deterministic = step.arithmetic.profile == "parentage-1"
        self.variants = ("parentage-1",) if self.deterministic else self._adapter.engines()
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._base.specs.items()
        }

    def _through(self, name: str, variant: str) -> str:
        """Return the dtype that an engine rounds the scaled product to."""
        if variant == "peft/adapter-dtype":
            return self._adapter.source.specs[self._pairs[name].b].dtype
        return self._base.specs[name].dtype if variant == "peft/safe-merge" else "F32"

    def _store(self, spec: TensorSpec) -> str:
        store = self._step.arithmetic.store
        return store if store and spec.name in self._pairs else spec.dtype

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the merged elements under one engine."""
        base = self._base.read(name, start, stop, scratch)
        if name not in self._pairs:
            return base
        store = self.specs[name].dtype
        if variant == "parentage-1":
            delta = self._adapter.product64(name, start, stop, scratch)
            return round_once(base.to(torch.float64).add(delta), store)
        delta = self._adapter.product32(name, start, stop, scratch)
        delta = delta.to(DTYPES[self._through(name, variant)]).to(torch.float32)
        return (base.to(torch.float32) + delta).to(DTYPES[store])

    def reads(self, name: str, start: int, stop: int) -> list[tuple[Source, str, int, int]]:
        """Return the base's elements, and both factors."""
        return self._adapter.reads(name, start, stop)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return rung C's interval: a dot product of length r in fp32, in any order."""
        store = self.specs[name].dtype
        if self.deterministic or name not in self._pairs or store not in FLOAT_DTYPES:
            return None
        rank = self._pairs[name].rank
        base = self._base.read(name, start, stop, scratch).to(torch.float64)
        delta = self._adapter.product64(name, start, stop, scratch)
        size = self._adapter.product64(name, start, stop, scratch, absolute=True)
        steps = (rank + 4) * UNIT["F32"]
        gamma = steps / (1 - steps)
        error = size.mul_(gamma).add_((rank + 4) * TINY["F32"])
        through = self._through(name, variant)
        low, high = (_rounded(delta + side, through) for side in (-error, error))
        # The last addition rounds to fp32 before it rounds to the stored dtype.
        slack = [(base.abs() + part.abs()).mul_(2 * UNIT["F32"]) for part in (low, high)]
        return round_once(base + low - slack[0], store), round_once(base + high + slack[1], store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the base's tensor where no adapter touches it."""
        return None if name in self._pairs else self._base.alias(name)


def _rounded(values: Tensor, dtype: str) -> Tensor:
    """Round to nearest: monotonic, so the ends of an interval stay its ends."""
    return round_once(values, dtype).to(torch.float64)


def lora_merge(step: LoraMerge, inputs: Mapping[str, Source]) -> LoraMethod:
    """Bind lora_merge/v1."""
    return LoraMethod(step, inputs)
