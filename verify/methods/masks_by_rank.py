"""Which elements of a task vector stay, by magnitude, with or without outliers.

Of n elements, those of rank lo < r <= hi stay, the largest magnitude having rank 1.
  magnitude   lo = 0, hi = int(density n), at least 1 in mk-0.1.5.
  outliers    int(gamma n) of the largest are dropped, then the smallest until int(density n) are left.
`parentage-1` ranks equal magnitudes by index, the first highest; `mk/sort` as torch's unstable sort does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.wire import ratio
from parentage.verify.masking import compared, packed
from parentage.verify.methods.masks import Packed
from parentage.verify.methods.merging import Span
from parentage.verify.rounding import DTYPES
from parentage.verify.selection import Cut, cuts, keys_of
from parentage.verify.values import Scratch

if TYPE_CHECKING:
    from parentage.verify.methods.task_arithmetic import TaskArithmeticMethod

#: Where and how many elements are looked at to guess where a cut lies: to within a key or two of bf16.
_WINDOWS: Final = 64
_WINDOW: Final = 4096


class ByRank:
    """Masks between two cuts; `places` chooses among equal magnitudes."""

    def __init__(self, lows: Sequence[Cut], highs: Sequence[Cut], ties: Packed | None) -> None:
        self.lows, self.highs = lows, highs
        self._ties = ties
        self.nbytes = 0 if ties is None else ties.nbytes

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        """Return the mask; ties that nothing chooses among all stay."""
        if self._ties is not None:
            return self._ties.mask(index, span, vector)
        sure, tied = self.sure_and_tied(index, span, vector)
        return sure | tied

    def sure_and_tied(self, index: int, span: Span, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the elements that must stay, and those of which only a number must."""
        low, high = self.lows[index], self.highs[index]
        keys = keys_of(vector)
        if high.rank <= low.rank:
            nothing = torch.zeros_like(keys, dtype=torch.bool)
            return nothing, nothing
        sure = compared(torch.gt, keys, high.key)
        at_high = compared(torch.eq, keys, high.key)
        tied = at_high
        if high.quota == high.ties:
            sure, tied = sure | at_high, torch.zeros_like(at_high)
        if low.rank:
            at_low = compared(torch.eq, keys, low.key)
            sure = sure & compared(torch.lt, keys, low.key)
            if low.key == high.key or low.quota != low.ties:
                tied = tied | at_low
                sure = sure & ~at_low
            else:
                tied = tied & ~at_low
        return sure, tied

    def open_at_zero(self, index: int) -> bool:
        """Say whether a cut is at the smallest key: only elements with a cut's key are open."""
        return 0 in {self.lows[index].key, self.highs[index].key}

    def allowed(self, index: int) -> tuple[float, float]:
        """Return how many elements stay, twice."""
        kept = max(self.highs[index].rank - self.lows[index].rank, 0)
        return kept, kept


