"""The cosine that a slerp was made with, read off its elements by bisection.

An element moves one way as the cosine grows, and its rounding hides where in a cell it lies: so each
element that differs says on which side the cosine is, and all together bound it from both sides. What is
left between the bounds is tried, and what fits is returned. It is a guess: what holds is decided on the whole tensor, and within the bound of float64 (rungs.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.verify.masking import compared, places
from parentage.verify.rounding import DTYPES, UNIT, bits, rounded

Pair = tuple[float, float]
"""The coefficients of the two inputs."""

#: How far to each side the direction of an element is looked at.
_BESIDE: Final = 2.0**-12
#: Elements that a first, coarse bisection looks at.
_COARSE: Final = 1 << 14
#: Numbers that are tried in the end, and how far beside the bracket: the engine's coefficients are
#: rounded to fp32, and do not quite grow with the cosine.
_CANDIDATES: Final = 256
_MARGIN: Final = 12 * 2.0**-24

#: Numbers tried to each side of a cosine that a walk ended at; the walk's first and last step.
_NEARBY: Final = 128
_FARTHEST, _NEAREST = 2.0**-12, 2.0**-24


class Sampled(msgspec.Struct):
    """Some elements of a slerp.

    Attributes:
        left, right: inputs, flat, in the dtype that the arithmetic rounds to.
        found: the release there.
        made: elements from inputs and coefficients, as the release stores them.
    """

    left: Tensor
    right: Tensor
    found: Tensor
    made: Callable[[Tensor, Tensor, Pair], Tensor]

    def differs(self, pair: Pair) -> Tensor:
        """Return which elements two coefficients do not give, as booleans."""
        return compared(torch.ne, bits(self.made(self.left, self.right, pair)), bits(self.found))

    def missed(self, pairs: Sequence[Pair]) -> list[int]:
        """Return how many elements each of some pairs of coefficients does not give."""
        wide = torch.float64 if self.left.dtype == torch.float64 else torch.float32
        by_left, by_right = torch.tensor(pairs, dtype=wide).T.unsqueeze(-1)
        got = (by_left * self.left.to(wide)).add_(by_right * self.right.to(wide))
        wrong = bits(got.to(self.left.dtype).to(self.found.dtype)) != bits(self.found)
        found: list[int] = wrong.sum(dim=1).tolist()
        return found

    def only(self, picked: Callable[[Tensor], Tensor]) -> Sampled:
        """Return some of these elements."""
        return Sampled(picked(self.left), picked(self.right), picked(self.found), self.made)


class Curve(msgspec.Struct):
    """The coefficients of a slerp as functions of its cosine.

    Attributes:
        t: where between the inputs.
        exact: those of the engine, for several cosines at a time.
        dtype: that the engine holds a cosine in.
        linear: the cosine above which it does not curve.
    """

    t: float
    exact: Callable[[Sequence[float]], Sequence[Pair]]
    dtype: str
    linear: float

    def about(self, cosine: float) -> Pair:
        """Return about the engine's coefficients, far faster."""
        if not abs(cosine) <= self.linear:
            return 1 - self.t, self.t
        theta = math.acos(cosine)
        sine = math.sin(theta)
        return math.sin((1 - self.t) * theta) / sine, math.sin(self.t * theta) / sine

    def between(self, low: float, high: float) -> float:
        """Return the number of the dtype in the middle."""
        return rounded((low + high) / 2, self.dtype)

    def ulp(self, value: float) -> float:
        """Return the distance to the next number of the dtype."""
        unit = 2 * UNIT[self.dtype]
        return unit * 2.0 ** math.floor(math.log2(abs(value))) if value else unit


