"""Recipes executed: steps bound to their inputs, tensors cut into chunks, chunks run on threads.

A step is a source of tensors like a file is, so a chain of steps needs no intermediate on disk.
Memory is bounded by chunk size x threads x steps in the chain, never by the model.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import Final, TypeVar

import msgspec
import torch
from torch import Tensor

from parentage.manifest import digest
from parentage.manifest.errors import CannotRunError
from parentage.manifest.hashing import Progress, default_threads
from parentage.manifest.steps import DECLARED, Step
from parentage.manifest.tensor import TensorSpec
from parentage.verify.methods import METHODS
from parentage.verify.methods.base import Method
from parentage.verify.sources import Scratch, Source

#: Bytes of the stored dtype in one chunk: a multiple of PTD-1's 1 MiB, small enough for caches.
CHUNK_BYTES: Final = digest.CHUNK

T = TypeVar("T")


class Chunk(msgspec.Struct, frozen=True):
    """Units [start, stop) of a tensor: elements, or bytes where an element is no whole byte."""

    name: str
    start: int
    stop: int


class Engine(msgspec.Struct):
    """Where the work runs.

    Attributes:
        device: "cpu" or "cuda".
        threads: worker threads; torch itself runs with one thread in each.
        progress: told of the bytes done.
    """

    device: torch.device
    threads: int = msgspec.field(default_factory=default_threads)
    progress: Progress | None = None

    def map(self, task: Callable[[Chunk, Scratch], T], chunks: Iterable[Chunk]) -> list[T]:
        """Run `task` on every chunk and return the results in order."""
        local = threading.local()
        stop = threading.Event()

        def run(chunk: Chunk) -> T | None:
            if stop.is_set():
                return None
            scratch: Scratch | None = getattr(local, "scratch", None)
            if scratch is None:
                scratch = local.scratch = Scratch(self.device)
            scratch.reset()
            with torch.inference_mode():
                return task(chunk, scratch)

        _keep_freed_memory()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            # A thread takes over torch's number of threads when it first asks for it.
            with ThreadPoolExecutor(
                self.threads, thread_name_prefix="recompute", initializer=torch.get_num_threads
            ) as pool:
                futures = [pool.submit(run, chunk) for chunk in chunks]
                try:
                    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    return [future.result() for future in futures]  # type: ignore[misc]
                except BaseException:
                    stop.set()
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
        finally:
            torch.set_num_threads(before)

    def report(self, nbytes: int) -> None:
        """Tell of work done."""
        if self.progress is not None:
            self.progress(nbytes)


@cache
def _keep_freed_memory() -> None:
    """Tell glibc to reuse freed chunks instead of giving them back to the kernel.

    Temporaries of a few MB are otherwise mapped and unmapped for every operation: page faults made
    recompute six times slower (benchmarks). Elsewhere this does nothing.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 32 << 20)
        libc.mallopt(m_trim_threshold, 256 << 20)


def pick_device(name: str) -> torch.device:
    """Return the device for `--device`: auto, cpu or cuda.

    Raises:
        CannotRunError: CUDA was demanded and is not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise CannotRunError("no CUDA device here", hint="use --device cpu (the same result)")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def chunks_of(spec: TensorSpec) -> Iterator[Chunk]:
    """Cut a tensor into chunks of whole units."""
    size = CHUNK_BYTES // spec.unit
    for start in range(0, spec.units, size):
        yield Chunk(spec.name, start, min(start + size, spec.units))


class StepSource:
    """A computable step's output under one engine variant, as a source for the next step.

    Attributes:
        confirmed: whether the output has the root that the recipe declares for it.
    """

    def __init__(self, step: Step, method: Method, inputs: Sequence[Source] = ()) -> None:
        self.step = step
        self.method = method
        self.inputs = tuple(inputs)
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
        known[step.id] = bound[step.id] = StepSource(step, method, list(inputs.values()))
    return bound


def identities(
    engine: Engine, source: Source, profiles: Sequence[digest.Profile] = (digest.B3,)
) -> dict[digest.Profile, dict[str, str]]:
    """Return the tensor identities of a source, computing what must be computed."""

    def leaves(chunk: Chunk, scratch: Scratch) -> dict[digest.Profile, bytes]:
        view = scratch.to_bytes(source.read(chunk.name, chunk.start, chunk.stop, scratch).cpu())
        engine.report(len(view))
        starts = range(0, len(view), digest.CHUNK)
        return {
            profile: b"".join(digest.leaf(profile, view[at : at + digest.CHUNK]) for at in starts)
            for profile in profiles
        }

    chunks = [chunk for spec in source.specs.values() for chunk in chunks_of(spec)]
    found: dict[digest.Profile, dict[str, bytearray]] = {
        profile: {name: bytearray() for name in source.specs} for profile in profiles
    }
    for chunk, part in zip(chunks, engine.map(leaves, chunks), strict=True):
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
