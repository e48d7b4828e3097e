"""Git LFS pointers: the SHA-256 of a large file, without reading the file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from parentage.verify.cards.surroundings import Folder

#: git-lfs, docs/spec.md: a pointer is smaller than this.
MAX_POINTER: Final = 1024
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:[a-z0-9.-]+ [^\n]*\n)*?"
    rb"oid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)
_PATIENCE: Final = 5.0


class Pointer(msgspec.Struct, frozen=True):
    """What stands in for a file.

    Attributes:
        sha256: of the file.
        size: of the file, in bytes.
    """

    sha256: str
    size: int


def parse(data: bytes) -> Pointer | None:
    """Read a pointer; None: it is something else."""
    found = _POINTER.fullmatch(data) if len(data) <= MAX_POINTER else None
    return None if found is None else Pointer(found[1].decode(), int(found[2]))


def in_place(folder: Folder, name: str, size: int) -> Pointer | None:
    """Return the pointer that lies in a release instead of a file that was not fetched."""
    if size > MAX_POINTER:
        return None
    return parse(folder.read(name) or b"")


def staged(folder: Path, names: Iterable[str]) -> Mapping[str, Pointer]:
    """Return the pointers in git's index of these files; nothing where there is no git.

    Two processes whatever the number of files; contents that are no pointers are not asked for.
    """
    listed = [name for name in names if "\n" not in name]
    sizes = _ask(folder, "--batch-check=%(objectname) %(objectsize)", [f":./{n}" for n in listed])
    objects: dict[str, str] = {}
    for name, line in zip(listed, sizes.split(b"\n"), strict=False):
        oid, _, size = line.decode("utf-8", "replace").partition(" ")
        if size.isdecimal() and int(size) <= MAX_POINTER:
            objects[name] = oid
    if not objects:
        return {}
    found: dict[str, Pointer] = {}
    rest = _ask(folder, "--batch=%(objectname) %(objectsize)", list(objects.values()))
    for name in objects:
        head, _, rest = rest.partition(b"\n")
        length = int(head.rpartition(b" ")[2] or b"0")
        pointer = parse(rest[:length])
        if pointer is not None:
            found[name] = pointer
        rest = rest[length + 1 :]
    return found


def _ask(folder: Path, how: str, objects: list[str]) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603  (git, with arguments of our own; names go to its input)
            ["git", "-C", str(folder), "cat-file", how],  # noqa: S607  (the git that runs the hook)
            input="".join(f"{name}\n" for name in objects).encode(),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
