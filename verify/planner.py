"""A step cut into tasks: ranges of one tensor, each independent of every other, with what it reads.

What a task gives depends on its range alone, so that the same tasks run on threads, on several
devices, in other processes or on other days. A method that finds facts of whole tensors (norms,
thresholds, masks) is cut between tensors; every other one inside them, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import Final

import msgspec

from parentage.manifest.tensor import TensorSpec
from parentage.verify.engine import CHUNK_BYTES, Chunk, StepSource, chunks_of
from parentage.verify.methods.base import Method, Reading
from parentage.verify.methods.cast import CastMethod
from parentage.verify.methods.copies import Copies
from parentage.verify.methods.lora import LoraMethod
from parentage.verify.methods.scale import ScaleMethod
from parentage.verify.methods.weighted_sum import WeightedSumMethod
from parentage.verify.values import FileSource, Source

#: Chunks in a task of a method that may be cut inside a tensor: what a kill loses at most, a thread.
SPAN: Final = 64
#: Bytes that are read ahead of a task, a file: as much as a span.
_AHEAD_BYTES: Final = SPAN * CHUNK_BYTES
#: Methods that find nothing of whole tensors. Any other is cut between tensors only.
_ELEMENTWISE: Final[tuple[type[Method], ...]] = (
    *(CastMethod, Copies, LoraMethod, ScaleMethod, WeightedSumMethod),
)


class Task(msgspec.Struct, frozen=True):
    """Elements [start, stop) of a tensor, as whole chunks."""

    name: str
    start: int
    stop: int


class Read(msgspec.Struct, frozen=True):
    """Elements [start, stop) of a tensor in a file of weights."""

    source: FileSource
    name: str
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Return the bytes of the range."""
        return (self.stop - self.start) * self._unit

    @property
    def _unit(self) -> int:
        return self.source.specs[self.name].unit

    def will_need(self) -> None:
        """Have the system read the range, or its beginning if it is long."""
        tensor = self.source.model.tensors[self.name]
        start = tensor.start + self.start * self._unit
        self.source.model.file_of(tensor).will_need(start, min(self.nbytes, _AHEAD_BYTES))


def whole_tensors(source: Source) -> bool:
    """Say whether any step of a chain finds facts of whole tensors: those are found once a task."""
    if not isinstance(source, StepSource):
        return False
    if not isinstance(source.method, _ELEMENTWISE):
        return True
    return any(whole_tensors(origin) for origin in source.inputs.values())


def tasks(source: StepSource, names: Iterable[str]) -> list[Task]:
    """Cut tensors of a step into tasks; their order is the tensors', then the elements'."""
    whole = whole_tensors(source)
    found: list[Task] = []
    for name in names:
        spec = source.specs[name]
        if whole or not spec.units:
            found.append(Task(name, 0, spec.units))
            continue
        starts = [chunk.start for chunk in chunks_of(spec)][::SPAN]
        for start, stop in zip(starts, [*starts[1:], spec.units], strict=True):
            found.append(Task(name, start, stop))
    return found


def chunks_in(spec: TensorSpec, task: Task, together: int = 1) -> Iterator[Chunk]:
    """Cut a task into chunks: those of its tensor that begin inside it, so many at a time."""
    width = together * next((chunk.stop for chunk in chunks_of(spec)), 1)
    for start in range(task.start, task.stop, width):
        yield Chunk(task.name, start, min(start + width, task.stop))


def size_of(spec: TensorSpec, task: Task) -> int:
    """Return the bytes that a task's range takes in the release."""
    return (task.stop - task.start) * spec.unit


def reads(source: Source, name: str, start: int, stop: int) -> list[Read]:
    """Return what computing elements [start, stop) of a tensor reads from files, each range once.

    A method says what it reads (`Reading`); else it reads the same elements of its inputs, or the
    whole of that tensor if it is not elementwise.
    """
    found: dict[Read, None] = {}
    if isinstance(source, FileSource):
        found[Read(source, name, start, stop)] = None
    elif isinstance(source, StepSource):
        for origin, old, first, last in _read_by(source, name, start, stop):
            found.update(dict.fromkeys(reads(origin, old, first, last)))
    return list(found)


def _read_by(
    source: StepSource, name: str, start: int, stop: int
) -> Iterable[tuple[Source, str, int, int]]:
    if isinstance(source.method, Reading):
        yield from source.method.reads(name, start, stop)
        return
    for origin in source.inputs.values():
        if name not in origin.specs:
            continue  # it reads other tensors and does not say which: those are not read ahead
        elements = origin.specs[name].units
        whole = not isinstance(source.method, _ELEMENTWISE)
        yield (origin, name, 0, elements) if whole else (origin, name, start, stop)


def shares(specs: Mapping[str, TensorSpec], count: int) -> list[list[str]]:
    """Deal the tensors of a release to `count` shards: runs in byte order of their names.

    A tensor is in the shard that its middle byte falls into, so the split follows from names and
    sizes alone, and no shard has more than its part and half a tensor on either side.
    """
    found: list[list[str]] = [[] for _ in range(count)]
    order = sorted(specs, key=lambda name: name.encode())
    total = max(sum(spec.nbytes for spec in specs.values()), 1)
    before = 0
    for name in order:
        size = specs[name].nbytes
        found[min((2 * before + size) * count // (2 * total), count - 1)].append(name)
        before += size
    return found


def sample(
    specs: Mapping[str, TensorSpec], names: Sequence[str], count: int, seed: bytes
) -> list[Chunk]:
    """Draw `count` chunks without replacement, each as likely: those with the smallest SHA-256.

    The hash is over seed, start (u64le) and name, so that anyone can draw the same ones.
    """

    def ticket(chunk: Chunk) -> bytes:
        place = chunk.start.to_bytes(8, "little")
        return hashlib.sha256(seed + place + chunk.name.encode()).digest()

    every = (chunk for name in names for chunk in chunks_of(specs[name]))
    return sorted(nsmallest(count, every, key=ticket), key=lambda c: (c.name.encode(), c.start))
