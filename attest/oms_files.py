"""The files of a model as a model signature sees them: walked, sorted out, hashed.

Nothing is opened while walking, so ignored folders may hold anything. Links: none, unless the signature
follows them, and then only to files inside the model. The links of a Hub cache snapshot are how that
cache keeps its files, and stand for them always.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import oms_names
from parentage.attest.coverage import GIT, HUB_CACHE, Share, is_ignored, read_by_loaders
from parentage.attest.oms import Oms
from parentage.manifest.errors import FileSetError, UsageError
from parentage.manifest.files import MAX_FILES, OpenFile, allowed_roots, open_one
from parentage.manifest.hashing import Progress
from parentage.manifest.ranges import Range, hash_ranges

#: Not part of a model wherever they stand at its top; their files are counted, not named.
_NOT_THE_MODEL: Final = frozenset({*GIT, HUB_CACHE})
#: What could be signed if links were followed.
LINK: Final = "a link"
_LINK_TO_FOLDER: Final = "a link to a folder"


class Entry(msgspec.Struct, frozen=True):
    """Something in the folder that is no folder.

    Attributes:
        path: where it lies.
        size: bytes; 0 where it is no file.
        problem: why it can't be hashed; empty where it can.
    """

    path: Path
    size: int
    problem: str = ""

    def read_by_loaders(self, name: str) -> bool:
        """Say whether it is weights, code, config or tokenizer, or hides files that may be."""
        return self.problem == _LINK_TO_FOLDER or read_by_loaders(name)


class Survey(msgspec.Struct):
    """What lies in a model.

    Attributes:
        root: the folder, or the one file.
        entries: by name, in code-point order, but for what is ignored.
        ignored: likewise, what an ignore path leaves out.
        aside: git's and the Hub client's files, which are counted only.
        allowed: folders that links may end in.
    """

    root: Path
    entries: dict[str, Entry]
    ignored: dict[str, Entry]
    aside: Share
    allowed: tuple[Path, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by name of all that is named here."""
        return {name: entry.size for name, entry in (self.entries | self.ignored).items()}

    @contextmanager
    def opened(self, name: str) -> Iterator[OpenFile]:
        """Open one file for as long as the block takes."""
        file = open_one(name, self.entries[name].path, self.allowed)
        try:
            yield file
        finally:
            file.close()


def survey(
    root: Path,
    *,
    ignore_paths: Iterable[str],
    listed: Iterable[str] = (),
    signature: Path | None = None,
    follow: bool = False,
) -> Survey:
    """Walk a model.

    Args:
        root: a folder, or one file, which is then named as it is called.
        ignore_paths: exact paths that are left out, with all below them.
        listed: names that are never left out.
        signature: the bundle, which is no part of the model, wherever it lies.
        follow: whether links to files inside the model stand for those.

    Raises:
        UsageError: there is no such path.
        FileSetError: a name that is not UTF-8, or too many files.
    """
    if not root.exists():
        raise UsageError("no such file or folder", where=str(root))
    if not root.is_dir():
        real = root.resolve()
        found = Entry(real, real.stat().st_size)
        return Survey(root, {root.name: found}, {}, Share(), ())
    walk = _Walk(root, frozenset(ignore_paths), frozenset(listed), follow=follow)
    return walk.run(inside(signature, root) if signature else None)


class _Walk:
    def __init__(
        self, root: Path, ignored: frozenset[str], listed: frozenset[str], *, follow: bool
    ) -> None:
        real, *blobs = allowed_roots(root)
        self._real, self._follow = real, follow
        self._blobs = tuple(blobs)
        self._ignored, self._listed = ignored, listed
        allowed = (real, *self._blobs) if follow else self._blobs
        self._found = Survey(root, {}, {}, Share(), allowed)

    def run(self, signature: str | None) -> Survey:
        pending = [""]
        while pending:
            prefix = pending.pop()
            with os.scandir(self._found.root / prefix) as entries:
                for entry in entries:
                    name = _utf8(prefix + entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(name + "/")
                    elif name != signature:
                        self._take(name, entry)
        self._found.entries = dict(sorted(self._found.entries.items()))
        return self._found

    def _take(self, name: str, entry: os.DirEntry[str]) -> None:
        found = self._found
        if name in self._listed or not is_ignored(name, self._ignored):
            found.entries[name] = self._look(entry)
        elif is_ignored(name, _NOT_THE_MODEL):
            found.aside.add(entry.stat(follow_symlinks=False).st_size)
        else:
            found.ignored[name] = self._look(entry)
        if len(found.entries) + len(found.ignored) > MAX_FILES:
            raise FileSetError("too many files", where=str(found.root), expected=f"<= {MAX_FILES}")

    def _look(self, entry: os.DirEntry[str]) -> Entry:
        path = Path(entry.path)
        if entry.is_symlink():
            return self._look_behind(path)
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            return Entry(path, status.st_size)
        return Entry(path, 0, "not a regular file")

    def _look_behind(self, path: Path) -> Entry:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
            return Entry(path, 0, "a link that leads nowhere")
        if target.is_file() and any(map(target.is_relative_to, self._found.allowed)):
            return Entry(path, target.stat().st_size)
        if target.is_dir():
            return Entry(path, 0, _LINK_TO_FOLDER)
        inside = target.is_relative_to(self._real)
        return Entry(path, 0, LINK if inside else "a link that leads out of the model")


def digests(
    found: Survey,
    names: Iterable[str],
    like: Oms,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Hash files as a signature does.

    Args:
        found: what lies in the model.
        names: files to hash.
        like: method, algorithm and shard size; and what a lone file is called.
        threads: of the hash pass.
        progress: told of the bytes done.

    Returns:
        Digest in hex by resource name; an empty file has no shards.

    Raises:
        FileSetError: a file can't be opened, or changes meanwhile.
    """
    resources: list[str] = []
    ranges: list[Range] = []
    for name in names:
        size = found.entries[name].size
        parts = [(name, 0, size)]
        if like.shard_size:
            parts = oms_names.shard_names(name, size, like.shard_size)
        for resource, start, end in parts:
            resources.append(resource)
            ranges.append(Range(name, start, end, size))
    hashed = hash_ranges(ranges, found.opened, like.hash_type, threads=threads, progress=progress)
    return dict(zip(resources, hashed, strict=True))


def inside(path: Path, root: Path) -> str | None:
    """Return a path's name in the model; None where it lies elsewhere. A final link is not followed."""
    real = path.parent.resolve() / path.name
    folder = root.resolve()
    if real == folder or not real.is_relative_to(folder):
        return None
    return real.relative_to(folder).as_posix()


def ignore_names(paths: Iterable[str], root: Path) -> list[str]:
    """Return ignore paths as a signature writes them: exact, relative to the model.

    A path may be absolute, relative to the model, or (as the reference tool has it) relative to here.

    Raises:
        UsageError: outside of the model, the model itself, or a pattern.
    """
    return [_ignore_name(text, root) for text in paths]


def _ignore_name(text: str, root: Path) -> str:
    path = Path(text)
    if any(c in text for c in "*?["):
        raise UsageError("ignore paths are exact, not patterns", found=text)
    here = not path.is_absolute() and not os.path.lexists(root / path) and os.path.lexists(path)
    name = inside(path if here or path.is_absolute() else root / path, root)
    if name is None or any(part in {".", ".."} for part in name.split("/")):
        raise UsageError(
            "an ignore path lies inside the model",
            expected=f"a path below {root}",
            found=text,
        )
    return name


def _utf8(name: str) -> str:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FileSetError("file name is not UTF-8", where=repr(name)) from error
    return name
