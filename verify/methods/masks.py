"""Which elements of a task vector stay: by magnitude, by magnitude without outliers, or at random.

By rank: of n elements, those of rank lo < r <= hi stay, the largest magnitude having rank 1.
  magnitude   lo = 0, hi = int(density n), at least 1 in mk-0.1.5.
  outliers    int(gamma n) of the largest are dropped, then the smallest until int(density n) are left.
`parentage-1` ranks equal magnitudes by index, the first highest; `mk/sort` as torch's unstable sort does.
At random: element e stays where a random number is below p.
  random      p = density.
  della       p = density - epsilon + 2 epsilon (r - 1) / (n - 1), r its rank in its row, smallest first.
`parentage-1` takes Philox words (random_bits.py): e stays where word < floor(p 2^32). `mk` replays
torch's CPU generator: p in the engine's dtype, tensors in order of their names, inputs in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import ratio
from parentage.verify import native
from parentage.verify.masking import compared, packed, unpacked
from parentage.verify.methods.merging import Span
from parentage.verify.random_bits import (
    SerialDraws,
    TorchStream,
    drawn,
    limit_of,
    mask_key,
    words,
)
from parentage.verify.rounding import DTYPES
from parentage.verify.selection import Cut, cuts, keys_of
from parentage.verify.values import Scratch, own_pages

if TYPE_CHECKING:
    from parentage.verify.methods.task_arithmetic import TaskArithmeticMethod


#: A mask whose count is further from its density than this is not of that density.
_DEVIATIONS: Final = 5
#: Where and how many elements are looked at to guess where a cut lies: to within a key or two of bf16.
_WINDOWS: Final = 64
_WINDOW: Final = 4096


class Masks(Protocol):
    """The masks of one tensor.

    Attributes:
        nbytes: that they take.
    """

    nbytes: int

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        """Return which elements of a task vector stay, as booleans.

        Args:
            index: which task vector.
            span: which elements.
            vector: its elements there, flat.
        """

    def sure_and_tied(self, index: int, span: Span, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the elements that must stay, and those that may."""

    def open_at_zero(self, index: int) -> bool:
        """Say whether an element that is 0 may be among those of which only a number must stay."""

    def allowed(self, index: int) -> tuple[float, float]:
        """Return how few and how many elements may stay."""


class MaskSource(Protocol):
    """A way to choose."""

    def find(self, name: str, variant: str) -> Masks:
        """Find the masks of a tensor."""


def mask_source(method: TaskArithmeticMethod) -> MaskSource:
    """Return the way that a step declares."""
    if method.by_rank:
        return _ByRank(method)
    if method.step.arithmetic.profile == "parentage-1":
        return _Counted(method)
    return _Replayed(method)


