"""Every file and tensor digested in one pass, on threads, in bounded memory.

Bytes come by `pread`, a block at a time, into one reused buffer a thread, and every digest is taken of
them while they are in cache; mmap was slower and kept whole models resident. With `files`, a weights file is one unit of work
(SHA-256 is a chain); without, tensors are cut into spans so that one large file uses every thread.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import CHUNK, LEAF_BYTES, Profile
from parentage.manifest.files import OpenFile
from parentage.manifest.gathering import Gathering
from parentage.manifest.model import Model
from parentage.manifest.tensor import Tensor

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

Progress = Callable[[int], None]
"""Called from any thread with the bytes done since its last call."""


@runtime_checkable
class Expecting(Protocol):
    """A progress that wants to know how much there is to do."""

    def expect(self, nbytes: int) -> None:
        """Hear of bytes that are to come on top of those known, or (negative) that are not."""


#: Bytes read at once: they and the page cache's copy of them fit a core's second-level cache together.
BLOCK: Final = 1 << 19
_SPAN: Final = 64 * CHUNK
_MAX_THREADS: Final = 16
#: Bytes below which starting threads, and importing what starts them, costs more than it saves.
WORTH_THREADS: Final = 32 << 20
#: Chunks handed to idle threads at most, a file: bounds memory.
_HELPED: Final = 4


class TensorDigest(msgspec.Struct, frozen=True):
    """What a pass found out about one tensor.

    Attributes:
        identity: by profile, 64 hex digits.
        leaves: by profile, the concatenated 32-byte leaves.
    """

    identity: dict[Profile, str]
    leaves: dict[Profile, bytes]


class Digests(msgspec.Struct, frozen=True):
    """The result of one pass.

    Attributes:
        tensors: by tensor name.
        files: SHA-256 by file name; only the files that were asked for.
        roots: the weights root by profile.
    """

    tensors: dict[str, TensorDigest]
    files: dict[str, str]
    roots: dict[Profile, str]


def default_threads() -> int:
    """Return how many threads a pass uses: the cores of this process, at most 16."""
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)


def hash_model(
    model: Model,
    *,
    profiles: Sequence[Profile] = (digest.B3,),
    files: Iterable[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
    gathered: Gathering | None = None,
) -> Digests:
    """Digest all tensors of `model`, and the SHA-256 of each file named in `files`, in one pass.

    Args:
        model: open.
        profiles: of the tensor digests.
        files: weights files.
        threads: None: as many as are worth it.
        progress: told of the bytes done.
        gathered: leaves that are known, of these profiles: only the rest of those tensors is read.
    """
    work = _Pass(model, tuple(profiles), progress, gathered)
    whole = set(files)
    units: list[tuple[int, Callable[[], None]]] = []
    for name in sorted(whole):
        file = model.files.files[name]
        units.append((file.size, partial(work.whole_file, file)))
    for tensor in model.tensors.values():
        if tensor.file not in whole:
            ranges = [(0, tensor.end - tensor.start)]
            if gathered is not None:
                ranges = list(gathered.missing(tensor.spec.name))
            for start, end in ranges:
                units.extend(_spans(work, tensor, start, end))
    # Largest first: the last thread to finish then has the least left to do.
    units.sort(key=lambda unit: -unit[0])
    if threads is None and sum(size for size, _ in units) < WORTH_THREADS:
        threads = 1
    work.run([unit for _, unit in units], threads or default_threads())
    return work.result()


def total_bytes(model: Model, files: Iterable[str]) -> int:
    """Return how many bytes `hash_model` will report as progress."""
    whole = set(files)
    rest = (t.end - t.start for t in model.tensors.values() if t.file not in whole)
    return sum(model.files.files[name].size for name in whole) + sum(rest)


def _spans(
    work: _Pass, tensor: Tensor, start: int, end: int
) -> Iterable[tuple[int, Callable[[], None]]]:
    for at in range(start, end, _SPAN):
        stop = min(at + _SPAN, end)
        yield stop - at, partial(work.span, tensor, at, stop)


class _Pass:
    """State shared by the threads of one pass; each writes only its own slices."""

    def __init__(
        self,
        model: Model,
        profiles: tuple[Profile, ...],
        progress: Progress | None,
        gathered: Gathering | None,
    ) -> None:
        self._model = model
        self._profiles = profiles
        self._progress = progress or (lambda _: None)
        self._local = threading.local()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._left = self._threads = 0
        self._pool: ThreadPoolExecutor
        self._files: dict[str, str] = {}
        self._by_file: dict[str, list[Tensor]] = {
            name: list(header.tensors) for name, header in model.headers.items()
        }
        self._leaves = (gathered or Gathering(model, profiles)).leaves

    def run(self, units: Sequence[Callable[[], None]], threads: int) -> None:
        self._left, self._threads = len(units), threads
        if threads == 1:
            for unit in units:
                unit()
            return
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        with ThreadPoolExecutor(threads, thread_name_prefix="digest") as pool:
            self._pool = pool
            futures = [pool.submit(self._counted, unit) for unit in units]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _counted(self, unit: Callable[[], None]) -> None:
        unit()
        with self._lock:
            self._left -= 1

    def span(self, tensor: Tensor, start: int, end: int) -> None:
        """Digest bytes [start, end) of a tensor; `start` is a multiple of the chunk size."""
        file = self._model.file_of(tensor)
        for at in range(start, end, CHUNK):
            if self._stop.is_set():
                return
            self._chunk(file, tensor, at)

    def whole_file(self, file: OpenFile) -> None:
        """Digest a file and, on the way, the tensors in it."""
        state = hashlib.sha256()
        position = 0
        helped: deque[Future[None]] = deque()
        for tensor in self._by_file.get(file.name, ()):
            position = self._plain(file, state, position, tensor.start)
            for at in range(0, tensor.end - tensor.start, CHUNK):
                if self._stop.is_set():
                    return
                if self._left < self._threads and len(helped) < _HELPED:
                    # A thread is idle and SHA-256 is a chain: let that thread make the leaf.
                    held = bytearray(min(CHUNK, tensor.end - tensor.start - at))
                    self._keep(file, tensor.start + at, memoryview(held), state)
                    helped.append(self._pool.submit(self._leaf, tensor, at, held))
                else:
                    self._chunk(file, tensor, at, state)
                while helped and (helped[0].done() or len(helped) == _HELPED):
                    helped.popleft().result()
            position = tensor.end
        for future in helped:
            future.result()
        self._plain(file, state, position, file.size)
        self._files[file.name] = state.hexdigest()

    def _plain(self, file: OpenFile, state: hashlib._Hash, start: int, end: int) -> int:
        for view in self._blocks(file, start, end):
            state.update(view)
        return end

    def _chunk(
        self, file: OpenFile, tensor: Tensor, at: int, state: hashlib._Hash | None = None
    ) -> None:
        """Make the leaves of the chunk at `at`; its bytes go to the file's `state` as well."""
        leaves = {profile: digest.new_leaf(profile) for profile in self._profiles}
        start = tensor.start + at
        for view in self._blocks(file, start, min(start + CHUNK, tensor.end)):
            if state is not None:
                state.update(view)
            for leaf in leaves.values():
                leaf.update(view)
        for profile, leaf in leaves.items():
            self._put(tensor, at, profile, leaf.digest())

    def _keep(self, file: OpenFile, start: int, held: memoryview, state: hashlib._Hash) -> None:
        """Read bytes from `start` into `held`, and pass them to the file's state."""
        for at in range(0, len(held), BLOCK):
            view = held[at : at + BLOCK]
            file.read_into(view, start + at)
            self._progress(len(view))
            state.update(view)

    def _blocks(self, file: OpenFile, start: int, end: int) -> Iterator[memoryview]:
        """Yield bytes [start, end), each block until the next is asked for."""
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(BLOCK))
        for at in range(start, end, BLOCK):
            if self._stop.is_set():
                return
            view = buffer[: min(BLOCK, end - at)]
            file.read_into(view, at)
            self._progress(len(view))
            yield view

    def _leaf(self, tensor: Tensor, at: int, chunk: bytearray) -> None:
        for profile in self._profiles:
            self._put(tensor, at, profile, digest.leaf(profile, chunk))

    def _put(self, tensor: Tensor, at: int, profile: Profile, leaf: bytes) -> None:
        slot = at // CHUNK * LEAF_BYTES
        self._leaves[tensor.spec.name][profile][slot : slot + LEAF_BYTES] = leaf

    def result(self) -> Digests:
        tensors: dict[str, TensorDigest] = {}
        for name, leaves in self._leaves.items():
            spec = self._model.tensors[name].spec
            identity = {
                profile: digest.identity(profile, spec.dtype, spec.shape, spec.nbytes, data)
                for profile, data in leaves.items()
            }
            tensors[name] = TensorDigest(identity, {p: bytes(data) for p, data in leaves.items()})
        roots = {
            profile: digest.weights_root(
                profile, ((name, found.identity[profile]) for name, found in tensors.items())
            )
            for profile in self._profiles
        }
        return Digests(tensors, self._files, roots)