class RankSource:
    """Masks by magnitude."""

    def __init__(self, method: TaskArithmeticMethod) -> None:
        self._method = method

    def find(self, name: str, variant: str) -> ByRank:
        """Find the cuts of a tensor, and who stays among equal magnitudes where the engine says so."""
        method = self._method
        ranges = self._ranges(name, variant)

        def keys() -> Iterator[list[Tensor]]:
            for _, parts in method.pieces(name, variant):
                yield [keys_of(vector) for vector in method.vectors(parts)]

        dtype = DTYPES["F64" if variant == "parentage-1" else method.compute(name)]

        def sample() -> list[Tensor]:
            return [keys_of(vector) for vector in self._sampled(name, variant)]

        n = method.specs[name].elements
        found = cuts(keys, 8 * dtype.itemsize - 1, ranges, elements=n, sample=sample)
        lows, highs = [pair[0] for pair in found], [pair[1] for pair in found]
        if variant.endswith("/sort"):
            return ByRank(lows, highs, self._sorted(name, variant, ranges))
        if variant == "parentage-1" and any(c.quota != c.ties for pair in found for c in pair):
            return ByRank(lows, highs, self._in_order(name, lows, highs))
        return ByRank(lows, highs, None)

    def _sampled(self, name: str, variant: str) -> list[Tensor]:
        """Return some elements of each task vector, from all over the tensor."""
        method, n = self._method, self._method.specs[name].elements
        scratch = Scratch(torch.device("cpu"))
        picked: list[list[Tensor]] = []
        for start in range(0, n, max(n // _WINDOWS, 1)):
            scratch.reset()
            span = Span(name, start, min(start + _WINDOW, n), method.specs[name].shape)
            picked.append(method.vectors(method.parts(span, variant, scratch)))
        return [torch.cat(column) for column in zip(*picked, strict=True)]

    def _ranges(self, name: str, variant: str) -> list[tuple[int, int]]:
        params, method = self._method.step.params, self._method
        n = method.specs[name].elements
        densities = [ratio(text) for text in method.values(name, "densities")]
        if params.sparsify == "magnitude":
            return [(0, self._kept(d, n, variant, name)) for d in densities]
        gammas = [ratio(text) for text in method.values(name, "gammas", "0.01")]
        found = []
        for density, gamma in zip(densities, gammas, strict=True):
            if density >= 1:
                found.append((0, n))
                continue
            exact = variant == "parentage-1"
            target = int(density * n) if exact else int(float(density) * n)
            top = int(gamma * n) if exact else int(float(gamma) * n)
            if variant.startswith("mk-0.1.4"):
                top += min(n - target - top, 0)
                # [n_bot:-0] is empty there: without outliers nothing stays.
                found.append((top, top + target) if top else (0, 0))
            else:
                top = n - max(0, n - target - top) - target
                found.append((top, top + target))
        return found

    def _kept(self, density: Fraction, n: int, variant: str, name: str) -> int:
        if density >= 1:
            return n
        if variant == "parentage-1":
            return int(density * n)
        count = int(float(density) * n)
        if variant.startswith("mk-0.1.4") and count == 0:
            raise RecipeError("mergekit 0.1.4 refuses to drop a whole tensor", where=name)
        return max(1, count) if density > 0 and n else 0

    def _sorted(self, name: str, variant: str, ranges: list[tuple[int, int]]) -> Packed:
        """Choose as torch's sort does: in memory, 16 bytes and more an element."""
        method = self._method
        bits: list[Tensor | None] = []
        for index, (low, high) in enumerate(ranges):
            n = method.specs[name].elements
            if (low, high) == (0, n):
                bits.append(None)
                continue
            size = torch.cat(
                [
                    method.vectors(parts)[index].abs().reshape(-1).float()
                    for _, parts in method.pieces(name, variant)
                ]
            )
            mask = torch.zeros(n, dtype=torch.uint8)
            if method.step.params.sparsify == "magnitude":
                mask[torch.argsort(size, descending=True)[:high]] = 1
            elif high > low:
                mask[torch.sort(size, descending=False).indices[n - high : n - low]] = 1
            bits.append(packed(mask))
        return Packed(bits)

    def _in_order(self, name: str, lows: list[Cut], highs: list[Cut]) -> Packed:
        """Choose the first by index among equal magnitudes."""
        method = self._method
        rows: list[list[Tensor]] = [[] for _ in highs]
        left = [[low.quota, high.quota] for low, high in zip(lows, highs, strict=True)]
        for _, parts in method.pieces(name, "parentage-1"):
            for i, vector in enumerate(method.vectors(parts)):
                keys = keys_of(vector)
                inside = [
                    _first(keys, cut, left[i], j) for j, cut in enumerate((lows[i], highs[i]))
                ]
                rows[i].append((inside[1] & ~inside[0]).to(torch.uint8))
        return Packed([packed(torch.cat(row)) for row in rows])


def _first(keys: Tensor, cut: Cut, left: list[int], at: int) -> Tensor:
    """Return the elements of a piece that are among the `cut.rank` largest."""
    tied = keys == cut.key
    place = tied.cumsum(0)
    chosen = tied & (place <= left[at])
    left[at] -= min(left[at], int(place[-1]))
    return (keys > cut.key) & (cut.rank > 0) | chosen
