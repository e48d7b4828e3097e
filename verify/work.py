"""What is done with a task, and who does it: one result for each task, whoever runs it.

A job names everything that its results depend on beside release and parents, so that a result can be
kept (journal.py), signed (parts.py) or asked of another process (on_ray.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from typing import Final, Protocol, TypeVar

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import Profile
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify import planner, rungs
from parentage.verify.differences import Difference, compared, together
from parentage.verify.engine import CHUNK_BYTES, Chunk, Engine, StepSource, leaves_of
from parentage.verify.journal import Journal
from parentage.verify.methods.base import Scalared
from parentage.verify.planner import Task, chunks_in, size_of
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import TensorResult

#: Chunks that a thread takes at a time at most, where that leaves each thread so many turns.
_TAKEN: Final = 16
_TURNS: Final = 8

T = TypeVar("T")


class Job(msgspec.Struct, frozen=True, kw_only=True, tag_field="job"):
    """What all jobs name.

    Attributes:
        step: of the recipe.
        engines: of the steps before it, in the recipe's order: what its inputs are computed under.
    """

    step: str
    engines: tuple[str, ...] = ()


class Compare(Job, frozen=True, kw_only=True, tag="compare"):
    """Count the elements that the release has otherwise than `engine` gives."""

    engine: str


class Identify(Job, frozen=True, kw_only=True, tag="identify"):
    """Compute the leaves of the output under `engine`."""

    engine: str
    profiles: tuple[Profile, ...]


class Lower(Job, frozen=True, kw_only=True, tag="lower"):
    """Find the best rung below A; `missed` are the results so far, by tensor."""

    missed: dict[str, TensorResult]


class Leaves(msgspec.Struct):
    """Concatenated leaves, by profile."""

    by_profile: dict[Profile, bytes]

    def add(self, later: Leaves) -> None:
        """Append those of a range that lies behind this one in the same tensor."""
        for profile, data in later.by_profile.items():
            self.by_profile[profile] += data


AnyJob = Compare | Identify | Lower
Result = Difference | Leaves | TensorResult


class Scene(msgspec.Struct, frozen=True):
    """What tasks are about.

    Attributes:
        release: the weights that are claimed.
        bound: the steps that can be computed, by id, in the recipe's order.
        confirm: raises where the parents are not the declared ones. It is asked as soon as something
            differs: with another parent everything does, and each difference calls for more work.
    """

    release: FileSource
    bound: Mapping[str, StepSource]
    confirm: Callable[[], None] = lambda: None

    def engines(self, step: str) -> tuple[str, ...]:
        """Return the engines of the steps before one."""
        found: list[str] = []
        for name, source in self.bound.items():
            if name == step:
                break
            found.append(source.variant)
        return tuple(found)

    def set_engines(self, job: AnyJob) -> StepSource:
        """Bring the steps before a job's under its engines, and return its step."""
        for source, variant in zip(self.bound.values(), job.engines, strict=False):
            source.variant = variant
        return self.bound[job.step]


