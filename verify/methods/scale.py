"""scale/v1: every float tensor times a factor; where the factor is 1, a copy.

parentage-1   RN_store(RN(c x)) in float64.
mk            RN(c x) in `compute` (merge_methods/passthrough.py), then `store`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from parentage.manifest.steps import Scale
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches, ratio
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES, round_once
from parentage.verify.values import Scratch, Source


class ScaleMethod:
    """A bound scale/v1."""

    proven_bound = True
    deterministic = True

    def __init__(self, step: Scale, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, ("parentage-1", "mk-0.1.5", "mk-0.1.4"))
        self._step = step
        self._source = inputs[step.inputs[0]]
        self.variants = (step.arithmetic.profile,)
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._source.specs.items()
        }

    def _store(self, spec: TensorSpec) -> str:
        arithmetic = self._step.arithmetic
        if spec.dtype not in FLOAT_DTYPES:
            return spec.dtype
        return arithmetic.store or arithmetic.compute or spec.dtype

    def factor(self, name: str) -> float:
        """Return the factor of a tensor, rounded to float64."""
        params = self._step.params
        text = next((o.factor for o in params.overrides if matches(name, o.tensors)), params.factor)
        return float(ratio(text))

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the scaled elements."""
        values = self._source.read(name, start, stop, scratch)
        own, store = self._source.specs[name].dtype, self.specs[name].dtype
        if own not in FLOAT_DTYPES:
            return values
        factor = self.factor(name)
        if variant == "parentage-1":
            if factor == 1.0 and own == store:
                return values
            return round_once(values.to(torch.float64) * factor, store)
        values = values.to(DTYPES[self._step.arithmetic.compute or own])
        return (values if factor == 1.0 else values * factor).to(DTYPES[store])

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a product has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the input where nothing is multiplied and the dtype stays."""
        same = self._source.specs[name].dtype == self.specs[name].dtype
        if self.specs[name].dtype not in FLOAT_DTYPES or (
            same
            and self.factor(name) == 1.0
            and self._step.arithmetic.compute in {None, self.specs[name].dtype}
        ):
            return self._source.alias(name)
        return None


def scale(step: Scale, inputs: Mapping[str, Source]) -> ScaleMethod:
    """Bind scale/v1."""
    return ScaleMethod(step, inputs)