class _Packed:
    """Masks kept as bits."""

    def __init__(self, bits: Sequence[Tensor | None]) -> None:
        self._bits = bits
        self.nbytes = sum(0 if part is None else part.numel() for part in bits)

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        bits = self._bits[index]
        if bits is None:
            return torch.ones_like(vector, dtype=torch.bool)
        return unpacked(bits, span.start, span.stop).to(vector.device)

    def sure_and_tied(self, index: int, span: Span, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask, and nothing open."""
        mask = self.mask(index, span, vector)
        return mask, torch.zeros_like(mask)

    def open_at_zero(self, index: int) -> bool:
        """Say no: nothing is open."""
        return False

    def allowed(self, index: int) -> tuple[float, float]:
        """Return every count: nothing is open."""
        return 0.0, math.inf


class ByRank:
    """Masks between two cuts; `places` chooses among equal magnitudes."""

    def __init__(self, lows: Sequence[Cut], highs: Sequence[Cut], ties: _Packed | None) -> None:
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


class _Free:
    """Masks drawn from a seed that nobody declared."""

    def __init__(self, densities: Sequence[float], elements: int) -> None:
        self._densities, self._elements = densities, elements
        self.nbytes = 0

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        """Return everything that may stay."""
        sure, tied = self.sure_and_tied(index, span, vector)
        return sure | tied

    def sure_and_tied(self, index: int, span: Span, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return nothing for sure and everything as possible, or everything for sure."""
        everything = torch.ones_like(vector, dtype=torch.bool)
        if self._densities[index] >= 1:
            return everything, ~everything
        if self._densities[index] <= 0:
            return ~everything, ~everything
        return ~everything, everything

    def open_at_zero(self, index: int) -> bool:
        """Say yes: everything may be open."""
        return True

    def allowed(self, index: int) -> tuple[float, float]:
        """Return n p +- five standard deviations of a binomial count."""
        p, n = min(max(self._densities[index], 0.0), 1.0), self._elements
        spread = _DEVIATIONS * math.sqrt(n * p * (1 - p))
        return n * p - spread, n * p + spread


class _ByRank:
    def __init__(self, method: TaskArithmeticMethod) -> None:
        self._method = method

    def find(self, name: str, variant: str) -> ByRank:
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

    def _sorted(self, name: str, variant: str, ranges: list[tuple[int, int]]) -> _Packed:
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
        return _Packed(bits)

    def _in_order(self, name: str, lows: list[Cut], highs: list[Cut]) -> _Packed:
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
        return _Packed([packed(torch.cat(row)) for row in rows])


def _first(keys: Tensor, cut: Cut, left: list[int], at: int) -> Tensor:
    """Return the elements of a piece that are among the `cut.rank` largest."""
    tied = keys == cut.key
    place = tied.cumsum(0)
    chosen = tied & (place <= left[at])
    left[at] -= min(left[at], int(place[-1]))
    return (keys > cut.key) & (cut.rank > 0) | chosen


class _Drawn(_Packed):
    """Masks drawn by position under `parentage-1`."""

    def __init__(self, method: TaskArithmeticMethod, name: str) -> None:
        super().__init__(())
        self._method, self._name = method, name

    def mask(self, index: int, span: Span, vector: Tensor) -> Tensor:
        method, name = self._method, self._name
        density = ratio(method.values(name, "densities")[index])
        if density >= 1:
            return torch.ones_like(vector, dtype=torch.bool)
        if method.step.params.sparsify == "random":
            limit: Tensor | int = int(density * (1 << 32))
        else:
            epsilon = float(ratio(method.values(name, "epsilons")[index]))
            rank = _ranks(vector.abs().reshape(-1, span.columns), stable=True)
            spread = 2 * epsilon * rank.to(torch.float64)
            steps = torch.full((1,), max(span.columns - 1, 1), dtype=torch.float64)
            chance = (float(density) - epsilon) + spread / steps.to(spread.device)
            limit = (chance * 2.0**32).floor().to(torch.int64).reshape(-1)
        seed = method.step.params.seed or 0
        found = words(mask_key(seed, name, index), span.start, span.stop, vector.device)
        return found < limit


class _Counted:
    def __init__(self, method: TaskArithmeticMethod) -> None:
        self._method = method
        if method.unseeded:
            raise RecipeError(
                "parentage-1 draws no random numbers without a seed", where=method.where
            )

    def find(self, name: str, variant: str) -> _Drawn:
        return _Drawn(self._method, name)


def _ranks(size: Tensor, *, stable: bool) -> Tensor:
    """Return each element's rank in its row, the smallest 0."""
    order = torch.sort(size, dim=1, stable=stable).indices
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(size.shape[1], device=size.device).expand_as(order))
    return ranks


