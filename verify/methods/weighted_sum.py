"""weighted_sum/v1: linear merge, soup, add-difference and task arithmetic.

parentage-1   y = RN_store(c_1 x_1 + c_2 x_2 + ...): coefficients c_i by exact rational arithmetic,
              rounded to float64; each product and each sum rounded to float64 (never fused), in
              input order; one rounding to the stored dtype.
mk-0.1.5      linear: acc = fma(x_i, w_i, acc) in fp32 from 0, in input order; acc / sum(w); rounded
              to `compute`, then to `store` (merge_methods/linear.py). "unfused" where the build has
              no FMA: acc + RN(x_i w_i).
mk-0.1.4      linear: RN(w_i x_i) in `compute`, summed in fp32, rounded, divided, rounded.
both mk       task arithmetic: RN(x_i - b), RN(. w_i), sum in fp32, rounded, divided by the weights'
              sum if normalised, times lambda unless 1, RN(b + .), each in `compute`
              (merge_methods/generalized_task_arithmetic.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec
import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.merge_steps import WeightedSum
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches, ratio
from parentage.verify import kernels
from parentage.verify.methods.base import Interval, check_profile, same_tensors, same_values
from parentage.verify.rounding import DTYPES, TINY, UNIT, dot64, fma, fp32, round_once, rounded
from parentage.verify.values import Scratch, Source

_VARIANTS = {
    "parentage-1": ("parentage-1",),
    "mk-0.1.5": ("mk-0.1.5/fma", "mk-0.1.5/unfused"),
    "mk-0.1.4": ("mk-0.1.4",),
}


class _Plan(msgspec.Struct, frozen=True):
    """What mergekit's arithmetic takes of a step for one tensor.

    Attributes:
        compute: its dtype.
        weights: rounded to it for task vectors, exact for a linear merge.
        numbers: the same as tensors of no dimension, in fp32 (fp64).
        divisor, scale: likewise, where they change anything.
    """

    compute: str
    weights: list[float]
    numbers: list[Tensor]
    divisor: list[Tensor]
    scale: list[Tensor]


class WeightedSumMethod:
    """A bound weighted_sum/v1."""

    def __init__(self, step: WeightedSum, inputs: Mapping[str, Source]) -> None:
        arithmetic = step.arithmetic
        check_profile(step.id, step.arithmetic.profile, _VARIANTS)
        self._step = step
        self._where = f"step {step.id}"
        self._sources = [inputs[name] for name in step.inputs]
        self._inputs = same_tensors(self._where, {name: inputs[name] for name in step.inputs})
        self.variants = _VARIANTS[arithmetic.profile]
        self._plans: dict[str, _Plan] = {}
        if step.params.base is not None:
            self.variants = (arithmetic.profile,)
        # mk-0.1.4 and task arithmetic round after every operation, each its own kernel: no freedom
        # but the order of a sum of three or more, and a bound too wide in bf16 to confirm anything.
        self._narrow = step.params.base is not None or arithmetic.profile == "mk-0.1.4"
        self.proven_bound = not self._narrow
        self.deterministic = arithmetic.profile == "parentage-1" or (
            self._narrow and len(step.params.weights) <= 2
        )
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._inputs.items()
        }

    def _compute(self, name: str) -> str:
        """Return the dtype of mergekit's arithmetic: `dtype`, else what the inputs promote to."""
        declared = self._step.arithmetic.compute
        if declared is not None:
            return declared
        promoted = DTYPES[self._sources[0].specs[name].dtype]
        for source in self._sources[1:]:
            promoted = torch.promote_types(promoted, DTYPES[source.specs[name].dtype])
        return next(key for key, value in DTYPES.items() if value == promoted)

    def _store(self, spec: TensorSpec) -> str:
        if spec.dtype not in FLOAT_DTYPES:
            return spec.dtype
        arithmetic = self._step.arithmetic
        if arithmetic.store is not None:
            return arithmetic.store
        return spec.dtype if arithmetic.profile == "parentage-1" else self._compute(spec.name)

    def weights(self, name: str) -> list[Fraction]:
        """Return the exact weights of a tensor, one for each input that is not the base."""
        params = self._step.params
        for override in params.overrides:
            if matches(name, override.tensors):
                return [ratio(text) for text in override.weights]
        return [ratio(text) for text in params.weights]

    def coefficients(self, name: str) -> list[Fraction]:
        """Return c_i with y = sum(c_i x_i) over all inputs, exactly."""
        params = self._step.params
        weights = self.weights(name)
        total = sum(weights, Fraction(0))
        if params.normalize:
            weights = [weight / total for weight in weights]
        if params.base is None:
            return weights
        scaled = [ratio(params.scale) * weight for weight in weights]
        at = self._step.inputs.index(params.base)
        return [*scaled[:at], 1 - sum(scaled, Fraction(0)), *scaled[at:]]

    def _parts(self, name: str, start: int, stop: int, scratch: Scratch) -> list[Tensor]:
        return [source.read(name, start, stop, scratch) for source in self._sources]

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the merged elements under one engine."""
        parts = self._parts(name, start, stop, scratch)
        if self.specs[name].dtype not in FLOAT_DTYPES:
            return same_values(self._where, name, parts)
        store = self.specs[name].dtype
        if variant == "parentage-1":
            return round_once(dot64(parts, [float(c) for c in self.coefficients(name)]), store)
        plan = self._plan(name)
        compute = DTYPES[plan.compute]
        parts = [part.to(compute) for part in parts]
        if self._step.params.base is not None:
            out = self._delta(parts, plan, scratch)
        elif variant == "mk-0.1.4":
            normalize = self._step.params.normalize
            out = _linear_014(parts, plan.weights, plan.compute, normalize=normalize)
        else:
            out = _linear_015(parts, plan, scratch, fused=variant.endswith("/fma"))
        return out.to(compute).to(DTYPES[store])

    def known(
        self, name: str, start: int, stop: int, variant: str, found: Tensor, scratch: Scratch
    ) -> int:
        """Return how many elements of `found`, from the first, are known to be the merge."""
        dtypes = {source.specs[name].dtype for source in self._sources}
        if variant == "parentage-1" or dtypes | {self.specs[name].dtype} != {"BF16"}:
            return 0
        plan, delta = self._plan(name), self._step.params.base is not None
        if plan.compute != "BF16" or not (delta or variant.endswith("/fma")):
            return 0
        if not kernels.can_compare(found):
            return 0
        parts = self._parts(name, start, stop, scratch)
        if delta:
            return kernels.known(kernels.task_vectors, found, *self._task_vectors(parts, plan))
        return kernels.known(kernels.linear, found, parts, plan.weights, plan.divisor)

    def _plan(self, name: str) -> _Plan:
        found = self._plans.get(name)
        if found is None:
            found = self._plans[name] = self._planned(name)
        return found

    def _planned(self, name: str) -> _Plan:
        params, compute = self._step.params, self._compute(name)
        weights = [float(weight) for weight in self.weights(name)]
        wide = torch.float64 if compute == "F64" else torch.float32
        divisor, scale = 1.0, 1.0
        if params.base is not None:
            weights = [rounded(weight, compute) for weight in weights]
            scale = float(ratio(params.scale))
        if params.normalize:
            held = torch.tensor(weights, dtype=DTYPES[compute] if params.base else wide)
            divisor = float(held.sum(dim=0))
            if params.base is not None and abs(divisor) < 1e-8:
                divisor = 1.0
        return _Plan(
            compute,
            weights,
            [torch.tensor(weight, dtype=wide) for weight in weights],
            # x / 1 is x: the commonest ratios sum to exactly 1.
            [torch.tensor(n, dtype=wide) for n in (divisor,) if n != 1.0],
            [torch.tensor(n, dtype=wide) for n in (scale,) if n != 1.0],
        )

    def _delta(self, parts: Sequence[Tensor], plan: _Plan, scratch: Scratch) -> Tensor:
        given = self._task_vectors(parts, plan)
        base = parts[0]
        out = scratch.tensor(base.numel(), base.dtype)
        run = kernels.compiled(kernels.task_vectors, base.device)
        return run(*given, out, kernels.block_of(base.device))

    def _task_vectors(
        self, parts: Sequence[Tensor], plan: _Plan
    ) -> tuple[Tensor, list[Tensor], float, list[Tensor], list[Tensor], list[Tensor]]:
        """Return what the kernel of task vectors is given."""
        at = self._step.inputs.index(self._step.params.base or "")
        others = [*parts[:at], *parts[at + 1 :]]
        if not others:
            raise RecipeError("no task vector", where=self._where)
        return parts[at], others, plan.weights[0], plan.numbers, plan.divisor, plan.scale

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return rung C's interval: the exact result +- a bound on any fp32-class evaluation.

        Each term passes at most k + 5 roundings of unit u (weight, product, k sums, division,
        rounding to `compute`), so |error| <= gamma sum|terms|, gamma = (k+5)u / (1 - (k+5)u)
        (Higham, Accuracy and Stability, lemma 3.1); underflow adds k + 5 tiny numbers.
        """
        store = self.specs[name].dtype
        if self.deterministic or store not in FLOAT_DTYPES:
            return None
        parts = [part.to(torch.float64) for part in self._parts(name, start, stop, scratch)]
        coefficients = self.coefficients(name)
        exact = dot64(parts, [float(c) for c in coefficients])
        compute = self._compute(name)
        delta = self._step.params.base is not None
        narrow = self._narrow
        unit = UNIT[compute] if narrow else UNIT["F32" if compute != "F64" else "F64"]
        steps = (len(parts) + 5) * unit
        gamma = steps / (1 - steps)
        size = torch.zeros_like(exact)
        for part, coefficient in zip(parts, coefficients, strict=True):
            # A task vector's roundings are relative to |x_i| + |b|, not to their difference.
            size.add_(part.abs(), alpha=(2.0 if delta else 1.0) * abs(float(coefficient)))
        if delta:
            size.add_(parts[self._step.inputs.index(self._step.params.base or "")].abs(), alpha=2.0)
        error = size.mul_(gamma).add_((len(parts) + 5) * TINY[compute if narrow else "F32"])
        low, high = exact - error, exact + error
        if narrow or compute != "F64":
            low, high = _through(low, compute), _through(high, compute)
        return round_once(low, store), round_once(high, store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return None: a merge is computed."""
        return None


def _through(values: Tensor, dtype: str) -> Tensor:
    return round_once(values, dtype).to(torch.float64)


def _linear_015(parts: Sequence[Tensor], plan: _Plan, scratch: Scratch, *, fused: bool) -> Tensor:
    first = parts[0]
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    if fused and wide == torch.float32 and first.device.type == "cpu" and kernels.add_is_fused():
        out = scratch.tensor(first.numel(), first.dtype)
        run = kernels.compiled(kernels.linear, first.device)
        return run(list(parts), plan.weights, plan.divisor, out, kernels.block_of(first.device))
    total = scratch.tensor(first.numel(), wide).zero_()
    for part, weight in zip(parts, plan.weights, strict=True):
        values = part.to(wide)
        if wide == torch.float64:
            factor = torch.tensor(weight, dtype=wide, device=first.device)
            total = torch.addcmul(total, values, factor)
        elif fused:
            total = fma(total, values, fp32(weight))
        else:
            total.add_(values.mul(fp32(weight)))
    for divisor in plan.divisor:
        total.div_(divisor.reshape(1).to(total.device))
    return total


def _linear_014(
    parts: Sequence[Tensor], weights: list[float], compute: str, *, normalize: bool
) -> Tensor:
    work = [rounded(weight, compute) for weight in weights]
    total: Tensor | None = None
    for part, weight in zip(parts, work, strict=True):
        product = part.mul(weight)
        wide = product if product.dtype == torch.float64 else product.to(torch.float32)
        total = wide if total is None else total.add_(wide)
    if total is None:
        raise RecipeError("linear merge of nothing")
    out = total.to(DTYPES[compute])
    if normalize:
        divisor = torch.tensor(work, dtype=DTYPES[compute]).sum(dim=0)
        out = out.div(float(divisor))
    return out


def weighted_sum(step: WeightedSum, inputs: Mapping[str, Source]) -> WeightedSumMethod:
    """Bind weighted_sum/v1."""
    return WeightedSumMethod(step, inputs)
