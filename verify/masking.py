"""Masks of elements at the speed of memory.

torch turns a comparison into booleans far slower than into integers of the values' own width, and
selects by booleans (`where`, `masked_fill`) slower still. So masks are compared into that width, values
are kept by AND with it, and booleans are counted and found eight at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import torch
from torch import Tensor

from parentage.verify import native
from parentage.verify.rounding import bits

#: Multiplied by eight booleans 0 or 1 (little-endian), its top byte is their sum, or those bits in order.
_SUM: Final = 0x0101010101010101
_PACK: Final = 0x0102040810204080

Comparison = Callable[..., Tensor]


def compared(comparison: Comparison, left: Tensor, right: Tensor | int) -> Tensor:
    """Return `comparison(left, right)`, such as `torch.gt`, as booleans."""
    flags: Tensor = comparison(left, right, out=torch.empty_like(left))
    return flags.to(torch.bool)


def count(mask: Tensor) -> int:
    """Return how many booleans are true."""
    words, rest = _words(mask)
    return int(((words * _SUM) >> 56).sum()) + int(rest.sum())


def places(mask: Tensor) -> Tensor:
    """Return the indices of those that are true, as `mask.nonzero().squeeze(1)` does."""
    words, rest = _words(mask)
    some = words.nonzero()
    if 4 * some.numel() > words.numel():
        return mask.nonzero().squeeze(1)
    near = (some * 8 + torch.arange(8, device=mask.device)).reshape(-1)
    last = rest.nonzero().squeeze(1) + 8 * words.numel()
    return torch.cat((near[mask[near]], last))


def _words(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return booleans, flat, as words of eight, and those that are left."""
    whole = mask.numel() // 8 * 8
    head = mask[:whole]
    if head.storage_offset() % 8 or not head.is_contiguous():
        head = head.clone()  # bytes of a slice may begin anywhere; words may not
    return head.view(torch.int64), mask[whole:]


def kept(values: Tensor, mask: Tensor) -> Tensor:
    """Return values where a mask of booleans is true, and +0 elsewhere."""
    pattern = bits(values)
    return wide(mask, pattern.dtype).bitwise_and_(pattern).view(values.dtype)


def wide(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return booleans as integers: all bits where true, none elsewhere."""
    return mask.view(torch.int8).to(dtype).neg_()


def packed(mask: Tensor) -> Tensor:
    """Return booleans as bits: eight a byte, the first element lowest."""
    words, rest = _words(mask)
    if rest.numel():
        tail = torch.nn.functional.pad(rest.view(torch.uint8), (0, 8 - rest.numel()))
        words = torch.cat((words, tail.view(torch.int64)))
    return ((words * _PACK) >> 56).to(torch.uint8)


@cache
def _words_of_bytes(device: torch.device) -> Tensor:
    """Return the eight booleans of each byte as one word."""
    table = torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device)
    return (table & 1).to(torch.uint8).view(torch.int64).reshape(-1)


def unpacked(packed_bits: Tensor, start: int, stop: int) -> Tensor:
    """Return elements [start, stop) of a packed mask as booleans."""
    part = packed_bits[start // 8 : -(-stop // 8)]
    flags = native.unpacked(part)
    if flags is None:
        flags = _words_of_bytes(part.device).index_select(0, part.to(torch.int32)).view(torch.bool)
    at = start - start // 8 * 8
    return flags[at : at + stop - start]
