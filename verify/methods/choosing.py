"""Every way to decide what a claim leaves open: equal magnitudes at a threshold, unknown random masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from parentage.verify.masking import count, places
from parentage.verify.methods.base import Choice
from parentage.verify.rounding import bits, same_bits

#: Inputs whose masks may be open at once: 2^n values are tried for an open element.
_MAX_OPEN: Final = 6
#: Elements that are computed at a time: under all combinations, if there are few.
_TOGETHER: Final = 1 << 17

Index = Tensor | slice
Value = Callable[[Index, Sequence[Tensor]], Tensor]


def decide(states: Sequence[tuple[Tensor, Tensor]], found: Tensor, value: Value) -> Choice | None:
    """Compare elements with each value that they may have.

    Args:
        states: for each input, the elements that must stay, and those that may.
        found: the release's elements.
        value: computes elements at an index, given the masks there; its result may be overwritten.
    """
    if len(states) > _MAX_OPEN:
        return None
    got = value(slice(None), [sure | tied for sure, tied in states])
    least = [count(sure) for sure, _ in states]
    most, distance = list(least), 0.0
    at = places(_any([tied for _, tied in states]))
    if at.numel():
        sure = torch.stack([sure[at] for sure, _ in states])
        tied = torch.stack([tied[at] for _, tied in states])
        fits, near, masks = _tried(sure, tied, found[at], at, value)
        inside = fits.any(dim=0)
        for i in range(len(states)):
            stays = (fits & masks[:, i]).any(dim=0) & tied[i]
            leaves = (fits & ~masks[:, i]).any(dim=0)
            most[i] += int(stays.sum())
            least[i] += int((stays & ~leaves).sum())
        distance += _total(near[~inside])
        # What one of the choices gives is as good as equal: the rest can be compared at once.
        bits(got)[at] = torch.where(inside, bits(found)[at], ~bits(found)[at])
    outside = 0
    if not same_bits(got, found):
        differs = bits(got) != bits(found)
        outside = int(differs.sum())
        differs[at] = False
        far = differs.nonzero().squeeze(1)
        distance += _total((got[far].double() - found[far].double()).abs()) + 1e-30 * outside
    return Choice(outside, at.numel(), least, most, distance)


def _any(masks: Sequence[Tensor]) -> Tensor:
    found = masks[0]
    for mask in masks[1:]:
        found = found | mask
    return found


def _total(gaps: Tensor) -> float:
    return float(gaps.nan_to_num(nan=1.0, posinf=1.0).sum())


def _tried(
    sure: Tensor, tied: Tensor, found: Tensor, at: Tensor, value: Value
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which combination fits which element, the least distance, and the masks tried.

    Few elements are computed under many combinations at once: an operation costs more than they do.
    """
    number, size = sure.shape
    every = torch.arange(1 << number, device=found.device)
    chosen = (every[:, None] >> torch.arange(number, device=found.device) & 1).to(torch.bool)
    masks = sure | tied & chosen[:, :, None]
    together = max(min(_TOGETHER // max(size, 1), len(masks)), 1)
    values = []
    for first in range(0, len(masks), together):
        part = masks[first : first + together]
        kept = [part[:, i].reshape(-1) for i in range(number)]
        values.append(value(at.repeat(len(part)), kept).reshape(len(part), size))
    got = torch.cat(values)
    near = (got.double() - found.double()).abs().nan_to_num(nan=math.inf).amin(dim=0)
    return bits(got) == bits(found), near, masks
