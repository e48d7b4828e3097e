"""Recipes executed: steps bound to their inputs, tensors cut into chunks, chunks run on threads.

A step is a source of tensors like a file is, so a chain of steps needs no intermediate on disk.
Memory is bounded by chunk size x threads x steps in the chain, never by the model.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import islice
from typing import Final, TypeVar

import msgspec
import torch
from torch import Tensor

from parentage.manifest import digest
from parentage.manifest.errors import CannotRunError, UsageError
from parentage.manifest.hashing import Expecting, Progress, default_threads
from parentage.manifest.steps import DECLARED, Step
from parentage.manifest.tensor import TensorSpec
from parentage.verify.methods import METHODS
from parentage.verify.methods.base import Method
from parentage.verify.values import Scratch, Source

#: Bytes of the stored dtype in one chunk: a multiple of PTD-1's 1 MiB, small enough for caches.
CHUNK_BYTES: Final = digest.CHUNK
_DEVICES: Final = re.compile("auto|cuda|all|cuda:[0-9]{1,3}(,cuda:[0-9]{1,3})*")

#: Chunks begun but not yet handed over, a thread: enough that none waits for a slow neighbour, and
#: few enough that a model of any size has no queue to speak of.
_AHEAD: Final = 32

T = TypeVar("T")


class Chunk(msgspec.Struct, frozen=True):
    """Units [start, stop) of a tensor: elements, or bytes where an element is no whole byte."""

    name: str
    start: int
    stop: int


class Engine(msgspec.Struct):
    """Where the work runs.

    Attributes:
        device: the first, or only, device.
        threads: worker threads; torch itself runs with one thread in each.
        progress: told of the bytes done, and of the bytes to come if it wants to know.
        others: more devices; threads take them in turn.
    """

    device: torch.device
    threads: int = msgspec.field(default_factory=default_threads)
    progress: Progress | None = None
    others: tuple[torch.device, ...] = ()
    _spare: list[Scratch] = msgspec.field(default_factory=list)

    def map(self, task: Callable[[Chunk, Scratch], T], chunks: Iterable[Chunk]) -> list[T]:
        """Run `task` on every chunk and return the results in order."""
        with closing(self.stream(task, chunks)) as results:
            return list(results)

    def stream(
        self, task: Callable[[Chunk, Scratch], T], chunks: Iterable[Chunk]
    ) -> Generator[T, None, None]:
        """Run `task` on every chunk and yield the results in order, as they are ready.

        Chunks are taken from `chunks` as threads become free, so it may be as long as it likes. The
        first failure, in order, is raised, and nothing after it is begun; so is closing the iterator.
        """
        devices = (self.device, *self.others)
        threads = max(self.threads, len(devices))
        local, lock = threading.local(), threading.Lock()
        stop = threading.Event()
        dealt: list[Scratch] = []

        def scratch_of_thread() -> Scratch:
            scratch: Scratch | None = getattr(local, "scratch", None)
            if scratch is None:
                with lock:
                    scratch = local.scratch = self._scratch(devices[len(dealt) % len(devices)])
                    dealt.append(scratch)
            scratch.reset()
            return scratch

        def run(chunk: Chunk) -> T | None:
            if stop.is_set():
                return None
            with torch.inference_mode():
                return task(chunk, scratch_of_thread())

        _keep_freed_memory()
        try:
            # A thread takes over torch's number of threads when it first asks for it.
            with (
                torch_threads(1),
                ThreadPoolExecutor(
                    threads, thread_name_prefix="recompute", initializer=torch.get_num_threads
                ) as pool,
            ):
                pending: deque[Future[T | None]] = deque()
                rest = iter(chunks)
                try:
                    for chunk in islice(rest, threads * _AHEAD):
                        pending.append(pool.submit(run, chunk))
                    while pending:
                        result = pending.popleft().result()
                        for chunk in islice(rest, 1):
                            pending.append(pool.submit(run, chunk))
                        yield result  # type: ignore[misc]  # None only after `stop`
                except BaseException:
                    stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        finally:
            # A search for scalars is many short streams: fresh memory would take longer than they do.
            self._spare.extend(dealt)
            _give_back_memory()

    def _scratch(self, device: torch.device) -> Scratch:
        """Return buffers that an earlier stream has left, or new ones."""
        for at, spare in enumerate(self._spare):
            if spare.device == device:
                return self._spare.pop(at)
        return Scratch(device)

    def report(self, nbytes: int) -> None:
        """Tell of work done."""
        if self.progress is not None:
            self.progress(nbytes)

    def expect(self, nbytes: int) -> None:
        """Tell of work that is to come, or (negative) that need not be done after all."""
        progress: object = self.progress
        if isinstance(progress, Expecting):
            progress.expect(nbytes)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch split its operations between so many threads of its own, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _keep_freed_memory() -> None:
    """Tell glibc to reuse freed chunks instead of giving them back to the kernel.

    Temporaries of a few MB are otherwise mapped and unmapped for every operation: page faults
    took longer than the arithmetic. Elsewhere this does nothing.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 32 << 20)
        libc.mallopt(m_trim_threshold, 256 << 20)


