"""running_mean/v1: checkpoints averaged one after another (SWA), or exponentially.

parentage-1   the mean: y = RN_store((x_1 + x_2 + ...) / n), float64, in order. With a decay d: y = RN_store(c_1 x_1 +
              c_2 x_2 + ...) as in weighted_sum/v1, c_1 = d^(n-1) and c_i = (1 - d) d^(n-i), exact before
              their one rounding to float64.
torch-swa     torch.optim.swa_utils.AveragedModel in the dtype that the average is kept in (`compute`):
              "/lerp" avg + w (x - avg), or x - (1 - w) (x - avg) where w >= 0.5, in fp32 and rounded;
              fused where the CPU has FMA ("/lerp-fma"); w = 1 / (n + 1) in fp32, or 1 - decay.
              "/step" avg + (x - avg) / (n + 1), or decay avg + (1 - decay) x, every operation rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from parentage.manifest.edit_steps import RunningMean
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import ratio
from parentage.verify.methods.base import Interval, Scalars
from parentage.verify.methods.merging import Merging, Span
from parentage.verify.rounding import TINY, UNIT, dot64, fma, fp32, round_once
from parentage.verify.values import Scratch, Source


class RunningMeanMethod(Merging[RunningMean, None]):
    """A bound running_mean/v1."""

    profiles: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "parentage-1": ("parentage-1",),
        "torch-swa": ("torch-swa/lerp-fma", "torch-swa/lerp", "torch-swa/step"),
    }

    def compute(self, name: str) -> str:
        """Return the dtype that the average is kept in: that of the first checkpoint."""
        return self.step.arithmetic.compute or self.sources[0].specs[name].dtype

    def coefficients(self) -> list[Fraction]:
        """Return c_i with y = sum(c_i x_i), exactly."""
        count = len(self.sources)
        if self.step.params.decay is None:
            return [Fraction(1, count)] * count
        decay = ratio(self.step.params.decay)
        later = [(1 - decay) * decay ** (count - 1 - at) for at in range(1, count)]
        return [decay ** (count - 1), *later]

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Average the parts in order."""
        if variant == "parentage-1" and self.step.params.decay is None:
            # One division keeps exact halves exact; a rounded 1 / n would break the tie either way.
            return dot64(parts, [1.0] * len(parts)).div_(len(parts))
        if variant == "parentage-1":
            return dot64(parts, [float(c) for c in self.coefficients()])
        text = self.step.params.decay
        decay = None if text is None else float(ratio(text))
        total = parts[0].clone()
        for count, part in enumerate(parts[1:], 1):
            if variant == "torch-swa/step":
                if decay is None:
                    # A tensor: by a number on the host, a GPU multiplies with the reciprocal.
                    number = torch.tensor(count + 1, device=total.device)
                    total = total + (part - total) / number
                else:
                    total = decay * total + (1 - decay) * part
            else:
                weight = fp32(1 / fp32(count + 1)) if decay is None else 1 - decay
                total = _lerp(total, part, weight, _fused if variant.endswith("fma") else _unfused)
        return total

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return what can refute: each of n updates rounds a few times what is at most the largest.

        An update is off by at most 8 u M, M the largest |x_i| (differences reach 2 M), and what was off
        before does not grow. Too wide to confirm: another order of operations is another program.
        """
        store = self.specs[name].dtype
        if self.deterministic or store not in FLOAT_DTYPES:
            return None
        parts = [s.read(name, start, stop, scratch).to(torch.float64) for s in self.sources]
        exact = dot64(parts, [float(c) for c in self.coefficients()])
        unit = max(UNIT[self.compute(name)], UNIT["F64"])
        largest = torch.stack([part.abs() for part in parts]).amax(dim=0)
        error = largest.mul_(8 * unit * (len(parts) + 1)).add_(8 * len(parts) * TINY["F16"])
        return round_once(exact - error, store), round_once(exact + error, store)


def _lerp(
    total: Tensor,
    part: Tensor,
    weight: float,
    multiply_add: Callable[[Tensor, Tensor, float], Tensor],
) -> Tensor:
    """Return torch.lerp(total, part, weight): in fp32, or in float64 where that is the dtype."""
    wide = total.dtype if total.dtype == torch.float64 else torch.float32
    start, end = total.to(wide), part.to(wide)
    held = weight if wide == torch.float64 else fp32(weight)
    if abs(held) < 0.5:
        return multiply_add(start.clone(), end - start, held).to(total.dtype)
    rest = held - 1 if wide == torch.float64 else fp32(held - 1)
    return multiply_add(end.clone(), end - start, rest).to(total.dtype)


def _fused(total: Tensor, values: Tensor, factor: float) -> Tensor:
    if total.dtype == torch.float64:
        return total.addcmul_(
            values, torch.tensor(factor, dtype=torch.float64, device=total.device)
        )
    return fma(total, values, factor)


def _unfused(total: Tensor, values: Tensor, factor: float) -> Tensor:
    return total + values * factor


def running_mean(step: RunningMean, inputs: Mapping[str, Source]) -> RunningMeanMethod:
    """Bind running_mean/v1."""
    return RunningMeanMethod(step, inputs)
