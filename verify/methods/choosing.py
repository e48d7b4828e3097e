"""Every way to decide what a claim leaves open: equal magnitudes at a threshold, unknown random masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from parentage.verify.methods.base import Choice
from parentage.verify.rounding import bits

#: Inputs whose masks may be open at once: 2^n values are tried for an open element.
_MAX_OPEN: Final = 6

Index = Tensor | slice
Value = Callable[[Index, Sequence[Tensor]], Tensor]


def decide(states: Sequence[tuple[Tensor, Tensor]], found: Tensor, value: Value) -> Choice | None:
    """Compare elements with each value that they may have.

    Args:
        states: for each input, the elements that must stay, and those that may.
        found: the release's elements.
        value: computes elements at an index, given the masks there.
    """
    if len(states) > _MAX_OPEN:
        return None
    first = value(slice(None), [sure | tied for sure, tied in states])
    inside = bits(first) == bits(found)
    sure = torch.stack([sure for sure, _ in states])
    tied = torch.stack([tied for _, tied in states])
    open_ = tied.any(dim=0)
    least, most = sure.sum(dim=1), sure.sum(dim=1)
    at = open_.nonzero().squeeze(1)
    distance = 0.0
    if at.numel():
        fits, near, masks = _tried(
            sure[:, at], tied[:, at], found[at], lambda kept: value(at, kept)
        )
        inside[at] = fits.any(dim=0)
        stays = torch.stack([(fits & masks[:, i]).any(dim=0) for i in range(len(states))])
        leaves = torch.stack([(fits & ~masks[:, i]).any(dim=0) for i in range(len(states))])
        open_here = tied[:, at]
        most = most + (stays & open_here).sum(dim=1)
        least = least + (stays & ~leaves & open_here).sum(dim=1)
        distance += _total(near[~inside[at]])
    outside = ~inside
    if bool(outside.any()):
        far = (outside & ~open_).nonzero().squeeze(1)
        distance += _total((first[far].double() - found[far].double()).abs())
        distance += 1e-30 * int(outside.sum())
    return Choice(inside, open_, least.tolist(), most.tolist(), distance)


def _total(gaps: Tensor) -> float:
    return float(gaps.nan_to_num(nan=1.0, posinf=1.0).sum())


def _tried(
    sure: Tensor, tied: Tensor, found: Tensor, value: Callable[[Sequence[Tensor]], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which combination fits which element, the least distance, and the masks tried."""
    count = len(sure)
    fits, masks = [], []
    near = torch.full(found.shape, float("inf"), dtype=torch.float64, device=found.device)
    for combination in range(1 << count):
        kept = [sure[i] | tied[i] if combination >> i & 1 else sure[i] for i in range(count)]
        got = value(kept)
        fits.append(bits(got) == bits(found))
        near = torch.minimum(near, (got.double() - found.double()).abs())
        masks.append(torch.stack(kept))
    return torch.stack(fits), near, torch.stack(masks)