class Runner(Protocol):
    """Runs tasks."""

    def run(self, job: AnyJob, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield a result for every task, in any order."""


class Threads:
    """Runs tasks in this process: their chunks on the engine's threads, on all of its devices."""

    def __init__(self, engine: Engine, scene: Scene) -> None:
        self.engine = engine
        self.scene = scene

    def run(self, job: AnyJob, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield results in the order of the tasks."""
        source = self.scene.set_engines(job)
        if isinstance(job, Lower):
            for task in tasks:
                yield task, self._lower(source, job.missed[task.name])
        elif isinstance(job, Compare):
            compare = compared(self.engine, self.scene.release, source, job.engine)

            def decided(chunk: Chunk, found: Difference) -> bool:
                return bool(found.differing) and _has_scalars(source, chunk.name, job.engine)

            spread = self._spread(source, tasks, compare, decided, together(source))
            for task, counts in spread:
                total = Difference(0, None)
                for count in counts:
                    total.add(count)
                total.places.clear()
                yield task, total
        else:
            source.variant = job.engine
            hashing = leaves_of(self.engine, source, job.profiles)
            for task, parts in self._spread(source, tasks, hashing):
                joint = {
                    profile: b"".join(part[profile] for part in parts) for profile in job.profiles
                }
                yield task, Leaves(joint)

    def _spread(
        self,
        source: StepSource,
        tasks: Sequence[Task],
        work: Callable[[Chunk, Scratch], T],
        decided: Callable[[Chunk, T], bool] | None = None,
        many: int = 1,
    ) -> Iterator[tuple[Task, list[T]]]:
        """Run the chunks of tasks on the threads, so many together, and yield each task with the results.

        A task that one thread keeps to itself ends with the first chunk that decides it.

        Where facts of whole tensors are found, a thread keeps a tensor to itself: others that came for
        its next chunks would only wait for those facts.
        """
        alone = planner.whole_tensors(source) and len(tasks) >= self.engine.threads
        nbytes = sum(size_of(source.specs[task.name], task) for task in tasks)
        turns = _TURNS * self.engine.threads * many * CHUNK_BYTES
        taken = 0 if alone else many * min(_TAKEN // many, max(nbytes // turns, 1))
        units = [self._units(source, task, taken) for task in tasks]

        def run(unit: Chunk, scratch: Scratch) -> list[T]:
            found: list[T] = []
            whole = Task(unit.name, unit.start, unit.stop)
            for part in chunks_in(source.specs[unit.name], whole, many):
                scratch.reset()
                found.append(work(part, scratch))
                if alone and decided is not None and decided(part, found[-1]):
                    self.engine.report((unit.stop - part.stop) * source.specs[unit.name].unit)
                    break
            return found

        def in_turn() -> Iterator[Chunk]:
            for parts, later in zip_longest(units, tasks[1:]):
                if later is not None:
                    self._read_ahead(source, later)
                yield from parts

        with closing(self.engine.stream(run, in_turn())) as results:
            for task, parts in zip(tasks, units, strict=True):
                yield task, [found for _ in parts for found in next(results)]

    def _units(self, source: StepSource, task: Task, taken: int) -> list[Chunk]:
        """Cut a task into what a thread takes at a time: so many chunks, or 0 for all of it."""
        if not taken:
            return [Chunk(task.name, task.start, task.stop)]
        return list(chunks_in(source.specs[task.name], task, taken))

    def _read_ahead(self, source: StepSource, task: Task) -> None:
        """Let the disk work while the threads compute."""
        for origin in (source, self.scene.release):
            if task.name in origin.specs:
                for read in planner.reads(origin, task.name, task.start, task.stop):
                    read.will_need()

    def _lower(self, source: StepSource, missed: TensorResult) -> TensorResult:
        """Search from the published scalars, whatever was searched before."""
        method = source.method
        published = dict(method.witness) if isinstance(method, Scalared) else {}
        try:
            # The search writes into what it is given; a job's input stays as it is.
            result = msgspec.convert(msgspec.to_builtins(missed), TensorResult)
            return rungs.below_exact(self.engine, self.scene.release, source, result)
        finally:
            if isinstance(method, Scalared):
                method.witness.clear()
                method.witness.update(published)


def _has_scalars(source: StepSource, name: str, engine: str) -> bool:
    """Say whether one other bit sends a tensor to the search for scalars, however many there are."""
    method = source.method
    if not isinstance(method, Scalared) or method.deterministic:
        return False
    return source.specs[name].dtype in FLOAT_DTYPES and bool(method.scalars(name, engine))


class Kept:
    """Runs only the tasks that a journal has no result of, and keeps those results there."""

    def __init__(self, inner: Runner, journal: Journal, engine: Engine, scene: Scene) -> None:
        self._inner, self._journal = inner, journal
        self._engine, self._scene = engine, scene

    def run(self, job: AnyJob, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield what is known, then the rest."""
        left: list[Task] = []
        for task in tasks:
            data = self._journal.known.get(_key(job, task))
            if data is None:
                left.append(task)
                continue
            self._engine.expect(-size_of(self._scene.bound[job.step].specs[task.name], task))
            yield task, decode(job, data)
        if left:
            for task, result in self._inner.run(job, left):
                self._journal.add(_key(job, task), encode(result))
                yield task, result


def _key(job: AnyJob, task: Task) -> str:
    """Return job and task as JSON; of what was missed before, only that of the task's tensor."""
    if isinstance(job, Lower):
        job = msgspec.structs.replace(job, missed={task.name: job.missed[task.name]})
    return msgspec.json.encode([job, task]).decode()


def encode(result: Result) -> bytes:
    """Return a result as JSON."""
    return msgspec.json.encode(result)


def decode(job: AnyJob, data: bytes) -> Result:
    """Return the result of a job from its JSON."""
    kinds: dict[type[Job], type[Result]] = {
        Compare: Difference,
        Identify: Leaves,
        Lower: TensorResult,
    }
    return msgspec.json.decode(data, type=kinds[type(job)])


def joined(tasks: Sequence[Task], results: Mapping[Task, Result]) -> dict[str, Result]:
    """Join the results of each tensor's tasks, given in the order of its elements."""
    found: dict[str, Result] = {}
    for task in tasks:
        part = results[task]
        match found.get(task.name), part:
            case (Difference() as whole, Difference()) | (Leaves() as whole, Leaves()):
                whole.add(part)  # type: ignore[arg-type]  # the same kind, says the pattern
            case _:
                found[task.name] = part
    return found


def identities_of(
    source: StepSource, leaves: Mapping[str, Leaves]
) -> dict[Profile, dict[str, str]]:
    """Return the tensor identities that leaves give, by profile and name."""
    found: dict[Profile, dict[str, str]] = {}
    for name, whole in leaves.items():
        spec = source.specs[name]
        for profile, data in whole.by_profile.items():
            identity = digest.identity(profile, spec.dtype, spec.shape, spec.nbytes, data)
            found.setdefault(profile, {})[name] = identity
    return found
