"""What a long run has already found out, kept in a file so that a kill loses only what was unfinished.

One line for each finished task, appended by a single write: the first 32 hex digits of the SHA-256 of
the rest, a space, and JSON. The first line names the inputs; a journal of others is refused. A line
that is torn or does not check is passed over, and so is everything after it: a kill tears only the last.

A journal is local state, not evidence. Whoever can write to it can make us believe any result: the
check in a line tells torn from whole, not true from false. So it is made for its owner alone, is
refused if anyone else may write to it, and is never shipped: signed partial results (parts.py) are.
Signatures, digests and parents are checked anew in every run; only results of tasks are taken from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import JournalError, WriteFailedError

_CHECK: Final = 32
_MAX_BYTES: Final = 4 << 30
_MAX_LINE: Final = 1 << 20
_KIND: Final = "https://parentage.dev/journal/v0.1"


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of a task: both as JSON that whoever runs the task understands."""

    task: str
    result: msgspec.Raw


class Journal:
    """A journal, open for this process alone."""

    def __init__(self, path: Path, inputs: Mapping[str, str]) -> None:
        """Open a journal, or begin one.

        Args:
            path: the file.
            inputs: everything that results depend on, by name; compared with the first line.

        Raises:
            JournalError: it is of other inputs, no journal, in use, or others may write to it.
            WriteFailedError: it can't be opened or written.
        """
        self.path = path
        self.known: dict[str, bytes] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._check_file()
            end = self._read(canonical.dumps({"kind": _KIND, "inputs": dict(inputs)}))
            # What follows a torn line would be hidden by it.
            os.ftruncate(self._descriptor, end)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        """Return itself; leaving closes the file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the file; another process may then resume."""
        os.close(self._descriptor)

    def add(self, task: str, result: bytes) -> None:
        """Keep a result.

        Raises:
            WriteFailedError: the disk is full.
        """
        self._append(msgspec.json.encode(Entry(task, msgspec.Raw(result))))

    def _append(self, data: bytes) -> None:
        line = _line(data)
        try:
            if os.write(self._descriptor, line) != len(line):
                raise WriteFailedError("no room for the journal", where=str(self.path))
        except OSError as error:
            raise self._failed(error) from error

    def _check_file(self) -> None:
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise JournalError("not a regular file", where=str(self.path))
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise JournalError(
                "others may write to this journal, so it proves nothing",
                where=str(self.path),
                expected="owned by you, mode 600",
                found=f"owner {status.st_uid}, mode {status.st_mode & 0o777:o}",
            )
        if status.st_size > _MAX_BYTES:
            raise JournalError(
                "journal too large", where=str(self.path), expected=f"at most {_MAX_BYTES} bytes"
            )
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                "another process is writing this journal", where=str(self.path)
            ) from error

    def _read(self, head: bytes) -> int:
        """Take in the lines that hold, and return where they end; an empty file gets its head."""
        end = 0
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            first = stream.readline(_MAX_LINE)
            if _line(head).startswith(first) and first != _line(head):
                os.ftruncate(self._descriptor, 0)  # new, or killed while it was begun
                self._append(head)
                return os.fstat(self._descriptor).st_size
            data = _checked(first)
            if data is None:
                raise JournalError(
                    "not a journal", where=str(self.path), hint="give another --resume file"
                )
            if data != head:
                raise self._of_others(head, data)
            end = len(first)
            for line in stream:
                data = _checked(line)
                if data is None:
                    break
                try:
                    entry = msgspec.json.decode(data, type=Entry)
                except msgspec.DecodeError:
                    break
                self.known[entry.task] = bytes(entry.result)
                end += len(line)
        return end

    def _of_others(self, head: bytes, found: bytes) -> JournalError:
        try:
            theirs = canonical.loads(found, where=str(self.path))["inputs"]
            ours = canonical.loads(head, where=str(self.path))["inputs"]
            name = next(key for key in ours if theirs.get(key) != ours[key])
            expected, other = ours[name], str(theirs.get(name))
        except (KeyError, TypeError, AttributeError, StopIteration):
            name, expected, other = "inputs", "", ""
        return JournalError(
            f"the journal is of another run: {name} differs",
            where=str(self.path),
            expected=expected,
            found=other,
            hint="give another --resume file, or remove this one",
        )

    def _failed(self, error: OSError) -> WriteFailedError:
        return WriteFailedError(
            f"can't use the journal: {error.strerror or error}", where=str(self.path)
        )


def _check(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[:_CHECK].encode()


def _line(data: bytes) -> bytes:
    return _check(data) + b" " + data + b"\n"


def _checked(line: bytes) -> bytes | None:
    """Return what a whole line says."""
    check, _, rest = line.partition(b" ")
    data = rest.removesuffix(b"\n")
    return data if rest.endswith(b"\n") and check == _check(data) else None
