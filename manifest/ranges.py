"""Whole files and byte ranges hashed by SHA-256, BLAKE2b or BLAKE3, on threads, in bounded memory.

For what has no tensors to look at; a release's weights are hashing.py's. Files are opened one by one,
so that a model of any number of files needs no more descriptors than threads.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Literal, Protocol

import msgspec
from blake3 import blake3

from parentage.manifest.errors import FileSetError
from parentage.manifest.files import OpenFile
from parentage.manifest.hashing import BLOCK, WORTH_THREADS, Progress, default_threads

Algorithm = Literal["sha256", "blake2b", "blake3"]


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


_HASHES: Final[Mapping[Algorithm, Callable[[], _Hash]]] = {
    "sha256": hashlib.sha256,
    "blake2b": hashlib.blake2b,
    "blake3": blake3,
}
#: Hex digits of a digest.
HEX_DIGITS: Final[Mapping[Algorithm, int]] = {"sha256": 64, "blake2b": 128, "blake3": 64}


class Range(msgspec.Struct, frozen=True):
    """Bytes [start, end) of a file that has `size` bytes."""

    name: str
    start: int
    end: int
    size: int


Opener = Callable[[str], AbstractContextManager[OpenFile]]


def hash_ranges(
    ranges: Sequence[Range],
    opened: Opener,
    algorithm: Algorithm,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Return the digest of each range in hex, in their order.

    Args:
        ranges: what to read.
        opened: opens a file by its name, for the time of one range.
        algorithm: one for all.
        threads: None: all cores of this process.
        progress: told of the bytes done.

    Raises:
        FileSetError: a file can't be opened, or has another size than its range says.
    """
    work = _Work(opened, algorithm, progress)
    found: list[str] = [""] * len(ranges)

    def one(index: int) -> None:
        found[index] = work.digest(ranges[index])

    # Largest first: the last thread to finish then has the least left to do.
    order = sorted(range(len(ranges)), key=lambda i: ranges[i].start - ranges[i].end)
    small = sum(part.end - part.start for part in ranges) < WORTH_THREADS
    if threads is None:
        threads = 1 if small else default_threads()
    work.run([partial(one, index) for index in order], threads)
    return found


class _Work:
    def __init__(self, opened: Opener, algorithm: Algorithm, progress: Progress | None) -> None:
        self._opened, self._algorithm = opened, algorithm
        self._progress = progress or (lambda _: None)
        self._local, self._stop = threading.local(), threading.Event()

    def run(self, units: Sequence[Callable[[], None]], threads: int) -> None:
        if threads == 1 or len(units) < 2:
            for unit in units:
                unit()
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads, thread_name_prefix="digest") as pool:
            futures = [pool.submit(unit) for unit in units]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def digest(self, part: Range) -> str:
        state = _HASHES[self._algorithm]()
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(BLOCK))
        with self._opened(part.name) as file:
            if file.size != part.size:
                raise FileSetError(
                    "file changed while it was read",
                    where=part.name,
                    expected=f"{part.size} bytes",
                    found=f"{file.size} bytes",
                )
            for at in range(part.start, part.end, BLOCK):
                if self._stop.is_set():
                    break
                view = buffer[: min(BLOCK, part.end - at)]
                file.read_into(view, at)
                state.update(view)
                self._progress(len(view))
        return state.hexdigest()
