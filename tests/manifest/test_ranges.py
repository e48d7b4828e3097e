"""Digests of byte ranges against hashlib and blake3, on any number of threads."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blake3
import pytest

from parentage.manifest.errors import FileSetError
from parentage.manifest.files import OpenFile, open_one
from parentage.manifest.ranges import HEX_DIGITS, Range, hash_ranges

ORACLES: dict[str, Any] = {
    "sha256": hashlib.sha256,
    "blake2b": hashlib.blake2b,
    "blake3": blake3.blake3,
}
SIZES = [0, 1, 1 << 20, (1 << 20) + 1, 5_000_003]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for size in SIZES:
        (tmp_path / str(size)).write_bytes(random.Random(size).randbytes(size))
    return tmp_path


def hashed(folder: Path, ranges: list[Range], kind: Any, **options: Any) -> list[str]:
    @contextmanager
    def opened(name: str) -> Iterator[OpenFile]:
        file = open_one(name, folder / name, ())
        yield file
        file.close()

    return hash_ranges(ranges, opened, kind, **options)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("kind", HEX_DIGITS)
def test_ranges(folder: Path, kind: str, threads: int) -> None:
    ranges, expected = [], []
    for size in SIZES:
        data = (folder / str(size)).read_bytes()
        for start, end in ((0, size), (size // 3, size), (size // 2, size // 2)):
            ranges.append(Range(str(size), start, end, size))
            expected.append(ORACLES[kind](data[start:end]).hexdigest())
    seen: list[int] = []

    assert hashed(folder, ranges, kind, threads=threads, progress=seen.append) == expected
    assert sum(seen) == sum(part.end - part.start for part in ranges)
    assert all(len(digest) == HEX_DIGITS[kind] for digest in expected)  # type: ignore[index]


@pytest.mark.parametrize("threads", [1, 3])
def test_another_size_is_refused(folder: Path, threads: int) -> None:
    ranges = [Range(str(size), 0, 0, size) for size in SIZES]
    (folder / "1").write_bytes(b"12")

    with pytest.raises(FileSetError, match="changed while it was read"):
        hashed(folder, ranges, "sha256", threads=threads)
