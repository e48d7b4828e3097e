"""Which elements of a task vector stay, at random: element e where a random number is below p.

  random      p = density.
  della       p = density - epsilon + 2 epsilon (r - 1) / (n - 1), r its rank in its row, smallest first.
`parentage-1` takes Philox words (random_bits.py): e stays where word < floor(p 2^32). `mk` replays
torch's CPU generator: p in the engine's dtype, tensors in order of their names, inputs in order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from parentage.manifest.errors import RecipeError
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import ratio
from parentage.verify import native
from parentage.verify.masking import packed
from parentage.verify.methods.masks import Masks, Packed
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
from parentage.verify.values import own_pages

if TYPE_CHECKING:
    from parentage.verify.methods.task_arithmetic import TaskArithmeticMethod

#: A mask whose count is further from its density than this is not of that density.
_DEVIATIONS: Final = 5


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


class _Drawn(Packed):
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


class CountedSource:
    """Masks drawn by position: `parentage-1`.

    Raises:
        RecipeError: there is no seed.
    """

    def __init__(self, method: TaskArithmeticMethod) -> None:
        self._method = method
        if method.unseeded:
            raise RecipeError(
                "parentage-1 draws no random numbers without a seed", where=method.where
            )

    def find(self, name: str, variant: str) -> _Drawn:
        """Return the masks of a tensor."""
        return _Drawn(self._method, name)


def _ranks(size: Tensor, *, stable: bool) -> Tensor:
    """Return each element's rank in its row, the smallest 0."""
    order = torch.sort(size, dim=1, stable=stable).indices
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(size.shape[1], device=size.device).expand_as(order))
    return ranks


class ReplayedSource:
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
        """Draw the masks of a tensor; without a seed they are free."""
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
        return Packed(
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