class _Replayed:
    """Masks from torch's CPU generator."""

    def __init__(self, method: TaskArithmeticMethod) -> None:
        self._method = method
        self._draws: SerialDraws[TorchStream] | None = None
        self._fast: SerialDraws[native.Twister] | None = None
        if not method.unseeded:
            order = sorted(n for n, s in method.specs.items() if s.dtype in FLOAT_DTYPES)
            counts, seed = {name: self._count(name) for name in order}, method.step.params.seed or 0
            self._draws = SerialDraws(TorchStream(seed), counts)
            # Of float64 torch draws otherwise; and "della" has a probability for each element.
            narrow = all(method.compute(name) != "F64" for name in order)
            library = native.library()
            if library is not None and narrow and method.step.params.sparsify == "random":
                self._fast = SerialDraws(native.Twister(library, seed), counts)

    def _drawn_for(self, name: str) -> list[bool]:
        della = self._method.step.params.sparsify == "della"
        densities = [ratio(text) for text in self._method.values(name, "densities")]
        return [d < 1 and not (della and d <= 0) for d in densities]

    def _count(self, name: str) -> int:
        wide = 2 if self._method.compute(name) == "F64" else 1
        return sum(self._drawn_for(name)) * self._method.specs[name].elements * wide

    def find(self, name: str, variant: str) -> Masks:
        if self._draws is None:
            densities = [float(ratio(text)) for text in self._method.values(name, "densities")]
            return _Free(densities, self._method.specs[name].elements)
        if self._fast is not None:
            masks = iter(self._fast.draw(name, lambda twister: self._below(name, twister)))
        else:
            draws = self._draws
            masks = iter(draws.draw(name, lambda s: self._masks(name, variant, s.generator)))
        method = self._method
        empty = torch.zeros(-(-method.specs[name].elements // 8), dtype=torch.uint8)
        shares = [ratio(text) for text in method.values(name, "densities")]
        return _Packed(
            [
                next(masks) if draw else (None if share >= 1 else empty)
                for draw, share in zip(self._drawn_for(name), shares, strict=True)
            ]
        )

    def _work(self, name: str) -> torch.dtype:
        compute = self._method.compute(name)
        return DTYPES["F32" if compute == "F16" else compute]

    def _below(self, name: str, twister: native.Twister) -> Iterator[Tensor]:
        n, densities = self._method.specs[name].elements, self._method.values(name, "densities")
        for density, draw in zip(densities, self._drawn_for(name), strict=True):
            if draw:
                kept = own_pages(-(-n // 8), torch.uint8)
                chance = torch.tensor(float(ratio(density)), dtype=self._work(name))
                twister.below(limit_of(chance), n, kept)
                yield kept

    def _masks(self, name: str, variant: str, generator: torch.Generator) -> Iterator[Tensor]:
        method, work = self._method, self._work(name)
        for index, draw in enumerate(self._drawn_for(name)):
            if not draw:
                continue
            kept, at = own_pages(-(-method.specs[name].elements // 8), torch.uint8), 0
            carried = torch.empty(0, dtype=torch.bool)
            for span, found in self._drawn(name, variant, index, work, generator):
                ready = torch.cat((carried, found)) if len(carried) else found
                last = span.stop == method.specs[name].elements
                whole = len(ready) if last else len(ready) // 8 * 8
                row = packed(ready[:whole])
                kept[at : at + len(row)] = row
                at += len(row)
                carried = ready[whole:]
            yield kept

    def _drawn(
        self, name: str, variant: str, index: int, work: torch.dtype, generator: torch.Generator
    ) -> Iterator[tuple[Span, Tensor]]:
        """Draw a mask piece by piece, with each element's probability in the engine's dtype."""
        method = self._method
        density = float(ratio(method.values(name, "densities")[index]))
        if method.step.params.sparsify == "random":
            n, piece = method.specs[name].elements, 1 << 18
            for start in range(0, n, piece):
                span = Span(name, start, min(start + piece, n), method.specs[name].shape)
                chance = torch.tensor(density, dtype=work)
                yield span, drawn(span.stop - span.start, chance, generator)
            return
        epsilon = float(ratio(method.values(name, "epsilons")[index]))
        for span, parts in method.pieces(name, variant):
            vector = method.vectors(parts)[index]
            rank = _ranks(vector.abs().reshape(-1, span.columns), stable=False).to(work) + 1
            low = rank.min(dim=1, keepdim=True).values
            high = rank.max(dim=1, keepdim=True).values
            share = ((rank - low) / (high - low)).clamp(0, 1)
            chance = ((density - epsilon) + share * 2 * epsilon).reshape(-1)
            yield span, torch.bernoulli(chance, generator=generator).to(torch.bool)
