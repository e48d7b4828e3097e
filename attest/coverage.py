"""What a model signature covers and what it leaves open: ignore rules, and what loaders read.

A signature that ignores everything, or that nobody compared with the folder, would say nothing; so
what is not covered is counted and shown, and a file that loaders read must be covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

import msgspec

#: Left out by the specification, at the top of a model only.
GIT: Final = (".git", ".gitattributes", ".github", ".gitignore")
#: What `hf download --local-dir` keeps about its downloads.
HUB_CACHE: Final = ".cache/huggingface"
#: Exact paths. Claims are appended after signing, signatures sign others; the cache and git files are not part of a release.
DEFAULT_IGNORES: Final = (
    *(HUB_CACHE, *GIT),
    *(".parentage/claims.jsonl", ".parentage/model.mldsa.sigstore.json", "model.sig"),
)
#: What loaders read: leaving one of these open would leave it to anyone.
_READ_BY_LOADERS: Final = (
    *("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.h5", "*.msgpack"),
    *("*.pkl", "*.pickle", "*.npz", "*.py", "*.so", "*.json", "*.jinja", "*.model", "merges.txt"),
    *("vocab.*", "tokenizer*", "chat_template*", "*.jsonl", "leaves.bin"),
)


class Share(msgspec.Struct):
    """Some files of a model: how many, and their bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count a file."""
        self.files += 1
        self.bytes += size

    def take(self, other: Share) -> None:
        """Count all of another share's."""
        self.files += other.files
        self.bytes += other.bytes


class Cover(msgspec.Struct):
    """Every file of a model in one of three shares.

    Attributes:
        covered: files whose digest is signed.
        ignored: files that an ignore path leaves out.
        unsigned: files that nothing says anything about.
    """

    covered: Share = msgspec.field(default_factory=Share)
    ignored: Share = msgspec.field(default_factory=Share)
    unsigned: Share = msgspec.field(default_factory=Share)

    def describe(self) -> str:
        """Return the coverage line."""
        files = self.covered.files + self.ignored.files + self.unsigned.files
        size = self.covered.bytes + self.ignored.bytes + self.unsigned.bytes
        return (
            f"{self.covered.files:,} of {files:,} files, {self.covered.bytes:,} of {size:,} bytes; "
            f"ignored {self.ignored.files:,} ({self.ignored.bytes:,} bytes), "
            f"unsigned {self.unsigned.files:,} ({self.unsigned.bytes:,} bytes)"
        )


def cover_of(sizes: Mapping[str, int], signed: Iterable[str], ignored: Iterable[str]) -> Cover:
    """Count files by what covers them.

    Args:
        sizes: bytes by name of every file on disk.
        signed: names that are signed; signed goes before ignored.
        ignored: names that an ignore path leaves out.
    """
    signed, ignored, cover = frozenset(signed), frozenset(ignored), Cover()
    for name, size in sizes.items():
        share = (
            cover.covered
            if name in signed
            else cover.ignored
            if name in ignored
            else cover.unsigned
        )
        share.add(size)
    return cover


def is_ignored(name: str, ignore_paths: Iterable[str]) -> bool:
    """Say whether a file is an ignored path, or lies below one."""
    if not isinstance(ignore_paths, frozenset):
        ignore_paths = frozenset(ignore_paths)
    parts = name.split("/")
    return any("/".join(parts[:depth]) in ignore_paths for depth in range(1, len(parts) + 1))


def read_by_loaders(name: str) -> bool:
    """Say whether a file is weights, code, config or tokenizer, by its name."""
    last = name.rpartition("/")[2].lower()
    return any(fnmatchcase(last, glob) for glob in _READ_BY_LOADERS)


def dangerous_ignores(ignore_paths: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the files that loaders read and that the signer's own ignores leave unsigned."""
    own = frozenset(ignore_paths) - frozenset(DEFAULT_IGNORES)
    return [name for name in names if is_ignored(name, own) and read_by_loaders(name)]
