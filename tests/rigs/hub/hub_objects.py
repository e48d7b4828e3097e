"""Where the local Hub keeps large files: one file an object, named by its SHA-256, and a Xet store beside them.

Objects lie on disk so that gigabytes are served by the kernel and never pass through Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

_CHUNK = 1 << 20
#: xet-core's shard format: a header of 48 bytes, then one record of 48 bytes after the other.
_RECORD = 48
_WITH_VERIFICATION = 1 << 31
_WITH_METADATA = 1 << 30
_NO_MORE_FILES = b"\xff" * 32


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Objects:
    """Large files by their SHA-256.

    Attributes:
        xet_url: what a client is told the content-addressed store is; empty: the Hub offers no Xet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "lfs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._xet = folder / "xet"
        self.xet_url = ""

    def offer_xet(self) -> None:
        """Let clients upload and download through hf-xet, into a folder."""
        self._xet.mkdir(exist_ok=True)
        self.xet_url = f"local://{self._xet}"

    def path(self, sha256: str) -> Path:
        """Return where an object is or would be."""
        return self._folder / sha256

    def take(self, pieces: Iterable[bytes], expected: str) -> bool:
        """Store what is sent; say whether it is what was announced."""
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != expected:
            Path(file.name).unlink()
            return False
        Path(file.name).replace(self.path(expected))
        return True

    def adopt(self, source: Path) -> str:
        """Store a file, as a hard link where the disk can; return its SHA-256."""
        sha256 = sha256_of(source)
        if not self.path(sha256).exists():
            try:
                os.link(source, self.path(sha256))
            except OSError:
                shutil.copyfile(source, self.path(sha256))
        return sha256

    def has(self, sha256: str) -> bool:
        """Say whether an object can be served, bringing it out of the Xet store if it lies there."""
        if not self.path(sha256).exists():
            stored = self._stored_xet().get(sha256)
            if stored is not None:
                self._bring(sha256, *stored)
        return self.path(sha256).exists()

    def size(self, sha256: str) -> int:
        """Return an object's length in bytes."""
        return self.path(sha256).stat().st_size

    def xet_hash(self, sha256: str) -> str | None:
        """Return the Xet hash of an object that came through Xet."""
        stored = self._stored_xet().get(sha256) if self.xet_url else None
        return stored[0] if stored else None

    def xorbs(self) -> list[Path]:
        """Return the files in which the Xet store keeps contents."""
        return sorted(self._xet.rglob("xorbs/xorbs/default.*[0-9a-f]"))

    def _bring(self, sha256: str, xet_hash: str, size: int) -> None:
        import hf_xet

        target = self._folder / f"{sha256}.coming"
        with hf_xet.XetSession().new_file_download_group(endpoint=self.xet_url) as group:
            group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(target))
        target.replace(self.path(sha256))

    def _stored_xet(self) -> dict[str, tuple[str, int]]:
        """Return SHA-256 -> (Xet hash, size) of all that the store's shards say."""
        found = {}
        for shard in self._xet.rglob("xorbs/shards/*.mdb"):
            found.update(_files_of(shard.read_bytes()))
        return found


def _files_of(shard: bytes) -> dict[str, tuple[str, int]]:
    """Read the file section of a shard (xet-core, mdb_shard/src/file_structs.rs)."""
    found = {}
    at = _RECORD
    while shard[at : at + 32] != _NO_MORE_FILES:
        xet_hash = _hex(shard[at : at + 32])
        flags, entries = struct.unpack_from("<II", shard, at + 32)
        at += _RECORD
        size = sum(
            struct.unpack_from("<I", shard, at + _RECORD * i + 36)[0] for i in range(entries)
        )
        at += _RECORD * entries * (2 if flags & _WITH_VERIFICATION else 1)
        if flags & _WITH_METADATA:
            found[_hex(shard[at : at + 32])] = (xet_hash, size)
            at += _RECORD
    return found


def _hex(value: bytes) -> str:
    """Write a hash as Xet does: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", value))
