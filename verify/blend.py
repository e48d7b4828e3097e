"""A hidden merge of two models, found from rounding cells.

If c = w a + (1 - w) b was rounded once, every element says where w can be:
w in [(lo - b) / (a - b), (hi - b) / (a - b)], [lo, hi] the cell of c. All elements' intervals must
intersect; where a = b, b must lie in the cell. Least squares is off by 0.26 where this is off by
1e-6 (parents 0.2 % apart). The cell is widened by 2^-22 (|a| + |b|) for fp32 evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify import replay
from parentage.verify.engine import Chunk, Engine, chunks_of
from parentage.verify.parents import Candidate
from parentage.verify.rounding import UNIT
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import Finding, finding

_WIDEN: Final = 2.0**-22
_PROBE: Final = 1 << 16
_MAX_CANDIDATES: Final = 8
#: mergekit rounds twice in each product and in the sum, the division and the last addition.
_ROUNDINGS: Final = 6
_MAX_RATIOS: Final = 200


class Cells(msgspec.Struct, frozen=True):
    """Where w can be, after some elements.

    Attributes:
        low, high: the intersection of all intervals.
        outside: elements with a = b that b's value can't explain.
        informative: elements with a != b.
    """

    low: float
    high: float
    outside: int
    informative: int

    @property
    def possible(self) -> bool:
        """Whether one ratio explains every element seen."""
        return self.outside == 0 and self.informative > 0 and self.low <= self.high


def search(
    engine: Engine, release: FileSource, candidates: Sequence[Candidate], roots: dict[str, str]
) -> list[Finding]:
    """Look for the release among the candidates and their two-parent blends."""
    findings = [
        finding("is-known-model", f"these weights are {c.label}, unchanged", where=c.label)
        for c in candidates
        if roots.items() & c.roots.items()
    ]
    if findings:
        return findings
    usable = [c for c in candidates if _shapes(c.source) == _shapes(release)]
    for left, right in combinations(usable[:_MAX_CANDIDATES], 2):
        found = _pair(engine, release, left, right)
        if found is not None:
            return [found]
    return []


def _shapes(source: FileSource) -> dict[str, tuple[bool, tuple[int, ...]]]:
    """What must agree: a merge may be stored in another dtype than its parents, if that is a float."""
    return {n: (spec.dtype in FLOAT_DTYPES, spec.shape) for n, spec in source.specs.items()}


def _pair(engine: Engine, release: FileSource, left: Candidate, right: Candidate) -> Finding | None:
    cells = _cells(engine, release, left, right, probe=True)
    if cells.possible:
        cells = _cells(engine, release, left, right, probe=False)
    if cells.possible:
        return _describe(engine, release, left, right, cells)
    # Not rounded once. An engine that rounds every product leaves the cells by a few units; the
    # wider cells say which ratios are left, and replaying the engines says whether it was one.
    wide = _cells(engine, release, left, right, probe=True, roundings=_ROUNDINGS)
    if not wide.possible:
        return None
    sources = (left.source, right.source)
    for weights in decimals(wide.low, wide.high):
        used = replay.exact_engine(engine, release, sources, weights)
        if used:
            return _replayed(release, left, right, weights, used)
    return None


def _cells(
    engine: Engine,
    release: FileSource,
    left: Candidate,
    right: Candidate,
    *,
    probe: bool,
    roundings: int = 0,
) -> Cells:
    """Intersect the intervals: of the first chunk of each tensor, or of everything."""

    def task(chunk: Chunk, scratch: Scratch) -> Cells:
        c = release.read(chunk.name, chunk.start, chunk.stop, scratch)
        a = left.source.read(chunk.name, chunk.start, chunk.stop, scratch)
        b = right.source.read(chunk.name, chunk.start, chunk.stop, scratch)
        unit = _WIDEN + roundings * UNIT[release.specs[chunk.name].dtype]
        return _chunk_cells(c, a.to(torch.float64), b.to(torch.float64), unit)

    chunks: list[Chunk] = []
    for spec in release.specs.values():
        if spec.dtype not in FLOAT_DTYPES or not spec.elements:
            continue
        if probe:
            chunks.append(Chunk(spec.name, 0, min(spec.elements, _PROBE)))
        else:
            chunks.extend(chunks_of(spec))
    parts = engine.map(task, chunks)
    return Cells(
        low=max((p.low for p in parts), default=-math.inf),
        high=min((p.high for p in parts), default=math.inf),
        outside=sum(p.outside for p in parts),
        informative=sum(p.informative for p in parts),
    )


def _chunk_cells(c: Tensor, a: Tensor, b: Tensor, unit: float) -> Cells:
    low, high = _cell(c)
    widen = (a.abs() + b.abs()).mul_(unit)
    low.sub_(widen)
    high.add_(widen)
    # NaN and infinities leave no ratio: a blend of any two positive shares must keep them as they are.
    odd = ~(a.isfinite() & b.isfinite() & c.isfinite())
    kept = (a + b).div_(2)
    outside = int((odd & ~((c == kept) | (c.isnan() & kept.isnan()))).sum())
    apart = (a - b).masked_fill_(odd, 0.0)
    same = apart == 0
    outside += int((same & ~odd & ~((b >= low) & (b <= high))).sum())
    first, second = (low - b) / apart, (high - b) / apart
    lows = torch.where(same, -math.inf, torch.minimum(first, second))
    highs = torch.where(same, math.inf, torch.maximum(first, second))
    return Cells(float(lows.max()), float(highs.min()), outside, int((~same).sum()))


def _cell(c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real numbers that round to each stored value, as [mid below, mid above]."""
    wide = c.to(torch.float64)
    if c.dtype == torch.float16:
        # nextafter has no half kernel: one half ulp on either side, from the exponent.
        exponent = torch.frexp(wide)[1].clamp(min=-13)
        half = torch.ldexp(torch.ones_like(wide), exponent - 12)
        return wide - half, wide + half
    above = torch.nextafter(c, torch.full_like(c, math.inf)).to(torch.float64)
    below = torch.nextafter(c, torch.full_like(c, -math.inf)).to(torch.float64)
    return (wide + below).div_(2), (wide + above).div_(2)


