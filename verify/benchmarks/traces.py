"""What a command leaves behind: files of a release that were touched, files that are new."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from parentage.attest.bundle import CLAIMS
from parentage.manifest.errors import FileSetError, ResultsError

#: (inode, size, change of content, change of anything), by name.
Stamps = dict[str, tuple[int, int, int, int]]
#: (inode, change of content, change of anything), by path.
Seen = Mapping[Path, tuple[int, int, int]]


def stamps(folder: Path) -> Stamps:
    """Return what shows whether a release was written, or put aside meanwhile, but for its claims."""
    found: Stamps = {}
    # A folder that is renamed changes, and nothing in it does. That of the claims changes with them.
    left_out = {CLAIMS, CLAIMS.partition("/")[0]}
    for path in [folder, *sorted(folder.rglob("*"))]:
        name = path.relative_to(folder).as_posix()
        if name not in left_out:
            status = path.stat()
            found[name] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def untouched(before: Stamps, after: Stamps) -> None:
    """Refuse a release of which a file was written, even back to what it was.

    Raises:
        FileSetError: naming the first.
    """
    changed = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    if changed:
        raise FileSetError(
            "a file of the release was written while the command ran",
            where=changed[0],
            expected="a release that nobody writes to",
            hint="run it on a copy that the command can only read",
        )


def matching(pattern: str) -> Seen:
    """Return the files that a pattern matches, from the current folder."""
    root, relative = Path(), Path(pattern)
    if relative.is_absolute():
        root, relative = Path(relative.anchor), relative.relative_to(relative.anchor)
    found = {}
    for path in root.glob(str(relative)):
        if path.is_file():
            status = path.stat()
            found[path] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found


def new_files(pattern: str, before: Seen) -> list[Path]:
    """Return the files that were not there before, or were written since."""
    return sorted(path for path, stamp in matching(pattern).items() if before.get(path) != stamp)


def one_new(pattern: str, before: Seen) -> Path:
    """Return the one new file.

    Raises:
        ResultsError: there is none, or there are several.
    """
    found = new_files(pattern, before)
    if len(found) != 1:
        raise ResultsError(
            "the command left no results file, or several",
            where=pattern,
            expected="1 new file",
            found=", ".join(map(str, found[:5])) or "none",
            hint="--results 'out/**/results_*.json'",
        )
    return found[0]
