"""Repositories of a Hub on this disk: fetched once a commit, then folders like any other.

Nothing here is believed: a verification hashes what it uses, as it does in any folder. The cache only
saves the way to the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.manifest import atomic
from parentage.manifest.errors import (
    CannotRunError,
    FileSetError,
    HubNotFoundError,
    WriteFailedError,
)
from parentage.manifest.files import open_one
from parentage.manifest.hashing import Expecting, Progress
from parentage.manifest.model import INDEX_SUFFIX, PICKLED, READERS, read_index
from parentage.manifest.table import LEAVES
from parentage.verify.sources import hub
from parentage.verify.sources.cached import folder_of
from parentage.verify.sources.fetching import fetch, settle
from parentage.verify.sources.listed import Listed
from parentage.verify.sources.place import HubPlace

_MAX_LIST: Final = 64 << 20
_OURS: Final = ".parentage/"

Listing = Mapping[str, Listed]
Choice = Callable[[Listing, Path], Iterable[str]]
"""Says which files are needed next, given the list and the folder as far as it is filled."""


def release(found: Listing, _: Path) -> Iterable[str]:
    """Choose all files: a release is signed as a whole. Of what nobody signed, only what is small."""
    return found if MODEL_SIG in found else _small(found)


def said(found: Listing, _: Path) -> Iterable[str]:
    """Choose what holds claims: for `show`."""
    return [name for name in (MODEL_SIG, MODEL_MLDSA, CLAIMS) if name in found]


def claims(found: Listing, folder: Path) -> Iterable[str]:
    """Choose what claims are verified with."""
    return {*said(found, folder), *(name for name in found if name.startswith(_OURS))}


def card(found: Listing, folder: Path) -> Iterable[str]:
    """Choose the model card, what it is held against, and no weights."""
    beside = {"README.md", "mergekit_config.yml", "adapter_config.json", "config.json"}
    scores = {name for name in found if name.startswith(".eval_results/")}
    return {*claims(found, folder), *scores, *(beside & found.keys())} - {LEAVES}


def weights(found: Listing, folder: Path) -> Iterable[str]:
    """Choose one set of weights and what is small: for a parent.

    Those that a reader of the folder would take: the shards of the index, else the top-level files of
    the best format.
    """
    wanted = _small(found).union(claims(found, folder))
    top = [name for name in found if "/" not in name]
    index = [name for name in top if name.endswith(INDEX_SUFFIX)]
    if index and not (folder / index[0]).exists():
        return {*wanted, *index}
    if index:
        file = open_one(index[0], folder / index[0], ())
        try:
            shards = set(read_index(file).values())
        finally:
            file.close()
        return wanted.union(index, shards & found.keys())
    for suffixes in (*((suffix,) for suffix in READERS), PICKLED):
        best = [name for name in top if name.endswith(suffixes)]
        if best:
            return wanted.union(best)
    return wanted


def _small(found: Listing) -> set[str]:
    return {name for name, listed in found.items() if listed.sha256 is None}


def bring(
    place: HubPlace,
    choice: Choice = release,
    *,
    progress: Progress | None = None,
    threads: int = 4,
) -> Path:
    """Return a folder with files of a repository at a commit, fetched as far as they are not here.

    A commit whose files are here is not asked for again, so that this works without a network.

    Args:
        place: a moving revision is resolved once; the folder's name is the commit.
        choice: which files.
        progress: told of the bytes fetched, and how many are to come.
        threads: files at once.

    Raises:
        HubError: a subclass names what is in the way; what came so far is kept for the next time.
        FileSetError: the cache holds something else than files.
        CannotRunError: another process is fetching the same files.
        WriteFailedError: the disk is full or not writable.
    """
    known = folder_of(place, hub.endpoint()) if place.is_pinned else None
    if known is not None and (found := _remembered(known)) and not _missing(known, found, choice):
        return known
    repo = hub.resolve(place)
    found = hub.listing(repo)
    if not found:
        raise HubNotFoundError("the repository has no files", where=str(repo))
    folder = folder_of(repo.place, repo.endpoint)
    with atomic.reporting(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    meter: object = progress
    with _alone(folder):
        while missing := _missing(folder, found, choice):
            if isinstance(meter, Expecting):
                meter.expect(sum(listed.size for listed in missing))
            parts = folder.with_name(f"{repo.commit}.parts")
            settle(fetch(repo, missing, parts, progress=progress, threads=threads), folder)
        atomic.write_bytes(
            folder.with_name(f"{repo.commit}.json"), msgspec.json.encode(list(found.values()))
        )
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from fetching the same files, or say that one is at it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(atomic.alone(folder))
        except WriteFailedError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            raise CannotRunError(
                "another process is fetching the same files",
                where=str(folder),
                hint="wait for it, then run the same command again",
            ) from error
        yield


def _missing(folder: Path, found: Listing, choice: Choice) -> list[Listed]:
    """Return what is wanted and not in the folder, in its size.

    Raises:
        FileSetError: something is in the folder that the Hub does not list.
    """
    here: dict[str, int] = {}
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            continue
        name = path.relative_to(folder).as_posix()
        if name not in found or path.is_symlink() or not path.is_file():
            raise FileSetError(
                "the cache of fetched files holds something that was not fetched",
                where=str(path),
                hint=f"rm -r {folder}",
            )
        here[name] = path.stat().st_size
    return [found[name] for name in choice(found, folder) if here.get(name) != found[name].size]


def _remembered(folder: Path) -> Listing | None:
    """Return the list that was kept; None where there is none that can be read."""
    path = folder.with_name(f"{folder.name}.json")
    try:
        if path.stat().st_size > _MAX_LIST:
            return None
        kept = msgspec.json.decode(path.read_bytes(), type=list[Listed])
    except (OSError, msgspec.MsgspecError):
        return None
    return {listed.path: listed for listed in kept}
