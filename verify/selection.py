"""Which elements are among the largest, without sorting: thresholds by counting digits.

A sort of every tensor is two thirds of mergekit's time for TIES. The key of an element is the bit
pattern of its magnitude, which orders as the magnitude does; the r-th largest key is found 16 bits at
a time, one pass over the tensor for each (one pass for bf16). A sample says where a key of 16 bits will
be: comparing with a few keys and counting is far cheaper than counting all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.verify import kernels, sparse_kernels
from parentage.verify.rounding import bits

_DIGIT: Final = 16
#: Elements from which looking at a sample first is worth its while.
_WORTH_GUESSING: Final = 1 << 20
#: Keys that are counted together, and how often before sums of 16 bits could overflow.
_BLOCK: Final = 1 << 16
_BLOCKS: Final = 256

Keys = Callable[[], Iterator[Sequence[Tensor]]]


def keys_of(values: Tensor) -> Tensor:
    """Return the magnitudes of floats as integers that order alike; NaN is the largest."""
    pattern = bits(values)
    return pattern & ((1 << (8 * pattern.element_size() - 1)) - 1)


def ordered(values: Tensor) -> Tensor:
    """Return bf16, fp16 or fp32 values as whole numbers >= 0 that order as they do, sign included."""
    pattern = bits(values).to(torch.int64)
    top = 1 << (8 * values.element_size() - 1)
    return torch.where(pattern < 0, -1 - pattern, pattern + top)


def from_ordered(key: int, dtype: torch.dtype) -> Tensor:
    """Return the value that `ordered` gave a key for."""
    top = 1 << (8 * dtype.itemsize - 1)
    pattern = key - top if key >= top else -1 - key
    return bits(torch.zeros(1, dtype=dtype)).fill_(pattern).view(dtype)[0]


class Cut(msgspec.Struct, frozen=True):
    """Where the `rank` largest keys end.

    Attributes:
        rank: how many are wanted.
        key: the smallest of them; none is larger than -1 where none is wanted.
        above: keys that are larger.
        ties: keys that equal it.
    """

    rank: int
    key: int
    above: int
    ties: int

    @property
    def quota(self) -> int:
        """Return how many of the ties are among the wanted."""
        return self.rank - self.above


def cuts(
    keys: Keys,
    width: int,
    ranks: Sequence[Sequence[int]],
    *,
    elements: int = 0,
    sample: Callable[[], Sequence[Tensor]] | None = None,
) -> list[list[Cut]]:
    """Find cuts, for each of several streams of keys read side by side.

    Args:
        keys: starts the streams anew; yields one tensor of keys for each stream.
        width: significant bits of a key.
        ranks: for each stream, how many of the largest are wanted, once or more often.
        elements: of each stream.
        sample: gives some keys of each stream: where they put the cut, few keys need be counted.
    """
    if sample is not None and width == _DIGIT - 1 and elements >= _WORTH_GUESSING:
        near = _near(keys, ranks, elements, sample())
        if near is not None:
            return near
    found = [[_Search(rank) for rank in wanted] for wanted in ranks]
    for shift in range((width - 1) // _DIGIT * _DIGIT, -1, -_DIGIT):
        for row in found:
            for search in row:
                search.counts.zero_()
        for streams in keys():
            for stream, row in zip(streams, found, strict=True):
                _count(stream, row, shift)
        for row in found:
            for search in row:
                search.descend()
    return [[search.cut() for search in row] for row in found]


def _near(
    keys: Keys, ranks: Sequence[Sequence[int]], elements: int, sample: Sequence[Tensor]
) -> list[list[Cut]] | None:
    """Count what lies above a few keys around each guess; None where a cut lies elsewhere."""
    limits = [
        [k for rank in wanted for k in _around(_guessed(some, rank / elements))]
        for some, wanted in zip(sample, ranks, strict=True)
    ]
    counters = [_Above(row, some) for row, some in zip(limits, sample, strict=True)]
    for streams in keys():
        for stream, counter in zip(streams, counters, strict=True):
            counter.add(stream)
    found: list[list[Cut]] = []
    for wanted, row, counter in zip(ranks, limits, counters, strict=True):
        above = dict(zip(row, counter.total(), strict=True))
        cut = [_between(above, rank) for rank in wanted]
        if None in cut:
            return None
        found.append([one for one in cut if one is not None])
    return found


def _guessed(sample: Tensor, share: float) -> int:
    """Return the key above which so large a share of a sample lies."""
    search = _Search(max(round(share * sample.numel()), 1))
    _count(sample, [search], 0)
    search.descend()
    return search.prefix


def _around(key: int) -> list[int]:
    return [key - 2, key - 1, key, key + 1]


def _between(above: dict[int, int], rank: int) -> Cut | None:
    """Return the cut at a key whose count and the next smaller key's count are both known."""
    if rank == 0:
        return Cut(0, -1, 0, 0)
    for key, count in above.items():
        more = above.get(key - 1)
        if more is not None and count < rank <= more:
            return Cut(rank, key, count, more - count)
    return None


class _Above:
    """How many keys of a stream are above each of some limits."""

    def __init__(self, limits: list[int], like: Tensor) -> None:
        self._limits = limits
        self._flags = torch.empty(_BLOCK, dtype=like.dtype, device=like.device)
        self._words = self._flags.view(torch.int64)
        self._found = torch.zeros(
            (len(limits), len(self._words) // 64), dtype=torch.int64, device=like.device
        )
        self._total = torch.zeros(len(limits), dtype=torch.int64)
        self._run = kernels.compiled(sparse_kernels.counted_above, like.device)

    def add(self, keys: Tensor) -> None:
        flat, size = keys.reshape(-1), _BLOCKS * _BLOCK
        for start in range(0, flat.numel(), size):
            part = flat[start : start + size]
            self._run(part, self._limits, self._flags, self._words, self._found.zero_())
            lanes = self._found.view(torch.int16).sum(dim=1, dtype=torch.int64)
            self._total += lanes.to(self._total.device)

    def total(self) -> list[int]:
        return [int(count) for count in self._total]


class _Search:
    """One rank on its way down the digits."""

    def __init__(self, rank: int) -> None:
        self.rank, self.above, self.ties = rank, 0, 0
        self.prefix = 0
        self.counts = torch.zeros(1 << _DIGIT, dtype=torch.int64)

    def descend(self) -> None:
        """Choose the digit that holds the rank."""
        from_top = self.counts.flip(0).cumsum(0)
        wanted = self.rank - self.above
        at = int(torch.searchsorted(from_top, max(wanted, 1)))
        at = min(at, (1 << _DIGIT) - 1)
        digit = (1 << _DIGIT) - 1 - at
        self.ties = int(self.counts[digit])
        self.above += int(from_top[at]) - self.ties
        self.prefix = (self.prefix << _DIGIT) | digit

    def cut(self) -> Cut:
        """Return what was found."""
        if self.rank == 0:
            return Cut(0, -1, 0, 0)
        return Cut(self.rank, self.prefix, self.above, self.ties)


def _count(stream: Tensor, row: Sequence[_Search], shift: int) -> None:
    top: Tensor | None = None
    for search in row:
        if search.prefix == 0 and search.above == 0 and search.ties == 0:
            if top is None:
                digit = (stream >> shift if shift else stream).reshape(-1)
                top = torch.bincount(digit.to(torch.int64), minlength=1 << _DIGIT)
            search.counts += top
        else:
            inside = stream[(stream >> (shift + _DIGIT)) == search.prefix]
            digit = (inside >> shift) & ((1 << _DIGIT) - 1)
            search.counts += torch.bincount(digit, minlength=1 << _DIGIT)
