"""Files of a repository brought to disk: hashed on the way, compared with the listing, resumed after a break.

A file is read in one stream into two buffers in turn: while one is filled from the network, the other
is written, hashed and shown to whoever watches. Several files are read at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import msgspec

from parentage.manifest import atomic
from parentage.manifest.errors import HubContentError, HubError, HubUnreachableError, UsageError
from parentage.manifest.hashing import Progress
from parentage.verify.sources.exact import check_content
from parentage.verify.sources.hub import Repo, streamed
from parentage.verify.sources.listed import Content, Listed
from parentage.verify.sources.web import PassingError

PART: Final = ".parentage.part"
_BUFFER: Final = 2 << 20

Sink = Callable[[memoryview], None]
"""Takes the bytes of one file in order; a view holds only during the call."""


@runtime_checkable
class Proof(Protocol):
    """A sink that compares every byte with what somebody signed: no SHA-256 is needed beside it."""

    def __call__(self, view: memoryview, /) -> None:
        """Compare the next bytes; raises HubContentError."""

    @property
    def is_whole(self) -> bool:
        """Whether all bytes were compared."""


Watch = Callable[[Listed], Sink | Proof | None]
"""Asked for a sink when a file begins, and again if it must begin anew."""


class Fetched(msgspec.Struct, frozen=True):
    """A file that came whole, and as it is listed.

    Attributes:
        path: of its bytes: the name that it will have, and PART.
        sha256: of what was written, whatever the Hub says; empty where a proof was taken instead.
        size: bytes.
    """

    path: Path
    sha256: str
    size: int


def fetch(
    repo: Repo,
    files: Iterable[Listed],
    into: Path,
    *,
    progress: Progress | None = None,
    watch: Watch | None = None,
    threads: int = 4,
    durable: bool = True,
) -> dict[str, Fetched]:
    """Bring files to `into/<name>` + PART; what is there already is hashed and completed, not read again.

    Args:
        repo: at a commit.
        files: what to bring, as listed.
        into: a folder that nobody else writes to.
        progress: told of bytes that are on disk, from any thread.
        watch: gives sinks for the bytes; what a sink raises stops everything and is raised here. A
            file that is given a proof is compared by that alone.
        threads: files at once.
        durable: have the disk keep each file before it is given; else whoever places it does.

    Returns:
        What came, by name.

    Raises:
        HubContentError: a file whose bytes are not those that the Hub lists; nothing of it is kept.
        HubError: a subclass names what is in the way; what came so far is kept for the next time.
        WriteFailedError: the disk is full or not writable.
        UsageError: two names that would share a file.
    """
    wanted = sorted(files, key=lambda listed: -listed.size)
    check_parts(listed.path for listed in wanted)
    stop = threading.Event()
    with (
        ThreadPoolExecutor(threads, "hash") as behind,
        ThreadPoolExecutor(threads, "fetch") as pool,
    ):
        fetcher = _Fetcher(repo, into, progress or (lambda _: None), watch, behind, stop, durable)
        futures = {pool.submit(fetcher.bring, listed): listed.path for listed in wanted}
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {name: future.result() for future, name in sorted(futures.items(), key=lambda f: f[1])}


def check_parts(names: Iterable[str]) -> None:
    """Refuse names of which one would be another's part.

    Raises:
        UsageError: naming it.
    """
    held = set(names)
    for name in held:
        if name + PART in held:
            raise UsageError("a file has the name of another's part", where=name + PART)


def settle(fetched: Mapping[str, Fetched], into: Path) -> None:
    """Move files to where they are used, under their own names.

    Args:
        fetched: what `fetch` brought.
        into: a folder on the same disk.

    Raises:
        WriteFailedError: the system refuses.
    """
    for name, found in fetched.items():
        target = into / name
        with atomic.reporting(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            found.path.rename(target)


def unsettle(folder: Path, names: Iterable[str]) -> None:
    """Give files that have their names the names of parts again: `fetch` then compares them anew.

    Raises:
        WriteFailedError: the system refuses.
    """
    for name in names:
        path = folder / name
        with atomic.reporting(path):
            if path.is_file() and not path.is_symlink():
                path.rename(path.with_name(path.name + PART))


class _Fetcher(msgspec.Struct, frozen=True):
    repo: Repo
    into: Path
    progress: Progress
    watch: Watch | None
    behind: ThreadPoolExecutor
    stop: threading.Event
    durable: bool

    def bring(self, listed: Listed) -> Fetched:
        path = self.into / (listed.path + PART)
        with atomic.reporting(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o644)
        try:
            there = os.fstat(descriptor).st_size
            content = self._whole(listed, descriptor, there if there <= listed.size else 0)
            if self.durable:
                with atomic.reporting(path):
                    os.fsync(descriptor)
        except HubContentError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return Fetched(path, content.sha256 if content else "", listed.size)

    def _whole(self, listed: Listed, descriptor: int, there: int) -> Content | None:
        taking = self._begin(listed, descriptor)
        try:
            self._complete(listed, taking, there)
            self._check(listed, taking)
        except HubContentError:
            if not there:
                raise
            # What was kept may have been spoilt on this side: once more, from the beginning.
            self.progress(-taking.at)
            taking = self._begin(listed, descriptor)
            self._complete(listed, taking, 0)
            self._check(listed, taking)
        return taking.content

    def _check(self, listed: Listed, taking: _Taking) -> None:
        if taking.content is not None:
            check_content(self.repo.place, listed, taking.content)
        elif taking.proof is None or not taking.proof.is_whole:
            raise HubContentError("a file was not compared to its end", where=listed.path)

    def _begin(self, listed: Listed, descriptor: int) -> _Taking:
        sink = self.watch(listed) if self.watch is not None else None
        return _Taking(listed, descriptor, sink, self.progress)

    def _complete(self, listed: Listed, taking: _Taking, there: int) -> None:
        """Take what is there, and read the rest."""
        taking.keep(there, self.stop)
        failures = 0
        while taking.at < listed.size:
            before = taking.at
            try:
                self._read_on(listed, taking)
            except PassingError as error:
                # Whatever came was worth the attempt; only what brings nothing is given up.
                failures = 1 if taking.at > before else failures + 1
                if failures >= self.repo.web.patience.attempts:
                    raise error.error from error
                pause = self.repo.web.patience.pause * 2 ** (failures - 1)
                if self.stop.wait(min(max(pause, error.wait), self.repo.web.patience.longest)):
                    raise HubError("stopped", where=listed.path) from error

    def _read_on(self, listed: Listed, taking: _Taking) -> None:
        """Read from where the file ends until the stream does."""
        buffers = [memoryview(bytearray(min(_BUFFER, listed.size - taking.at))) for _ in range(2)]
        last: Future[None] | None = None
        used, turn, left = 0, 0, listed.size - taking.at
        try:
            with streamed(self.repo, listed, taking.at) as pieces:
                for piece in pieces:
                    if self.stop.is_set():
                        raise HubError("stopped", where=listed.path)
                    left -= len(piece)
                    if left < 0:
                        raise HubContentError(
                            "the Hub sends more bytes than it lists for this file",
                            where=f"{self.repo}: {listed.path}",
                            expected=f"{listed.size} bytes",
                        )
                    rest = memoryview(piece)
                    while rest:
                        count = min(len(rest), len(buffers[turn]) - used)
                        buffers[turn][used : used + count] = rest[:count]
                        used, rest = used + count, rest[count:]
                        if used == len(buffers[turn]):
                            if last is not None:
                                last.result()
                            last = self.behind.submit(taking.take, buffers[turn])
                            used, turn = 0, 1 - turn
        finally:
            if last is not None:
                last.result()
            if used:
                taking.take(buffers[turn][:used])
        if left:
            raise PassingError(
                HubUnreachableError(
                    "the file ended early",
                    where=f"{self.repo}: {listed.path}",
                    expected=f"{listed.size} bytes",
                    found=f"{listed.size - left} bytes",
                )
            )


class _Taking:
    """One file as far as it came: written, hashed, watched."""

    def __init__(
        self, listed: Listed, descriptor: int, sink: Sink | Proof | None, progress: Progress
    ) -> None:
        self.proof = sink if isinstance(sink, Proof) else None
        self.content = Content(listed) if self.proof is None else None
        self.at = 0
        self._where, self._descriptor = Path(listed.path), descriptor
        self._sink, self._progress = sink, progress

    def keep(self, size: int, stop: threading.Event) -> None:
        """Take the first `size` bytes that are on disk, and cut off the rest."""
        with atomic.reporting(self._where):
            os.ftruncate(self._descriptor, size)
        while self.at < size and not stop.is_set():
            self._see(memoryview(os.pread(self._descriptor, min(_BUFFER, size - self.at), self.at)))

    def take(self, view: memoryview) -> None:
        """Write the next bytes, and see them."""
        done = 0
        while done < len(view):
            with atomic.reporting(self._where):
                done += os.pwrite(self._descriptor, view[done:], self.at + done)
        self._see(view)

    def _see(self, view: memoryview) -> None:
        if self.content is not None:
            self.content.update(view)
        if self._sink is not None:
            self._sink(view)
        self.at += len(view)
        self._progress(len(view))