def _give_back_memory() -> None:
    """Give what is free back to the kernel between phases: what one kept, the next may not need."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def pick_device(name: str) -> torch.device:
    """Return the first device for `--device`.

    Raises:
        CannotRunError: it is not there.
    """
    return pick_devices(name)[0]


def pick_devices(name: str) -> tuple[torch.device, ...]:
    """Return the devices for `--device`: auto, cpu, cuda, all, or a list such as cuda:0,cuda:1.

    Raises:
        UsageError: the name is none of these.
        CannotRunError: a CUDA device was demanded and is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return (torch.device("cpu"),)
    if not _DEVICES.fullmatch(name):
        raise UsageError(
            "no such device", expected="auto, cpu, cuda, all or cuda:0,cuda:1", found=name
        )
    if not count:
        raise CannotRunError("no CUDA device here", hint="use --device cpu (the same result)")
    if name == "all":
        return tuple(torch.device("cuda", index) for index in range(count))
    if name in {"auto", "cuda"}:
        return (torch.device("cuda"),)
    found = tuple(dict.fromkeys(torch.device(part) for part in name.split(",")))
    for device in found:
        if (device.index or 0) >= count:
            raise CannotRunError(
                "no such CUDA device here",
                expected=f"cuda:0 to cuda:{count - 1}",
                found=str(device),
            )
    return found


def chunks_of(spec: TensorSpec) -> Iterator[Chunk]:
    """Cut a tensor into chunks of whole units."""
    size = CHUNK_BYTES // spec.unit
    for start in range(0, spec.units, size):
        yield Chunk(spec.name, start, min(start + size, spec.units))


class StepSource:
    """A computable step's output under one engine variant, as a source for the next step.

    Attributes:
        step, method: the step and what computes it.
        inputs: what the step reads, by id.
        variant: the engine that the next step's input is computed under.
        confirmed: whether the output has the root that the recipe declares for it.
    """

    def __init__(
        self, step: Step, method: Method, inputs: Mapping[str, Source] | None = None
    ) -> None:
        self.step = step
        self.method = method
        self.inputs = inputs or {}
        self.variant = method.variants[0]
        self.confirmed = False

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Names, dtypes and shapes."""
        return self.method.specs

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Compute elements [start, stop)."""
        return self.method.chunk(name, start, stop, self.variant, scratch)

    def alias(self, name: str) -> tuple[Source, str]:
        """Return where the tensor is copied from unchanged, or itself."""
        return self.method.alias(name) or (self, name)


def bind(steps: Sequence[Step], parents: Mapping[str, Source]) -> dict[str, StepSource]:
    """Bind every step that can be computed from `parents`; later declared steps are left out.

    Raises:
        ShapeMismatchError: inputs of a step do not fit together.
        RecipeError: a profile does not know the op.
    """
    known: dict[str, Source] = dict(parents)
    bound: dict[str, StepSource] = {}
    for step in steps:
        if isinstance(step, DECLARED) or any(name not in known for name in step.inputs):
            continue
        inputs = {name: known[name] for name in step.inputs}
        method = METHODS[type(step)](step, inputs)
        known[step.id] = bound[step.id] = StepSource(step, method, inputs)
    return bound


def leaves_of(
    engine: Engine, source: Source, profiles: Sequence[digest.Profile]
) -> Callable[[Chunk, Scratch], dict[digest.Profile, bytes]]:
    """Return what computes a chunk's leaves; a chunk holds whole leaves, or is the tensor's last."""

    def leaves(chunk: Chunk, scratch: Scratch) -> dict[digest.Profile, bytes]:
        view = scratch.to_bytes(source.read(chunk.name, chunk.start, chunk.stop, scratch).cpu())
        engine.report(len(view))
        starts = range(0, len(view), digest.CHUNK)
        return {
            profile: b"".join(digest.leaf(profile, view[at : at + digest.CHUNK]) for at in starts)
            for profile in profiles
        }

    return leaves


def identities(
    engine: Engine, source: Source, profiles: Sequence[digest.Profile] = (digest.B3,)
) -> dict[digest.Profile, dict[str, str]]:
    """Return the tensor identities of a source, computing what must be computed."""

    def chunks() -> Iterator[Chunk]:
        return (chunk for spec in source.specs.values() for chunk in chunks_of(spec))

    found: dict[digest.Profile, dict[str, bytearray]] = {
        profile: {name: bytearray() for name in source.specs} for profile in profiles
    }
    leaves = leaves_of(engine, source, profiles)
    for chunk, part in zip(chunks(), engine.stream(leaves, chunks()), strict=True):
        for profile, data in part.items():
            found[profile][chunk.name] += data
    return {
        profile: {
            name: digest.identity(profile, spec.dtype, spec.shape, spec.nbytes, named[name])
            for name, spec in source.specs.items()
        }
        for profile, named in found.items()
    }


def roots(
    engine: Engine, source: Source, profiles: Sequence[digest.Profile] = (digest.B3,)
) -> dict[digest.Profile, str]:
    """Return the weights roots of a source."""
    return {
        profile: digest.weights_root(profile, named.items())
        for profile, named in identities(engine, source, profiles).items()
    }