def simplest(low: float, high: float) -> str:
    """Return the decimal with the fewest digits in [low, high]."""
    for digits in range(18):
        scale = 10**digits
        at = math.ceil(Fraction(low) * scale)
        if at <= Fraction(high) * scale:
            sign, number = ("-" if at < 0 else ""), str(abs(at)).rjust(digits + 1, "0")
            return sign + (f"{number[:-digits]}.{number[-digits:]}" if digits else number)
    return repr(low)


def decimals(low: float, high: float) -> list[tuple[str, str]]:
    """Return the pairs (w, 1 - w) of at most three digits with w in [low, high], simplest first."""
    found: dict[Fraction, int] = {}
    for digits in (1, 2, 3):
        scale = 10**digits
        first, last = math.ceil(Fraction(low) * scale), math.floor(Fraction(high) * scale)
        for at in range(max(first, 1), min(last, scale - 1) + 1):
            found.setdefault(Fraction(at, scale), digits)
    simple = sorted(found, key=lambda ratio: (found[ratio], ratio))[:_MAX_RATIOS]
    return [(_text(ratio), _text(1 - ratio)) for ratio in simple]


def _text(ratio: Fraction) -> str:
    return simplest(float(ratio), float(ratio))


def _replayed(
    release: FileSource,
    left: Candidate,
    right: Candidate,
    weights: tuple[str, str],
    used: str,
) -> Finding:
    total = sum(spec.elements for spec in release.specs.values())
    return finding(
        "hidden-merge",
        f"the weights are {weights[0]} x {left.label} + {weights[1]} x {right.label}, with nothing left "
        f"over: all {total:,} elements bit-exact under {used}",
        where=f"{left.label}, {right.label}",
        expected="a recipe that declares this merge",
        found=f"{weights[0]} and {weights[1]}, replayed",
    )


def _describe(
    engine: Engine, release: FileSource, left: Candidate, right: Candidate, cells: Cells
) -> Finding:
    weight = simplest(cells.low, cells.high)
    other = simplest(1 - cells.high, 1 - cells.low)
    total = sum(spec.elements for spec in release.specs.values())
    exact = replay.exact_engine(engine, release, (left.source, right.source), (weight, other))
    strength = f"every tensor bit-exact under {exact}" if exact else "every element in its cell"
    return finding(
        "hidden-merge",
        f"the weights are {weight} x {left.label} + {other} x {right.label}, with nothing left over: "
        f"0 of {total:,} elements outside their rounding cell, {strength}",
        where=f"{left.label}, {right.label}",
        expected="a recipe that declares this merge",
        found=f"ratio in [{cells.low:.9f}, {cells.high:.9f}]",
    )
