"""Rung B: scalars that make a tensor recompute exactly, found by search and held to float64.

Norms, products and quotients of whole tensors depend on threads, kernels and devices, and everything
else of a merge does not. So the scalar is searched for, never the tolerance widened: a value near
float64's that gives every element its bits. The search looks at samples of the tensor, each coordinate
by itself, in steps of 2^k ulps, and takes elements that still differ into the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Final

import torch
from torch import Tensor

from parentage.verify.methods.base import Scalars
from parentage.verify.rounding import DTYPES, UNIT, bits
from parentage.verify.verdict import Scalar

#: How far a scalar may be from float64 (measured up to 4e-3 on CPU; research: one norm at 3.9e-3).
BOX: Final = 1e-2
#: A deviation that no sum of fewer than 2^24 fp32 numbers should have.
NOTABLE: Final = 1e-5
_ROUNDS: Final = 12
_SWEEPS: Final = 6
#: Combinations that are all tried: narrow dtypes have few numbers within a bound.
_GRID: Final = 3000
#: The last rounding makes the loss jagged: what lies near its minimum is tried number by number.
_WINDOW: Final = [*range(1, 65), *range(128, 4097, 64)]

Loss = Callable[[Scalars], float]


def limit(value: float, dtype: str, box: float = BOX) -> float:
    """Return how far a scalar may be from `value`: the box, or three ulps of a narrow dtype."""
    return max(box * abs(value), 6 * UNIT[dtype] * abs(value))


def deviations(scalars: Scalars, exact: Scalars) -> dict[str, Scalar]:
    """Return scalars as a report shows them."""
    return {
        key: Scalar(
            value=value.hex(),
            deviation=abs(value - exact[key]) / abs(exact[key]) if exact[key] else abs(value),
        )
        for key, value in scalars.items()
    }


def within(scalars: Mapping[str, float], exact: Scalars, dtype: str) -> bool:
    """Say whether published scalars are those of the method, each within its bound."""
    return set(scalars) <= set(exact) and all(
        math.isfinite(value) and abs(value - exact[key]) <= limit(exact[key], dtype)
        for key, value in scalars.items()
    )


class Budget:
    """A loss that may be asked so often; what a search does not find in time stays unproven."""

    def __init__(self, loss: Loss, asks: int = 4000) -> None:
        self._loss, self.left = loss, asks

    def __call__(self, scalars: Scalars) -> float:
        """Return the loss, or infinity where no ask is left."""
        self.left -= 1
        return self._loss(scalars) if self.left >= 0 else math.inf


def descend(start: Scalars, exact: Scalars, dtype: str, loss: Loss, box: float = BOX) -> Scalars:
    """Search near `start` for the scalars of least loss, one coordinate at a time; 0 ends it."""
    best, least = dict(start), loss(start)
    if least == 0:
        return best
    if math.prod(_many(value, dtype, box) for value in exact.values()) <= _GRID:
        near = {key: _near(value, dtype, box) for key, value in exact.items()}
        grid = (dict(zip(near, values, strict=True)) for values in product(*near.values()))
        return min(grid, key=loss)
    asked = loss if isinstance(loss, Budget) else Budget(loss)
    for _ in range(_SWEEPS):
        before = least
        for key in best:
            if least == 0 or asked.left <= 0:
                return best
            best, least = _along(key, best, least, exact, dtype, asked, box)
        if least == before:
            break
    return best


def _many(value: float, dtype: str, box: float) -> int:
    """Return about how many numbers of a dtype are within the bound."""
    ulp = UNIT[dtype] * abs(value)
    return 1 + 2 * int(limit(value, dtype, box) / ulp) if ulp else 1


def _near(value: float, dtype: str, box: float) -> list[float]:
    """Return the numbers of a dtype within the bound, the nearest first."""
    found = [value]
    for steps in range(1, _GRID + 1):
        beside = [nudged(value, sign * steps, dtype) for sign in (1, -1)]
        beside = [v for v in beside if abs(v - value) <= limit(value, dtype, box)]
        if not beside:
            break
        found += beside
    return found


def _along(
    key: str, best: Scalars, least: float, exact: Scalars, dtype: str, loss: Loss, box: float
) -> tuple[Scalars, float]:
    def attempt(steps: int) -> bool:
        nonlocal best, least
        value = nudged(best[key], steps, dtype)
        if not abs(value - exact[key]) <= limit(exact[key], dtype, box):
            return False
        candidate = best | {key: value}
        found = loss(candidate)
        if found < least:
            best, least = candidate, found
            return True
        return False

    reach = 1
    while abs(nudged(exact[key], reach, dtype) - exact[key]) <= limit(exact[key], dtype, box):
        reach *= 2
        if reach > 1 << 40:
            break
    step = reach
    while step >= 1 and least > 0:
        if not any([attempt(step), attempt(-step)]):
            step //= 2
    for steps in _WINDOW:
        if least == 0:
            break
        attempt(steps)
        attempt(-steps)
    return best, least


def nudged(value: float, steps: int, dtype: str) -> float:
    """Return the number that is `steps` numbers of a dtype away from `value`, away from zero if > 0."""
    held = torch.tensor([value], dtype=DTYPES[dtype])
    pattern = bits(held)
    magnitude = int(pattern[0]) & ((1 << (8 * held.element_size() - 1)) - 1)
    top = (1 << (8 * held.element_size() - 1)) - 1
    pattern.fill_(min(max(magnitude + steps, 0), top))
    return math.copysign(float(held[0]), value)


class Sample:
    """Ranges of a tensor that candidates are tried on; it grows where they fail."""

    def __init__(self, elements: int, length: int = 2048, count: int = 8) -> None:
        self._elements, self._length = elements, length
        stride = max(elements // count, 1)
        self.ranges = {self._at(start) for start in range(0, elements, stride)}

    def _at(self, index: int) -> tuple[int, int]:
        start = index // self._length * self._length
        return start, min(start + self._length, self._elements)

    def add(self, indices: list[int]) -> None:
        """Take the surroundings of elements in."""
        self.ranges |= {self._at(index) for index in indices[:64]}

    def covers(self, indices: list[int]) -> bool:
        """Say whether all of these are looked at already."""
        return {self._at(index) for index in indices[:64]} <= self.ranges


def distance(expected: Tensor, found: Tensor) -> float:
    """Return the sum of differences, 0 only where all bits are equal."""
    differs = bits(expected) != bits(found)
    if not bool(differs.any()):
        return 0.0
    gap = (expected[differs].double() - found[differs].double()).abs()
    return float(gap.nan_to_num(nan=1.0, posinf=1.0).sum()) + 1e-30 * int(differs.sum())
