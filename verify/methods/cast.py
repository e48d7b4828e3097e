"""cast/v1: float tensors rounded to another dtype, to nearest, ties to even, once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from parentage.manifest.steps import Cast
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches
from parentage.verify.methods.base import Interval
from parentage.verify.rounding import round_once
from parentage.verify.sources import Scratch, Source


class CastMethod:
    """A bound cast/v1; every profile gives the same bits."""

    proven_bound = True
    deterministic = True

    def __init__(self, step: Cast, inputs: Mapping[str, Source]) -> None:
        self._source = inputs[step.inputs[0]]
        self._store = step.arithmetic.store or "F32"
        self.variants = (f"{step.arithmetic.profile}/cast",)
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._dtype(step, spec), spec.shape)
            for name, spec in self._source.specs.items()
        }

    def _dtype(self, step: Cast, spec: TensorSpec) -> str:
        chosen = matches(spec.name, step.params.include) and not matches(
            spec.name, step.params.exclude
        )
        return self._store if chosen and spec.dtype in FLOAT_DTYPES else spec.dtype

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the rounded elements."""
        values = self._source.read(name, start, stop, scratch)
        if self.specs[name].dtype == self._source.specs[name].dtype:
            return values
        return round_once(values.to(torch.float64), self.specs[name].dtype)

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
