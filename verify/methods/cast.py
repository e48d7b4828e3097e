"""cast/v1: float tensors rounded to another dtype, to nearest, ties to even.

torch         through fp32, as `Tensor.to` does: float64 is rounded twice, an FP8 NaN keeps its sign.
              Beyond the largest FP8 number as `overflow` says.
all others    once, from the exact value.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from parentage.manifest.quantise_steps import Cast
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.verify.fp8 import FP8, round_fp8, widen
from parentage.verify.methods.base import Interval
from parentage.verify.rounding import DTYPES, round_once
from parentage.verify.values import Scratch, Source


class CastMethod:
    """A bound cast/v1; all profiles but `torch` give the same bits."""

    proven_bound = True
    deterministic = True

    def __init__(self, step: Cast, inputs: Mapping[str, Source]) -> None:
        self._source = inputs[step.inputs[0]]
        self._store = step.arithmetic.store or "F32"
        self._saturate = step.params.overflow == "saturate"
        self.variants = (f"{step.arithmetic.profile}/cast",)
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._dtype(step, spec), spec.shape)
            for name, spec in self._source.specs.items()
        }

    def _dtype(self, step: Cast, spec: TensorSpec) -> str:
        is_float = spec.dtype in FLOAT_DTYPES or spec.dtype in FP8
        return self._store if is_float and step.params.chooses(spec.name) else spec.dtype

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the rounded elements."""
        values = self._source.read(name, start, stop, scratch)
        store, own = self.specs[name].dtype, self._source.specs[name].dtype
        if store == own:
            return values
        if own in FP8:
            values = widen(values, own)
        if variant == "torch/cast":
            return self._torch(values.to(torch.float32), store)
        exact = values.to(torch.float64)
        if store in FP8:
            return round_fp8(exact, store, saturate=self._saturate)
        return round_once(exact, store)

    def _torch(self, values: Tensor, store: str) -> Tensor:
        if store not in FP8:
            return values.to(DTYPES[store])
        exact = values.to(torch.float64)
        return round_fp8(exact, store, saturate=self._saturate, signed=True)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a rounding has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the input where the dtype stays."""
        if self.specs[name].dtype == self._source.specs[name].dtype:
            return self._source.alias(name)
        return None


def cast(step: Cast, inputs: Mapping[str, Source]) -> CastMethod:
    """Bind cast/v1."""
    return CastMethod(step, inputs)
