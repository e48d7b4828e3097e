"""Chunks of weights that were not downloaded, drawn at random and compared with their signed leaves.

A leaf is the digest of one MiB of a tensor, and all leaves of a tensor lead to its signed identity; so a
range of a file, and the leaves of one tensor, are enough to say of a slice that it is the signed one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from heapq import nsmallest

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import CHUNK, LEAF_BYTES
from parentage.manifest.errors import TensorTableError
from parentage.manifest.files import FileSet
from parentage.manifest.table import LEAVES, Table, leaf_spans
from parentage.verify.sources.remote_files import at_once, read_apart
from parentage.verify.verdict import Finding, finding


class Slice(msgspec.Struct, frozen=True, order=True):
    """One chunk: of which tensor, and which of its chunks."""

    tensor: str
    number: int


def count(table: Table) -> int:
    """Return how many chunks the weights have."""
    return sum(1 for _ in _all(table))


def draw(table: Table, number: int, seed: bytes) -> list[Slice]:
    """Draw chunks without replacement, each as likely: those with the smallest SHA-256.

    The hash is over seed, number of the chunk (u64le) and name of the tensor, so that anyone can draw
    the same ones. Whoever knows the seed beforehand can keep just these chunks right.
    """

    def ticket(one: Slice) -> bytes:
        data = seed + one.number.to_bytes(8, "little") + one.tensor.encode()
        return hashlib.sha256(data).digest()

    return sorted(nsmallest(number, _all(table), key=ticket))


def compare(table: Table, drawn: list[Slice], files: FileSet) -> list[Finding]:
    """Read slices, and return those that are not what was signed.

    Raises:
        TensorTableError: leaves that do not lead to their tensor's signed identity.
        HubError: a subclass names what is in the way.
    """
    leaves: dict[str, bytes] = {}
    tensors = {one.tensor for one in drawn}
    at_once(partial(_leaves_of, table, name, files, leaves) for name in tensors)
    found: dict[Slice, Finding] = {}
    at_once(partial(_compare, table, one, leaves[one.tensor], files, found) for one in drawn)
    return [found[one] for one in sorted(found)]


def _all(table: Table) -> Iterator[Slice]:
    for name, line in table.tensors.items():
        for number in range(digest.chunk_count(line.offsets[1] - line.offsets[0])):
            yield Slice(name, number)


def _leaves_of(table: Table, name: str, files: FileSet, into: dict[str, bytes]) -> None:
    """Read the leaves of a tensor, which its signed identity is made of."""
    line, (profile, start, stop) = table.tensors[name], leaf_spans(table)[name]
    if stop > files.files[LEAVES].size:
        raise TensorTableError("leaves.bin is too short", where=LEAVES, expected=f">= {stop} bytes")
    data = read_apart(files.files[LEAVES], start, stop)
    nbytes = line.offsets[1] - line.offsets[0]
    found = digest.identity(profile, line.dtype, line.shape, nbytes, data)
    if found != line.identity[profile]:
        raise TensorTableError(
            "leaves do not lead to the tensor's identity",
            where=f"{LEAVES}: {name}",
            expected=line.identity[profile],
            found=found,
        )
    into[name] = data


def _compare(
    table: Table, one: Slice, leaves: bytes, files: FileSet, into: dict[Slice, Finding]
) -> None:
    line = table.tensors[one.tensor]
    profile, _, _ = leaf_spans(table)[one.tensor]
    start = line.offsets[0] + one.number * CHUNK
    data = read_apart(files.files[line.file], start, min(start + CHUNK, line.offsets[1]))
    expected = leaves[one.number * LEAF_BYTES : (one.number + 1) * LEAF_BYTES]
    found = digest.leaf(profile, data)
    if found != expected:
        into[one] = finding(
            "slice-digest",
            "a slice of a tensor is not the signed one",
            where=f"{line.file}: {one.tensor}, bytes [{start}, {start + len(data)})",
            expected=f"leaf {expected.hex()}",
            found=f"leaf {found.hex()}",
        )
