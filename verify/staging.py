"""Where a download comes into until it is verified: a hidden folder beside its place, ours alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from parentage.attest import bundle
from parentage.attest.bundle import MODEL_SIG
from parentage.manifest import atomic
from parentage.manifest.errors import (
    CannotRunError,
    MalformedError,
    UsageError,
    WriteFailedError,
)
from parentage.verify.sources.fetching import PART
from parentage.verify.sources.hub import Repo
from parentage.verify.sources.listed import Listed

_STAGING: Final = ".parentage-pull-"


@contextmanager
def staging_for(target: Path, repo: Repo) -> Iterator[Path]:
    """Yield the hidden folder beside the target that this state of the repository comes into.

    Raises:
        UsageError: it is not ours alone, or somebody else is at it.
        WriteFailedError: it can't be made.
    """
    key = hashlib.sha256(f"{repo.endpoint} {repo.place}".encode()).hexdigest()[:12]
    parent = target.absolute().parent
    staging = parent / f"{_STAGING}{target.absolute().name}-{key}"
    with ExitStack() as stack:
        with atomic.reporting(staging):
            staging.mkdir(mode=0o700, exist_ok=True)
        status = staging.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.geteuid()
            or status.st_mode & 0o22
        ):
            raise UsageError(
                "the folder that it would come into is not yours alone",
                where=str(staging),
                hint="remove it",
            )
        try:
            stack.enter_context(atomic.alone(staging, wait=0.0))
        except WriteFailedError as error:
            raise UsageError(
                "the same release is being pulled here by another process", where=str(staging)
            ) from error
        yield staging


def is_taken(target: Path) -> bool:
    """Say whether something is there: anything but an empty folder."""
    if target.is_dir() and not target.is_symlink():
        return any(target.iterdir())
    return os.path.lexists(target)


def signed_in(target: Path) -> bytes | None:
    """Return what the signature in a folder signs, unverified; None: there is none."""
    signature = target / MODEL_SIG
    if not signature.is_file() or signature.stat().st_size > bundle.MAX_BUNDLE:
        return None
    try:
        return bundle.parse(signature.read_bytes(), MODEL_SIG).payload
    except MalformedError:
        return None


def require_space(staging: Path, target: Path, files: Sequence[Listed]) -> None:
    """Refuse a download that the disk has no room for.

    Raises:
        CannotRunError: saying how much is needed, and how much is free.
    """
    there = 0
    for listed in files:
        with suppress(FileNotFoundError):
            there += (staging / (listed.path + PART)).stat().st_size
    needed = sum(listed.size for listed in files) - there
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise CannotRunError(
            "not enough space",
            where=str(target.absolute().parent),
            expected=f"{needed:,} bytes",
            found=f"{free:,} bytes free",
            hint="free space, or choose another place",
        )
