"""Weights compared with what was signed while they stream by: leaf by leaf, before they are anywhere.

A safetensors file is its header and its tensors without a gap, and the signed table says where each
lies; so every MiB that comes can be compared with the leaf that was signed for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from parentage.manifest import digest
from parentage.manifest.digest import CHUNK, LEAF_BYTES, Profile
from parentage.manifest.errors import HubContentError
from parentage.manifest.hashing import TensorDigest
from parentage.manifest.model import Model
from parentage.manifest.table import FileLine, Table, TensorLine
from parentage.verify.sources.fetching import Proof


class StreamCheck:
    """What a release's weights files are compared with, and what was found of them."""

    def __init__(self, table: Table, leaves: bytes) -> None:
        """Take the signed table, and the leaves that were checked to lead to it."""
        self._table, self._files = table, table.files
        self._lines: dict[str, list[TensorLine]] = {name: [] for name in table.files}
        self._leaves: dict[str, memoryview] = {}
        self._found: dict[str, TensorDigest] = {}
        at, view = 0, memoryview(leaves)
        for line in table.tensors.values():
            self._lines[line.file].append(line)
            end = at + LEAF_BYTES * digest.chunk_count(line.offsets[1] - line.offsets[0])
            self._leaves[line.name] = view[at:end]
            at = end

    def proof(self, name: str) -> Proof | None:
        """Return what takes the bytes of a file, in order; None: it can't be compared in a stream.

        It raises HubContentError at the first MiB that is not what was signed.
        """
        lines = sorted(self._lines.get(name, ()), key=lambda line: line.offsets)
        if not name.endswith(".safetensors") or not lines:
            return None
        if not _without_gap(lines, self._files[name]):
            return None
        return _FileStream(self._files[name], lines, self._leaves, self._found)

    def digests(self, model: Model) -> dict[str, TensorDigest]:
        """Return the digests of the tensors of `model` that are what passed by, where it passed by."""
        found: dict[str, TensorDigest] = {}
        for name, tensor in model.tensors.items():
            line = self._table.tensors.get(name)
            if name not in self._found or line is None:
                continue
            here = (tensor.file, (tensor.start, tensor.end), tensor.spec.dtype, tensor.spec.shape)
            if here == (line.file, line.offsets, line.dtype, line.shape):
                found[name] = self._found[name]
        return found


def _without_gap(lines: Sequence[TensorLine], file: FileLine) -> bool:
    """Say whether tensors and a header before them are the whole file."""
    if lines[0].offsets[0] < 8:
        return False
    ends = [line.offsets[1] for line in lines]
    starts = [line.offsets[0] for line in lines]
    return starts[1:] == ends[:-1] and ends[-1] == file.size


class _FileStream:
    """One file, as far as it came."""

    def __init__(
        self,
        file: FileLine,
        lines: Sequence[TensorLine],
        leaves: dict[str, memoryview],
        found: dict[str, TensorDigest],
    ) -> None:
        self._file, self._leaves, self._found = file, leaves, found
        self._lines = iter(lines)
        self._header = hashlib.sha256()
        self._header_left = lines[0].offsets[0]
        self._tensor = self._next()
        self._keep()

    def __call__(self, view: memoryview, /) -> None:
        """Compare the next bytes."""
        if self._header_left:
            part = view[: self._header_left]
            self._header.update(part)
            self._header_left -= len(part)
            view = view[len(part) :]
            if not self._header_left and self._header.hexdigest() != self._file.header:
                raise _other(self._file.file, "header", self._file.header, self._header.hexdigest())
        while view and self._tensor is not None:
            view = self._tensor.take(view)
            self._keep()
        if view:
            end = f"{self._file.size} bytes"
            raise _other(self._file.file, "", end, f"{len(view)} bytes after them")

    @property
    def is_whole(self) -> bool:
        """Whether every byte was compared."""
        return not self._header_left and self._tensor is None

    def _next(self) -> _TensorStream | None:
        line = next(self._lines, None)
        return _TensorStream(line, self._leaves[line.name]) if line else None

    def _keep(self) -> None:
        """Keep what was found of a tensor that is whole, and begin the next."""
        while self._tensor is not None and not self._tensor.left:
            self._found[self._tensor.line.name] = self._tensor.digest()
            self._tensor = self._next()


class _TensorStream:
    """One tensor, as far as it came: a MiB at a time."""

    def __init__(self, line: TensorLine, leaves: memoryview) -> None:
        self.line, self._signed = line, leaves
        self.left = line.offsets[1] - line.offsets[0]
        self._size = self.left
        self._leaves: dict[str, bytearray] = {profile: bytearray() for profile in line.identity}
        self._pending = bytearray()

    def take(self, view: memoryview) -> memoryview:
        """Take bytes up to the tensor's end; return the rest."""
        view, rest = view[: self.left], view[self.left :]
        while view:
            due = min(CHUNK, self.left + len(self._pending)) - len(self._pending)
            piece = view[:due]
            view = view[due:]
            self.left -= len(piece)
            if len(piece) < due:
                self._pending += piece
            elif self._pending:
                self._pending += piece
                self._chunk(self._pending)
                self._pending = bytearray()
            else:
                self._chunk(piece)
        return rest

    def _chunk(self, data: bytearray | memoryview) -> None:
        for number, profile in enumerate(_profiles(self.line)):
            leaves = self._leaves[profile]
            leaf = digest.leaf(profile, data)
            if number == 0 and leaf != self._signed[len(leaves) : len(leaves) + LEAF_BYTES]:
                where = f"{self.line.file}: {self.line.name}, MiB {len(leaves) // LEAF_BYTES}"
                signed = bytes(self._signed[len(leaves) : len(leaves) + LEAF_BYTES])
                raise _other(where, "leaf", signed.hex(), leaf.hex())
            leaves += leaf

    def digest(self) -> TensorDigest:
        """Return what was found of a whole tensor."""
        line = self.line
        identity = {
            profile: digest.identity(
                profile, line.dtype, line.shape, self._size, self._leaves[profile]
            )
            for profile in _profiles(line)
        }
        return TensorDigest(identity, {})


def _profiles(line: TensorLine) -> Iterable[Profile]:
    """Return the profiles of a tensor, that of leaves.bin first."""
    return [profile for profile in digest.PROFILES if profile in line.identity]


def _other(where: str, what: str, signed: str, found: str) -> HubContentError:
    return HubContentError(
        "the Hub gave other bytes than were signed",
        where=where,
        expected=f"{what} {signed}".strip(),
        found=f"{what} {found}".strip(),
        hint="try again; if it stays, the mirror or the cache in between is broken",
    )
