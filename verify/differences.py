"""Elements of a release counted against what an engine computes: by bits, never by distance."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from torch import Tensor

from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of
from parentage.verify.rounding import bits, same_bits
from parentage.verify.sources import FileSource, Scratch
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


def differences(
    engine: Engine, release: FileSource, step: StepSource, variant: str, names: Iterable[str]
) -> dict[str, Difference]:
    """Compute tensors under one engine and count the elements that the release has otherwise."""

    def task(chunk: Chunk, scratch: Scratch) -> Difference:
        expected = step.method.chunk(chunk.name, chunk.start, chunk.stop, variant, scratch)
        found = release.read(chunk.name, chunk.start, chunk.stop, scratch)
        engine.report(expected.numel() * expected.element_size())
        return difference(expected, found, chunk.start)

    totals = {name: Difference(0, None) for name in names}
    chunks = [chunk for name in totals for chunk in chunks_of(step.specs[name])]
    for chunk, count in zip(chunks, engine.map(task, chunks), strict=True):
        total = totals[chunk.name]
        total.differing += count.differing
        total.first = total.first or count.first
        total.places += [count.first.index] if count.first else []
    return totals


def difference(expected: Tensor, found: Tensor, start: int) -> Difference:
    """Compare by bits: NaN payloads, infinities and negative zero included."""
    if same_bits(expected, found):
        return Difference(0, None)
    differs = bits(expected) != bits(found)
    at = int(differs.nonzero()[0])
    first = Mismatch(index=start + at, expected=_show(expected, at), found=_show(found, at))
    return Difference(int(differs.sum()), first)


def _show(values: Tensor, at: int) -> str:
    width = values.element_size()
    pattern = int(bits(values)[at]) & ((1 << (8 * width)) - 1)
    return f"{values[at].item()!r} (0x{pattern:0{2 * width}x})"
