"""Which regular files make a release, and how they are opened.

No link leaves the release. The one exception is a Hugging Face Hub cache snapshot
(`models--org--name/snapshots/<revision>/file -> ../../blobs/<id>`), whose links may end in the
`blobs` folder of the same cache entry or, since huggingface_hub 2, in the store that all entries of
the cache share (`blobs/<2 hex>/<xet hash>` beside them, marked as such), and nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from parentage.manifest.errors import FileSetError, UsageError

MAX_FILES: Final = 100_000
_SMALL: Final = 64 << 20
#: Lies in a store that the entries of a Hub cache share (huggingface_hub, utils/_shared_blobs.py).
_SHARED: Final = ".huggingface-shared-blobs"


class OpenFile(msgspec.Struct):
    """A regular file of the release, opened once: what is hashed is what is read later.

    Attributes:
        name: path inside the release, POSIX form.
        descriptor: open for reading.
        size: bytes at opening.
    """

    name: str
    descriptor: int
    size: int

    def close(self) -> None:
        """Close the file; once only."""
        os.close(self.descriptor)

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` from `offset`.

        Raises:
            FileSetError: the file became shorter than it was when it was opened.
        """
        done = 0
        while done < len(view):
            count = os.preadv(self.descriptor, [view[done:]], offset + done)
            if count == 0:
                raise FileSetError(
                    "file became shorter while it was read",
                    where=self.name,
                    expected=f"{self.size} bytes",
                    found=f"{offset + done} bytes",
                )
            done += count

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`."""
        buffer = bytearray(size)
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def will_need(self, offset: int, size: int) -> None:
        """Ask the system to read ahead; where it can't be asked, nothing happens."""
        if hasattr(os, "posix_fadvise") and not self._is_cached(offset + size - 1):
            os.posix_fadvise(self.descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def _is_cached(self, offset: int) -> bool:
        """Say whether a byte can be had at once: then, as a rule, so can what lies before it.

        Having the system look for each page of that takes longer than reading one byte.
        """
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        try:
            return os.preadv(self.descriptor, [bytearray(1)], max(offset, 0), os.RWF_NOWAIT) == 1
        except OSError:  # it would have to wait; or this file system can't say
            return False

    def read_small(self, limit: int = _SMALL) -> bytes:
        """Return the whole file, refused above `limit` bytes."""
        if self.size > limit:
            raise FileSetError(
                "file too large",
                where=self.name,
                expected=f"at most {limit} bytes",
                found=f"{self.size} bytes",
            )
        return self.read_at(0, self.size)


class FileSet(msgspec.Struct):
    """The files of a release, each opened once."""

    root: Path
    files: dict[str, OpenFile] = msgspec.field(default_factory=dict)

    def __enter__(self) -> Self:
        """Return itself; leaving closes every file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close every file."""
        self.close()

    def close(self) -> None:
        """Close every file; calling it again is harmless."""
        for file in self.files.values():
            file.close()
        self.files = {}


def open_files(root: Path) -> FileSet:
    """Open a folder, or a single file, as a release.

    Raises:
        UsageError: `root` does not exist.
        FileSetError: a link out, a special file, a name that is not UTF-8, too many files.
    """
    if not root.exists():
        raise UsageError("no such file or folder", where=str(root))
    opened = FileSet(root)
    try:
        if root.is_dir():
            allowed = allowed_roots(root)
            for name, entry in _walk(root):
                opened.files[name] = open_one(name, entry, allowed)
        else:
            opened.files[root.name] = open_one(root.name, root.resolve(), ())
    except BaseException:
        opened.close()
        raise
    return opened


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (POSIX name, path) of every non-folder, in byte order of the names."""
    pending = [""]
    found: list[tuple[str, Path]] = []
    while pending:
        prefix = pending.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                try:
                    name.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise FileSetError("file name is not UTF-8", where=repr(name)) from error
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name + "/")
                else:
                    found.append((name, Path(entry.path)))
        if len(found) > MAX_FILES:
            raise FileSetError("too many files", where=str(root), expected=f"<= {MAX_FILES}")
    yield from sorted(found)


def allowed_roots(root: Path) -> tuple[Path, ...]:
    """Return the folders that links of a release may end in: itself, and the blobs of its Hub cache."""
    real = root.resolve()
    entry = real.parent.parent
    if real.parent.name != "snapshots" or not entry.name.startswith("models--"):
        return (real,)
    shared = entry.parent / "blobs"
    if not (shared / _SHARED).is_file() or shared.is_symlink():
        return (real, entry / "blobs")
    return (real, entry / "blobs", shared)


def open_one(name: str, path: Path, allowed: tuple[Path, ...]) -> OpenFile:
    """Open one regular file; a link only where it ends in one of the folders `allowed`.

    Raises:
        FileSetError: a link that ends elsewhere or nowhere, a special file, or not readable.
    """
    target = path
    if path.is_symlink():
        try:
            target = path.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
            raise FileSetError("link leads in a circle", where=name) from error
        if not any(target.is_relative_to(root) for root in allowed):
            raise FileSetError(
                "link leads out of the release",
                where=name,
                expected="a regular file inside",
                found=str(target),
                hint="replace the link by the file itself",
            )
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(target, flags)
    except OSError as error:
        raise FileSetError(f"can't open file: {error.strerror}", where=name) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise FileSetError("not a regular file", where=name)
    return OpenFile(name, descriptor, status.st_size)
