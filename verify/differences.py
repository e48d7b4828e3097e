"""Elements of a release counted against what an engine computes: by bits, never by distance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import msgspec
from torch import Tensor

from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of
from parentage.verify.rounding import bits, same_bits
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import Mismatch


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
        return (chunk for name in totals for chunk in chunks_of(step.specs[name]))

    task = compared(engine, release, step, variant)
    for chunk, count in zip(chunks(), engine.stream(task, chunks()), strict=True):
        totals[chunk.name].add(count)
    return totals


def first_difference(
    engine: Engine, release: FileSource, step: StepSource, variant: str, name: str
) -> int | None:
    """Return the first element that the release has otherwise, computing nothing that lies behind it."""
    task = compared(engine, release, step, variant)
    with closing(engine.stream(task, chunks_of(step.specs[name]))) as counts:
        return next((count.first.index for count in counts if count.first is not None), None)


def compared(
    engine: Engine, release: FileSource, step: StepSource, variant: str
) -> Callable[[Chunk, Scratch], Difference]:
    """Return what computes a chunk under one engine and counts where the release has it otherwise."""

    def task(chunk: Chunk, scratch: Scratch) -> Difference:
        expected = step.method.chunk(chunk.name, chunk.start, chunk.stop, variant, scratch)
        found = release.read(chunk.name, chunk.start, chunk.stop, scratch)
        engine.report(expected.numel() * expected.element_size())
        return difference(expected, found, chunk.start)

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