def bisected(
    sampled: Sampled, curve: Curve, cosine: float, reach: float
) -> tuple[list[float], int]:
    """Return the cosines that miss fewest of some elements, one for each pair of coefficients, and how many.

    Args:
        sampled: the elements.
        curve: coefficients.
        cosine: where to look.
        reach: how far from there at most.
    """
    every = -(-sampled.found.numel() // _COARSE)
    few = sampled.only(lambda part: part[::every].contiguous())
    low, high = _bracket(few, curve, cosine - reach, cosine + reach)
    low, high = low - _MARGIN, high + _MARGIN
    # What both ends give, all between them give, but for what rounding does.
    ends = [sampled.differs(pair) for pair in curve.exact([low, high])]
    open_at = places(ends[0] | ends[1])
    return _least(sampled.only(lambda part: part[open_at]), curve, low, high)


def _least(sampled: Sampled, curve: Curve, low: float, high: float) -> tuple[list[float], int]:
    """Return the cosines that miss fewest elements, and how many: by ever finer grids."""
    ulp = curve.ulp(low)
    while True:
        step = max((high - low) / _CANDIDATES, ulp)
        spread = (
            torch.arange(int((high - low) / step) + 1, dtype=torch.float64).mul_(step).add_(low)
        )
        tried = sorted(set(spread.to(DTYPES[curve.dtype]).tolist()))
        pairs = dict(zip(curve.exact(tried), tried, strict=True))
        missed = sampled.missed(list(pairs))
        best = [
            each for each, count in zip(pairs.values(), missed, strict=True) if count == min(missed)
        ]
        before = high - low
        low, high = best[0] - step, best[-1] + step
        if step == ulp or 2 * (high - low) > before:
            return best, min(missed)


def _bracket(sampled: Sampled, curve: Curve, low: float, high: float) -> tuple[float, float]:
    """Return cosines between which elements cease to ask for a larger one and begin to ask for a smaller."""
    middle = (low + high) / 2
    before, after = (curve.about(middle + sign * _BESIDE) for sign in (-1, 1))
    moves = sampled.left.float() * (after[0] - before[0])
    moves.add_(sampled.right.float() * (after[1] - before[1])).sign_()
    wanted = sampled.found.float()

    def wants(cosine: float) -> float:
        """Return how many elements more ask for a larger cosine than for a smaller one."""
        got = sampled.made(sampled.left, sampled.right, curve.about(cosine))
        return float((wanted - got.float()).sign_().mul_(moves).sum())

    while low < (middle := curve.between(low, high)) < high:
        found = wants(middle)
        if not found:
            break
        low, high = (middle, high) if found > 0 else (low, middle)
    return low, high


def swept(starts: Sequence[float], misses: Callable[[float], int]) -> float:
    """Return the cosine that misses least: near the best of some starts, else downhill from there.

    The number of misses grows with the distance from the right cosine, but for what rounding hides.
    """
    counts = {start: misses(start) for start in starts}
    best = min(counts, key=lambda start: counts[start])
    best, least = _nearby(best, counts[best], misses)
    step = _FARTHEST
    while least and step >= _NEAREST:
        moved = False
        for candidate in (best + step, best - step):
            if (found := misses(candidate)) < least:
                best, least, moved = candidate, found, True
        if not moved:
            step /= 2
    return _nearby(best, least, misses)[0] if least else best


def _nearby(centre: float, least: int, misses: Callable[[float], int]) -> tuple[float, int]:
    """Look at each number within some ulps, the nearest first, until one misses nothing."""
    best = centre
    for steps in range(1, _NEARBY):
        for candidate in (centre + steps * _NEAREST, centre - steps * _NEAREST):
            if not least:
                return best, 0
            if (found := misses(candidate)) < least:
                best, least = candidate, found
    return best, least


def fitted(a: Tensor, b: Tensor, found: Tensor) -> tuple[float, float]:
    """Return the coefficients of least squares, in fp32: those that an fp32 release was made with."""
    x, y, z = (part.to(torch.float64) for part in (a, b, found))
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    xz, yz = float(x @ z), float(y @ z)
    determinant = xx * yy - xy * xy
    if not math.isfinite(determinant) or determinant <= 1e-12 * xx * yy:
        return 0.0, 0.0
    c_a, c_b = (xz * yy - yz * xy) / determinant, (yz * xx - xz * xy) / determinant
    return rounded(c_a, "F32"), rounded(c_b, "F32")


def beside(pair: tuple[float, float], left: int, right: int) -> tuple[float, float]:
    """Return coefficients some ulps away."""
    moved = torch.tensor(pair, dtype=torch.float32)
    bits(moved).add_(torch.tensor([left, right], dtype=torch.int32))
    return float(moved[0]), float(moved[1])
