"""Names of the resources of a model signature: paths inside the model, and `path:start:end`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from parentage.manifest.errors import StatementError

#: A model that is one file has this name in what the reference tool writes; the specification
#: gives it the file's name.
ONE_FILE: Final = "."
#: A path may hold colons, so the last two numbers count.
_SHARD: Final = re.compile(r"(.+):(0|[1-9][0-9]{0,16}):([1-9][0-9]{0,16})", re.DOTALL)


def check_name(name: object, where: str) -> str:
    """Return a name that is a normalised path inside the model.

    Raises:
        StatementError: absolute, escaping, not normalised, or no text.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if not isinstance(name, str) or any(part in {"", ".", ".."} for part in parts) or "\0" in name:
        raise StatementError(
            "not a path inside the release", where=where, expected="a/b.c", found=str(name)
        )
    return name


def shard_names(file: str, size: int, shard_size: int) -> list[tuple[str, int, int]]:
    """Return the resource names of a file of `size` bytes, each with its byte range."""
    starts = range(0, size, shard_size)
    return [
        (f"{file}:{at}:{min(at + shard_size, size)}", at, min(at + shard_size, size))
        for at in starts
    ]


def by_file(resources: Iterable[str], shard_size: int) -> dict[str, tuple[str, ...]]:
    """Return the resource names by file, shards in order and without a gap.

    Args:
        resources: as listed.
        shard_size: bytes of a shard; 0 where resources are files.

    Raises:
        StatementError: a name is no shard, shards leave a gap or overlap, or "." is not alone.
    """
    if not shard_size:
        files: dict[str, tuple[str, ...]] = {name: (name,) for name in resources}
    else:
        files = {file: _whole(file, ends, shard_size) for file, ends in _shards(resources).items()}
    if ONE_FILE in files and len(files) > 1:
        raise StatementError("not a path inside the release", where="resources", found=ONE_FILE)
    return files


def _shards(resources: Iterable[str]) -> dict[str, dict[int, int]]:
    """Return the end of each shard by file and start."""
    found: dict[str, dict[int, int]] = {}
    for name in resources:
        match = _SHARD.fullmatch(name)
        if match is None:
            raise StatementError(
                "not a shard", where="resources", expected="path:start:end", found=name
            )
        file = match[1] if match[1] == ONE_FILE else check_name(match[1], "resources")
        ends = found.setdefault(file, {})
        if int(match[2]) in ends:
            raise StatementError("shards overlap", where="resources", found=name)
        ends[int(match[2])] = int(match[3])
    return found


def _whole(file: str, ends: Mapping[int, int], shard_size: int) -> tuple[str, ...]:
    size = max(ends.values())
    # Counted before they are made: one short name may claim a petabyte of shards.
    expected = shard_names(file, size, shard_size) if -(-size // shard_size) == len(ends) else []
    if any(ends.get(start) != end for _, start, end in expected) or not expected:
        raise StatementError(
            "shards of a file leave a gap or overlap",
            where=f"resources: {file}",
            expected=f"{shard_size} bytes each, from 0",
            found=f"{len(ends)} up to byte {size}",
        )
    return tuple(name for name, _, _ in expected)
