"""A position in a file that is read forwards, bounded, a window at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parentage.manifest.errors import MalformedError

ReadAt = Callable[[int, int], bytes]
"""`read(offset, size) -> bytes`, exactly `size` bytes or an error."""

_WINDOW: Final = 1 << 16


class Cursor:
    """Bytes [at, end) of a file.

    Attributes:
        at: the next byte to be read.
        end: the first that must not be.
    """

    def __init__(
        self, read: ReadAt, start: int, end: int, where: str, error: type[MalformedError]
    ) -> None:
        self.at, self.end = start, end
        self._read, self._where, self._error = read, where, error
        self._window, self._start = b"", start

    def fail(
        self, what: str, *, found: str = "", expected: str = "", hint: str = ""
    ) -> MalformedError:
        """Return the error of this format, with the place."""
        where = f"{self._where}: byte {self.at}"
        return self._error(what, where=where, found=found, expected=expected, hint=hint)

    def skip(self, size: int) -> int:
        """Pass over `size` bytes and return where they began."""
        if size > self.end - self.at:
            raise self.fail(
                "truncated", expected=f"{size} more bytes", found=str(self.end - self.at)
            )
        self.at += size
        return self.at - size

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        start = self.skip(size)
        offset = start - self._start
        if offset < 0 or offset + size > len(self._window):
            self._window = self._read(start, min(max(size, _WINDOW), self.end - start))
            self._start = start
            offset = 0
        return self._window[offset : offset + size]

    def integer(self, size: int) -> int:
        """Return the next `size` bytes as a little-endian natural number."""
        return int.from_bytes(self.take(size), "little")
