"""Elements of a release counted against what an engine computes: by bits, never by distance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Final

import msgspec
from torch import Tensor

from parentage.verify.engine import CHUNK_BYTES, Chunk, Engine, StepSource
from parentage.verify.methods.base import Comparing
from parentage.verify.rounding import bits, same_bits
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import Mismatch

#: Chunks of release and inputs that are read at a time where nothing is made of them: between reading and
#: comparing, the interpreter takes as long for many bytes as for few.
_TOGETHER: Final = 12
#: Elements that are looked at first where what is known ends.
_NEAR: Final = 1024


class Difference(msgspec.Struct):
    """How a tensor differs.

    Attributes:
        differing: number of elements.
        first: the first of them.
        places: one in each chunk that differs.
    """

    differing: int
    first: Mismatch | None
    places: list[int] = msgspec.field(default_factory=list)

    def add(self, later: Difference) -> None:
        """Count a range that lies behind this one in the same tensor."""
        self.differing += later.differing
        self.first = self.first or later.first
        self.places += later.places


def differences(
    engine: Engine, release: FileSource, step: StepSource, variant: str, names: Iterable[str]
) -> dict[str, Difference]:
    """Compute tensors under one engine and count the elements that the release has otherwise."""
    totals = {name: Difference(0, None) for name in names}

    def chunks() -> Iterator[Chunk]:
        return (chunk for name in totals for chunk in _pieces(step, name))

    task = compared(engine, release, step, variant)
    for chunk, count in zip(chunks(), engine.stream(task, chunks()), strict=True):
        totals[chunk.name].add(count)
    return totals


def first_difference(
    engine: Engine, release: FileSource, step: StepSource, variant: str, name: str
) -> int | None:
    """Return the first element that the release has otherwise, computing nothing that lies behind it."""
    task = compared(engine, release, step, variant, only_first=True)
    with closing(engine.stream(task, _pieces(step, name, ramp=True))) as counts:
        return next((count.first.index for count in counts if count.first is not None), None)


def together(step: StepSource) -> int:
    """Return how many chunks of a step's output are best compared at a time."""
    if not isinstance(step.method, Comparing):
        return 1
    return max(_TOGETHER // (1 + len(step.inputs)), 1)


def _pieces(step: StepSource, name: str, *, ramp: bool = False) -> Iterator[Chunk]:
    """Cut a tensor; with `ramp` small pieces come first: what differs does so near the beginning."""
    spec, most = step.specs[name], together(step)
    many, start = 1 if ramp else most, 0
    while start < spec.units:
        stop = min(start + many * CHUNK_BYTES // spec.unit, spec.units)
        yield Chunk(name, start, stop)
        many, start = min(2 * many, most), stop


def compared(
    engine: Engine,
    release: FileSource,
    step: StepSource,
    variant: str,
    *,
    only_first: bool = False,
) -> Callable[[Chunk, Scratch], Difference]:
    """Return what computes some chunks under one engine and counts where the release has them otherwise.

    Args:
        engine: told of the bytes done.
        release: the weights.
        step: computes them.
        variant: its engine.
        only_first: count no further than the piece with the first difference.
    """
    method = step.method
    comparing = method if isinstance(method, Comparing) else None
    # Where a tensor differs once it will again, and its inputs would be read twice each time.
    missed: set[str] = set()

    def task(chunks: Chunk, scratch: Scratch) -> Difference:
        name, start, stop = chunks.name, chunks.start, chunks.stop
        unit, total = step.specs[name].unit, Difference(0, None)
        if comparing is not None and name not in missed:
            found = release.read(name, start, stop, scratch)
            done = comparing.known(name, start, stop, variant, found, scratch)
            engine.report(done * unit)
            start += done
            if start < stop:
                missed.add(name)
        size = _NEAR if only_first and start > chunks.start else CHUNK_BYTES // unit
        while start < stop:
            here = Chunk(name, start, min(start + size, stop))
            scratch.reset()
            expected = method.chunk(name, here.start, here.stop, variant, scratch)
            total.add(
                difference(expected, release.read(name, here.start, here.stop, scratch), start)
            )
            engine.report((here.stop - start) * unit)
            if only_first and total.differing:
                break
            start, size = here.stop, CHUNK_BYTES // unit
        return total

    return task


def difference(expected: Tensor, found: Tensor, start: int) -> Difference:
    """Compare by bits: NaN payloads, infinities and negative zero included."""
    if same_bits(expected, found):
        return Difference(0, None)
    differs = bits(expected) != bits(found)
    at = int(differs.nonzero()[0])
    first = Mismatch(index=start + at, expected=_show(expected, at), found=_show(found, at))
    return Difference(int(differs.sum()), first, [first.index])


def _show(values: Tensor, at: int) -> str:
    width = values.element_size()
    pattern = int(bits(values)[at]) & ((1 << (8 * width)) - 1)
    return f"{values[at].item()!r} (0x{pattern:0{2 * width}x})"
