"""Intervals over everything that a scalar of a whole tensor may be: enough to refute, never to confirm.

An engine's cosine or norm is off by its rounding, its threads and its kernels. The box here is wider than
the one that a witness must lie in (witness.py), so that what is outside is no matter of scalars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import torch
from torch import Tensor

from parentage.verify.methods.base import Interval
from parentage.verify.rounding import TINY, UNIT, round_once

Range = tuple[float, float]

#: Norms on CPU were found up to 4e-3 off at 5e7 elements, and the error grows with their number.
_LEAST: Final = 2e-2
_PER_ELEMENT: Final = 1e-9


def slack(dtype: str, elements: int) -> float:
    """Return how far a quotient of sums in a dtype is taken to be from float64's."""
    return max(_LEAST, 16 * UNIT[dtype]) + _PER_ELEMENT * elements


def around(cosine: float, dtype: str, elements: int) -> Range:
    """Return the cosines that an engine may have found."""
    width = slack(dtype, elements)
    return max(cosine - width, -1.0), min(cosine + width, 1.0)


def slerp_ranges(cosines: Range, t: Fraction) -> tuple[Range, Range] | None:
    """Return the ranges of sin((1-t)θ) / sin θ and sin(tθ) / sin θ; None: they are too wide to say.

    For t in [0, 1] both grow with θ in [0, π), from 1 - t and t: x cot x falls there. So the ends of θ
    are the ends of the coefficients, and a straight line (θ = 0) is one of them.
    """
    low, high = cosines
    if not 0 <= t <= 1 or low < -0.5:
        return None
    ends = [math.acos(high), math.acos(low)]
    return _ratios(float(1 - t), ends), _ratios(float(t), ends)


def _ratios(share: float, angles: Sequence[float]) -> Range:
    least, most = (math.sin(share * x) / math.sin(x) if x > 1e-6 else share for x in angles)
    return least * (1 - 1e-9), most * (1 + 1e-9)


def scaled(values: Tensor, by: Range) -> Interval:
    """Return the least and the most of values times a number in a range."""
    ends = values * by[0], values * by[1]
    return ends[0].minimum(ends[1]), ends[0].maximum(ends[1])


def widened(
    low: Tensor,
    high: Tensor,
    size: Tensor,
    *,
    steps: int,
    compute: str,
    store: str,
    lift: float = 1,
) -> Interval | None:
    """Return stored values, given the exact ends, after so many roundings; None: some are not finite.

    The ends are float64, and so is `size`: what the roundings are relative to, the sum of what is added.
    A term passes at most `steps` of them (Higham, Accuracy and Stability, lemma 3.1); an underflow may be
    multiplied by `lift`.
    """
    part = steps * UNIT[compute]
    if part >= 0.5:
        return None
    error = size * (part / (1 - part) + 1e-12) + steps * TINY[compute] * lift
    low, high = low - error, high + error
    for dtype in (compute, store):
        low, high = (round_once(end, dtype).double() for end in (low, high))
    if not bool((low.isfinite() & high.isfinite()).all()):
        return None
    return round_once(low, store), round_once(high, store)


def summed(
    ends: Sequence[Interval],
    weights: Sequence[float],
    *,
    elect: bool,
    normalize: bool,
    tiny: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the ends of Σ w_i v_i [/ Σ w_i], and what its roundings are relative to; None: unknown.

    Args:
        ends: the least and the most of each v_i.
        weights: w_i.
        elect: whether only elements with the elected sign count, whichever that is.
        normalize: whether the sum is divided by the weights that count.
        tiny: what may round to 0.
    """
    terms = [scaled_ends(pair, weight) for pair, weight in zip(ends, weights, strict=True)]
    size = _added([low.abs().maximum(high.abs()) for low, high in terms])
    if not elect:
        low, high = _added([low for low, _ in terms]), _added([high for _, high in terms])
        total = sum(weights) if normalize else 1.0
        if abs(total) < 0.1 * sum(map(abs, weights)):
            return None
        low, high = scaled_ends((low, high), 1 / total)
        return low, high, size * (1 / abs(total))
    if not normalize:
        down = _added([low.clamp(max=0.0) for low, _ in terms])
        up = _added([high.clamp(min=0.0) for _, high in terms])
        # Where all have one sign, all count.
        mixed = (down < 0) & (up > 0)
        low, high = _added([low for low, _ in terms]), _added([high for _, high in terms])
        return torch.where(mixed, down, low), torch.where(mixed, up, high), size
    if min(weights) <= 0:
        return None
    # A weighted mean of those that count lies between them; what is 0, or may underflow, does not count.
    least = torch.full_like(size, math.inf)
    most, none = -least, torch.ones_like(size, dtype=torch.bool)
    for low, high in ends:
        counts = low.abs().minimum(high.abs()) * min(1.0, *weights) > tiny
        least = torch.where((low != 0) | (high != 0), least.minimum(low), least)
        most = torch.where((low != 0) | (high != 0), most.maximum(high), most)
        none &= ~counts
    least, most = torch.where(least.isinf(), 0.0, least), torch.where(most.isinf(), 0.0, most)
    low, high = least.clamp(max=0.0), most.clamp(min=0.0)
    return torch.where(none, low, least), torch.where(none, high, most), size * (1 / min(weights))


def scaled_ends(pair: Interval, by: float) -> Interval:
    """Return the ends of an interval times a number."""
    low, high = pair[0] * by, pair[1] * by
    return (low, high) if by >= 0 else (high, low)


def _added(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
