"""Write a file whole or not at all: temporary file beside it, fsync, rename, fsync the folder."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from parentage.manifest.errors import WriteFailedError


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file that becomes `path` when the block ends without an error.

    Raises:
        WriteFailedError: the disk is full or not writable; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        with os.fdopen(descriptor, "r+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _failed(path, error) from error
    except BaseException:
        # Ctrl-C included: nothing half-written stays behind.
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def alone(folder: Path, *, wait: float = 30.0) -> Iterator[None]:
    """Read, change and write files of a folder as one: others who ask wait until it is done.

    Raises:
        WriteFailedError: somebody else holds the folder for longer than `wait` seconds.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(folder, error) from error
    try:
        _hold(descriptor, folder, wait)
        yield
    finally:
        os.close(descriptor)


def _hold(descriptor: int, folder: Path, wait: float) -> None:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise _failed(folder, error) from error
            time.sleep(0.02)
        except OSError:
            return  # a file system without locks: each write is still whole
        else:
            return


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Name whatever the system refuses inside the block: folders made, moved, removed.

    Raises:
        WriteFailedError: with the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise _failed(path, error) from error


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` atomically."""
    with replacing(path, mode=mode) as stream:
        stream.write(data)


def place_folder(source: Path, target: Path) -> None:
    """Have the disk keep a folder, then rename it to `target`, which is absent or an empty folder.

    Raises:
        WriteFailedError: something is there, or the system refuses; nothing was changed.
    """
    with reporting(target):
        for folder, _, names in os.walk(source):
            for name in names:
                _sync_file(Path(folder) / name)
            _sync_folder(Path(folder))
        source.chmod(0o755)
        source.rename(target)
        _sync_folder(target.absolute().parent)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError) -> WriteFailedError:
    return WriteFailedError(
        f"can't write: {error.strerror or error}",
        where=str(path),
        hint="free space or choose another place; nothing was changed",
    )
