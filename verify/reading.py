"""Tensors read once, into memory of our own, and identified from that memory; a few ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from parentage.manifest import digest
from parentage.manifest.digest import CHUNK, LEAF_BYTES, Profile
from parentage.manifest.files import OpenFile
from parentage.manifest.hashing import Progress
from parentage.manifest.model import Model
from parentage.manifest.tensor import Tensor

#: Bytes of a tensor that one thread reads at a time.
_SPAN: Final = 16 * CHUNK
#: Bytes read ahead, unless the largest tensor is larger.
_AHEAD: Final = 64 << 20


class Reading:
    """One tensor on its way into memory.

    Attributes:
        tensor: which.
        buffer: its bytes; nobody else writes here.
    """

    def __init__(self, tensor: Tensor, profiles: Sequence[Profile]) -> None:
        self.tensor = tensor
        self.buffer = bytearray(tensor.end - tensor.start)
        room = LEAF_BYTES * digest.chunk_count(len(self.buffer))
        self._leaves = {profile: bytearray(room) for profile in profiles}
        self._spans: list[Future[None]] = []

    def begin(self, file: OpenFile, pool: ThreadPoolExecutor, progress: Progress) -> None:
        """Have the bytes read and hashed by the pool."""
        for at in range(0, len(self.buffer), _SPAN):
            self._spans.append(pool.submit(self._span, file, at, progress))

    def _span(self, file: OpenFile, start: int, progress: Progress) -> None:
        view = memoryview(self.buffer)
        for at in range(start, min(start + _SPAN, len(view)), CHUNK):
            piece = view[at : at + CHUNK]
            file.read_into(piece, self.tensor.start + at)
            slot = at // CHUNK * LEAF_BYTES
            for profile, leaves in self._leaves.items():
                leaves[slot : slot + LEAF_BYTES] = digest.leaf(profile, piece)
            progress(len(piece))

    def identity(self) -> dict[Profile, str]:
        """Return the tensor's identity by profile, once all bytes are here.

        Raises:
            FileSetError: the file became shorter.
        """
        for span in self._spans:
            span.result()
        spec = self.tensor.spec
        return {
            profile: digest.identity(profile, spec.dtype, spec.shape, len(self.buffer), leaves)
            for profile, leaves in self._leaves.items()
        }


def read_ahead(
    model: Model,
    tensors: Sequence[Tensor],
    profiles: Sequence[Profile],
    *,
    threads: int,
    progress: Progress,
) -> Iterator[Reading]:
    """Yield tensors in order; those begun and not yet yielded take as much as the largest, or 64 MiB."""
    room = max([_AHEAD, *(tensor.end - tensor.start for tensor in tensors)])
    waiting: deque[Reading] = deque()
    held = 0
    with _ending(ThreadPoolExecutor(threads, thread_name_prefix="load")) as pool:
        for tensor in tensors:
            nbytes = tensor.end - tensor.start
            while waiting and held + nbytes > room:
                held -= len(waiting[0].buffer)
                yield waiting.popleft()
            reading = Reading(tensor, profiles)
            reading.begin(model.file_of(tensor), pool, progress)
            waiting.append(reading)
            held += nbytes
        while waiting:
            yield waiting.popleft()


@contextmanager
def _ending(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Give up what was begun when whoever reads has enough."""
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
