"""The files of a repository as a release, read over the network only as far as somebody asks.

What is small or decides is read whole and hashed; of weights the head is read, and what is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.attest.coverage import read_by_loaders
from parentage.manifest import table
from parentage.manifest.errors import CannotRunError, HubContentError
from parentage.manifest.files import FileSet, OpenFile
from parentage.manifest.model import INDEX_SUFFIX, PICKLED, READERS
from parentage.verify.sources.hub import Repo, read_range, read_whole
from parentage.verify.sources.listed import Listed

#: Largest file outside LFS: a Hub takes 10 MB.
_MAX_REGULAR: Final = 64 << 20
#: All that is read whole together: a repository's git is not meant for weights.
_MAX_ALL: Final = 1 << 30
#: Largest file in LFS that is read because loaders run it, or do as it says.
_ACTING: Final = 1 << 20
_WEIGHTS: Final = (*READERS, *PICKLED, ".h5", ".msgpack", ".npz")
#: Bytes of a header that are read at first, where nobody says how long it is.
_HEAD: Final = 64 << 10
#: Bytes of a file that are kept of those read whole: configs and cards, the beginnings of others.
_KEPT: Final = 16 << 10
_THREADS: Final = 8
#: Read whole although they may lie in LFS: what was signed, and the table that it is compared with.
_DECIDING: Final = frozenset({MODEL_SIG, MODEL_MLDSA, CLAIMS, table.TENSORS})


class RemoteFile(OpenFile, kw_only=True):
    """A file that was not downloaded.

    Attributes:
        repo: where it lies.
        listed: what the Hub says of it.
        head: its first bytes, as far as they were read.
        sha256: of its content, once it was read whole.
        expected: bytes that its header has, as somebody says.
    """

    repo: Repo
    listed: Listed
    head: bytes = b""
    sha256: str = ""
    expected: int = _HEAD

    @property
    def is_whole(self) -> bool:
        """Whether it is read whole: all but weights and other large files."""
        name = self.name
        index = "/" not in name and name.endswith(INDEX_SUFFIX)
        # Code and configs are read wherever a Hub says that they lie.
        acts = self.size <= _ACTING and read_by_loaders(name) and not name.endswith(_WEIGHTS)
        return self.listed.sha256 is None or name in _DECIDING or index or acts

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def will_need(self, offset: int, size: int) -> None:
        """Do nothing: what is not asked for is not read."""

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` from `offset`.

        Raises:
            HubError: a subclass names what is in the way.
            CannotRunError: weights of a format that has to be read whole.
        """
        stop = offset + len(view)
        if self.is_whole:
            self.load()
            data = self.head if stop <= len(self.head) else self._again()
            view[:] = data[offset:stop]
            return
        if self.name.endswith(".onnx"):
            raise CannotRunError(
                "the header of an ONNX file is all over it, and can't be read without its weights",
                where=self.name,
                hint="verify without --level remote",
            )
        if len(self.head) < stop and offset <= len(self.head):
            # What follows the head belongs to it: twice as much each time, so that few requests do.
            upto = min(max(stop, self.expected, 2 * len(self.head)), self.size)
            self.head += read_range(self.repo, self.listed, len(self.head), upto)
        known = stop <= len(self.head)
        view[:] = (
            self.head[offset:stop] if known else read_range(self.repo, self.listed, offset, stop)
        )

    def load(self) -> None:
        """Read what will be asked for: all of it, or the head."""
        if not self.is_whole:
            self.read_at(0, min(self.expected, self.size))
        elif not self.sha256:
            data = self._all()
            self.sha256 = hashlib.sha256(data).hexdigest()
            self.head = data if self._is_read_again else data[:_KEPT]

    def _all(self) -> bytes:
        limit = table.MAX_TABLE if self.listed.sha256 else _MAX_REGULAR
        return read_whole(self.repo, self.listed, limit=limit)

    def _again(self) -> bytes:
        """Read all of it once more: what is looked at is what was hashed."""
        data = self._all()
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise HubContentError(
                "the Hub gave other bytes than before for this file",
                where=f"{self.repo}: {self.name}",
                expected=f"sha256 {self.sha256}",
                found=f"sha256 {found}",
            )
        return data

    @property
    def _is_read_again(self) -> bool:
        return (
            self.name.startswith(".parentage/")
            or self.name in _DECIDING
            or (self.name.endswith((INDEX_SUFFIX, *READERS)))
        )


def remote_files(repo: Repo, found: Mapping[str, Listed]) -> FileSet:
    """Return the files of a repository as a set of files of a release; nothing is read yet.

    Raises:
        CannotRunError: more would have to be read than a check should.
    """
    files = {
        name: RemoteFile(name, -1, listed.size, repo=repo, listed=listed)
        for name, listed in found.items()
    }
    small = sum(file.size for file in files.values() if file.is_whole)
    if small > _MAX_ALL:
        raise CannotRunError(
            "too much would have to be read whole for a check",
            where=str(repo),
            expected=f"at most {_MAX_ALL} bytes",
            found=f"{small} bytes",
            hint="verify without --level remote",
        )
    return FileSet(Path(f"{repo.place.repo}@{repo.commit}"), dict[str, OpenFile](files))


def read_apart(file: OpenFile, start: int, stop: int) -> bytes:
    """Return bytes [start, stop) of a file, from any thread: nothing of them is kept.

    Raises:
        HubError: a subclass names what is in the way.
    """
    if not isinstance(file, RemoteFile) or file.is_whole:
        return file.read_at(start, stop - start)
    return read_range(file.repo, file.listed, start, stop)


def at_once(calls: Iterable[Callable[[], None]]) -> None:
    """Do what waits for the network, several at a time; the first error ends it."""
    with ThreadPoolExecutor(_THREADS, "remote") as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
