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

import msgspec
import torch
from torch import Tensor

from parentage.verify.methods.base import Scalars
from parentage.verify.rounding import DTYPES, UNIT, bits
from parentage.verify.verdict import Scalar

#: How far a scalar may be from float64 (measured up to 4e-3 on CPU; research: one norm at 3.9e-3).
BOX: Final = 1e-2
#: A deviation that no sum of fewer than 2^24 fp32 numbers should have.
NOTABLE: Final = 1e-5
#: Elements of the largest tensor that is held in memory for torch's own reductions, and the numbers
#: of threads that they are tried with (a sum's bits depend on how it is cut).
REPLAYED: Final = 1 << 24
THREADS: Final = (1, 2, 4, 8, 16, 32)
_SWEEPS: Final = 6
#: Combinations that are all tried: narrow dtypes have few numbers within a bound.
_GRID: Final = 3000
#: The last rounding makes the loss jagged: what lies near its minimum is tried number by number.
_WINDOW: Final = [*range(1, 65), *range(128, 4097, 64)]

Loss = Callable[[Scalars], float]


class Bounds(msgspec.Struct, frozen=True):
    """How far each scalar of a tensor may be from float64.

    Attributes:
        exact: the scalars from float64.
        dtype: that the engine holds them in.
        noise: absolute bounds of those that cancel to nothing, by name without number.
        box: relative bound of all.
    """

    exact: Scalars
    dtype: str
    noise: Mapping[str, float] = {}
    box: float = BOX

    def limit(self, key: str) -> float:
        """Return the bound of a scalar: the box, three ulps of a narrow dtype, or its noise."""
        value = abs(self.exact[key])
        return max(self.box * value, 6 * UNIT[self.dtype] * value, self._noise(key))

    def _noise(self, key: str) -> float:
        return self.noise.get(key.partition(".")[0], 0.0)

    def within(self, key: str, value: float) -> bool:
        """Say whether a value is within its bound."""
        return math.isfinite(value) and abs(value - self.exact[key]) <= self.limit(key)

    def deviations(self, scalars: Scalars) -> dict[str, Scalar]:
        """Return scalars as a report shows them: how far each is, relative to its size or its noise."""
        found = {}
        for key, value in scalars.items():
            size = max(abs(self.exact[key]), self._noise(key) / self.box) or 1.0
            found[key] = Scalar(value=value.hex(), deviation=abs(value - self.exact[key]) / size)
        return found

    def many(self, key: str) -> int:
        """Return about how many numbers of the dtype are within the bound."""
        ulp = UNIT[self.dtype] * abs(self.exact[key])
        return 1 + 2 * int(self.limit(key) / ulp) if ulp else 1

    def near(self, key: str) -> list[float]:
        """Return the numbers of the dtype within the bound, the nearest first."""
        value = self.exact[key]
        found = [value]
        for steps in range(1, _GRID + 1):
            beside = [nudged(value, sign * steps, self.dtype) for sign in (1, -1)]
            beside = [v for v in beside if self.within(key, v)]
            if not beside:
                break
            found += beside
        return found


def within(scalars: Mapping[str, float], bounds: Bounds) -> bool:
    """Say whether scalars are some of those of the method, each within its bound."""
    return bool(scalars) and all(
        key in bounds.exact and bounds.within(key, value) for key, value in scalars.items()
    )


class Budget:
    """A loss that may be asked so often; what a search does not find in time stays unproven."""

    def __init__(self, loss: Loss, asks: int = 4000) -> None:
        self._loss, self.left = loss, asks

    def __call__(self, scalars: Scalars) -> float:
        """Return the loss, or infinity where no ask is left."""
        self.left -= 1
        return self._loss(scalars) if self.left >= 0 else math.inf


def descend(start: Scalars, bounds: Bounds, loss: Budget) -> Scalars:
    """Search near `start` for the scalars of least loss, one coordinate at a time; 0 ends it."""
    best, least = dict(start), loss(start)
    if least == 0:
        return best
    if math.prod(map(bounds.many, bounds.exact)) <= min(_GRID, loss.left):
        near = {key: bounds.near(key) for key in bounds.exact}
        grid = (dict(zip(near, values, strict=True)) for values in product(*near.values()))
        return min(grid, key=loss)
    for _ in range(_SWEEPS):
        before = least
        for key in best:
            if least == 0 or loss.left <= 0:
                return best
            best, least = _along(key, best, least, bounds, loss)
        if least == before:
            break
    return best


def _along(
    key: str, best: Scalars, least: float, bounds: Bounds, loss: Budget
) -> tuple[Scalars, float]:
    def attempt(steps: int) -> bool:
        nonlocal best, least
        value = nudged(best[key], steps, bounds.dtype)
        if not bounds.within(key, value):
            return False
        candidate = best | {key: value}
        found = loss(candidate)
        if found < least:
            best, least = candidate, found
            return True
        return False

    step = 1
    while step <= 1 << 40 and bounds.within(key, nudged(bounds.exact[key], step, bounds.dtype)):
        step *= 2
    while step >= 1 and least > 0 and loss.left > 0:
        if not any([attempt(step), attempt(-step)]):
            step //= 2
    for steps in _WINDOW:
        if least == 0 or loss.left <= 0:
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
