"""Recompute-and-compare: the rung that each tensor of the release reaches against a step.

Rung A: every element has the bits of one engine of the declared profile. Rung C: every element lies
in the interval that any engine within a proven error bound can reach; ambiguous elements (two
values allowed) are counted, and so are those that no known engine produces. One element outside
refutes. Under `parentage-1` nothing is free, so one other bit refutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import torch
from torch import Tensor

from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of
from parentage.verify.rounding import bits, same_bits
from parentage.verify.sources import FileSource, Scratch, Source
from parentage.verify.verdict import Mismatch, Rung, TensorResult


class _Count(msgspec.Struct):
    differing: int
    first: Mismatch | None


def compare(engine: Engine, release: FileSource, step: StepSource) -> list[TensorResult]:
    """Return one result for each tensor that both have; names must be checked before."""
    names = [name for name in step.specs if name in release.specs]
    results: dict[str, TensorResult] = {}
    best: dict[str, dict[str, _Count]] = {name: {} for name in names}
    for variant in step.method.variants:
        for name, count in _differences(engine, release, step, variant, names).items():
            best[name][variant] = count
        if not any(best[name][variant].differing for name in names):
            break
    chosen = _one_engine(step, best)
    bad: list[str] = []
    for name in names:
        count = best[name][chosen]
        results[name] = TensorResult(
            name=name,
            rung=Rung.REFUTED if count.differing else Rung.EXACT,
            elements=step.specs[name].elements,
            differing=count.differing,
            engine=chosen,
            first=count.first,
        )
        if count.differing:
            bad.append(name)
    if not step.method.deterministic:
        for name in bad:
            _in_cell(engine, release, step, results[name])
    return [results[name] for name in names]


def _one_engine(step: StepSource, best: dict[str, dict[str, _Count]]) -> str:
    """Return the variant that most tensors equal: rung A is one engine for the whole step."""
    exact = Counter(
        variant for counts in best.values() for variant, c in counts.items() if not c.differing
    )
    order = [v for v in step.method.variants if all(v in counts for counts in best.values())]
    return max(order, key=lambda variant: (exact[variant], -order.index(variant)))


def _differences(
    engine: Engine, release: FileSource, step: StepSource, variant: str, names: Iterable[str]
) -> dict[str, _Count]:
    def task(chunk: Chunk, scratch: Scratch) -> _Count:
        expected = step.method.chunk(chunk.name, chunk.start, chunk.stop, variant, scratch)
        found = release.read(chunk.name, chunk.start, chunk.stop, scratch)
        engine.report(expected.numel() * expected.element_size())
        return _difference(expected, found, chunk.start)

    totals = {name: _Count(0, None) for name in names}
    chunks = [chunk for name in totals for chunk in chunks_of(step.specs[name])]
    for chunk, count in zip(chunks, engine.map(task, chunks), strict=True):
        total = totals[chunk.name]
        total.differing += count.differing
        total.first = total.first or count.first
    return totals


def _difference(expected: Tensor, found: Tensor, start: int) -> _Count:
    """Compare by bits: NaN payloads, infinities and negative zero included."""
    if same_bits(expected, found):
        return _Count(0, None)
    differs = bits(expected) != bits(found)
    at = int(differs.nonzero()[0])
    first = Mismatch(index=start + at, expected=_show(expected, at), found=_show(found, at))
    return _Count(int(differs.sum()), first)


def _show(values: Tensor, at: int) -> str:
    width = values.element_size()
    pattern = int(bits(values)[at]) & ((1 << (8 * width)) - 1)
    return f"{values[at].item()!r} (0x{pattern:0{2 * width}x})"


def _in_cell(engine: Engine, release: FileSource, step: StepSource, result: TensorResult) -> None:
    """Try rung C for a tensor that no engine gives exactly: the cells of one engine, for all of it."""
    if step.specs[result.name].dtype not in FLOAT_DTYPES:
        return
    counts = {v: _outside(engine, release, step, result.name, v) for v in step.method.variants}
    bounded = {variant: count for variant, count in counts.items() if count is not None}
    if not bounded:
        return
    best = min(bounded, key=lambda variant: (bounded[variant].outside, bounded[variant].ambiguous))
    found = bounded[best]
    result.ambiguous, result.unexplained = found.ambiguous, found.unexplained
    if found.outside:
        result.rung = Rung.REFUTED
    elif not step.method.proven_bound:
        result.rung = Rung.UNPROVEN
    else:
        result.rung = Rung.IN_CELL


class _Cells(msgspec.Struct):
    outside: int
    ambiguous: int
    unexplained: int


def _outside(
    engine: Engine, release: FileSource, step: StepSource, name: str, variant: str
) -> _Cells | None:
    """Count a tensor's elements against the interval of one engine; None where it has no bound."""

    def task(chunk: Chunk, scratch: Scratch) -> tuple[int, int, int] | None:
        allowed = step.method.interval(chunk.name, chunk.start, chunk.stop, variant, scratch)
        if allowed is None:
            return None
        low, high = allowed
        found = release.read(chunk.name, chunk.start, chunk.stop, scratch)
        inside = (found >= low) & (found <= high)
        known = torch.zeros_like(inside)
        for engine_name in step.method.variants:
            value = step.method.chunk(chunk.name, chunk.start, chunk.stop, engine_name, scratch)
            same = bits(value) == bits(found)
            known |= same
            if engine_name == variant:
                inside |= same
        return int((~inside).sum()), int((low != high).sum()), int((~known).sum())

    parts = engine.map(task, list(chunks_of(step.specs[name])))
    counted = [part for part in parts if part is not None]
    if len(counted) != len(parts):
        return None
    outside, ambiguous, unexplained = (sum(column) for column in zip(*counted, strict=True))
    return _Cells(outside, ambiguous, unexplained)


def equal_share(engine: Engine, left: Source, right: Source) -> dict[str, int]:
    """Return, for each tensor that both have in one shape and dtype, how many elements differ."""

    def task(chunk: Chunk, scratch: Scratch) -> int:
        a = left.read(chunk.name, chunk.start, chunk.stop, scratch)
        b = right.read(chunk.name, chunk.start, chunk.stop, scratch)
        engine.report(a.numel() * a.element_size())
        return _difference(a, b, chunk.start).differing

    names = [name for name, spec in left.specs.items() if right.specs.get(name) == spec]
    chunks = [chunk for name in names for chunk in chunks_of(left.specs[name])]
    totals = dict.fromkeys(names, 0)
    for chunk, differing in zip(chunks, engine.map(task, chunks), strict=True):
        totals[chunk.name] += differing
    return totals
