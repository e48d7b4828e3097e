"""The files of a repository at a commit, as a Hub lists them: declared sizes and digests, never truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from parentage.manifest.errors import HubAnswerError
from parentage.manifest.files import MAX_FILES

_MAX_NAME: Final = 1024
_Hex64 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
_Hex40 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$(?!\n)")]
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Listed(msgspec.Struct, frozen=True):
    """One file, as the Hub describes it.

    Attributes:
        path: POSIX form, checked to stay below the folder that it is written to.
        size: bytes.
        sha256: of its content, for a file in LFS or Xet; None: a regular git blob.
        blob_oid: SHA-1 of the git blob; in LFS that is of the pointer, not of the content.
    """

    path: str
    size: int
    sha256: str | None
    blob_oid: str


class _Lfs(msgspec.Struct, frozen=True):
    oid: _Hex64
    size: _Size


class _Entry(msgspec.Struct, frozen=True):
    """One line of a tree; what else stands in it is not read."""

    type: str
    path: str
    oid: _Hex40
    size: _Size = 0
    lfs: _Lfs | None = None


class Content:
    """Digests of a file while its bytes come by, to be compared with what is listed."""

    def __init__(self, listed: Listed) -> None:
        self._listed, self._sha256 = listed, hashlib.sha256()
        self._git = None if listed.sha256 else hashlib.sha1(usedforsecurity=False)
        if self._git is not None:
            self._git.update(b"blob %d\0" % listed.size)

    def update(self, data: bytes | memoryview) -> None:
        """Take bytes, in order."""
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes so far."""
        return self._sha256.hexdigest()

    @property
    def expected(self) -> str:
        """What the Hub lists."""
        return (
            f"sha256 {self._listed.sha256}"
            if self._listed.sha256
            else f"git {self._listed.blob_oid}"
        )

    @property
    def found(self) -> str:
        """What came, likewise."""
        return f"git {self._git.hexdigest()}" if self._git is not None else f"sha256 {self.sha256}"


def entries(document: object, where: str) -> list[Listed]:
    """Read one page of a tree; folders are passed over.

    Raises:
        HubAnswerError: not a page, or a name that could lead anywhere else.
    """
    try:
        page = msgspec.convert(document, list[_Entry])
    except msgspec.ValidationError as error:
        raise HubAnswerError(
            "the Hub's list of files is not one", where=where, found=str(error)
        ) from error
    return [_listed(entry, where) for entry in page if entry.type == "file"]


def _listed(entry: _Entry, where: str) -> Listed:
    parts = entry.path.split("/")
    plain = entry.path.isprintable() and "\\" not in entry.path and len(entry.path) <= _MAX_NAME
    # No Hub lists git's own folder; its config would have git run commands.
    if not plain or any(p.lower() in {"", ".", "..", ".git"} or len(p) > 255 for p in parts):
        raise HubAnswerError(
            "the Hub lists a file name that is not one",
            where=where,
            expected="a relative path of printable characters, without .. and .git",
            found=entry.path,
        )
    if entry.lfs is not None and entry.lfs.size != entry.size:
        raise HubAnswerError(
            "the Hub lists two sizes for one file",
            where=entry.path,
            expected=f"{entry.lfs.size} bytes",
            found=f"{entry.size} bytes",
        )
    sha256 = entry.lfs.oid if entry.lfs is not None else None
    return Listed(entry.path, entry.size, sha256, entry.oid)


def collected(found: dict[str, Listed], more: Iterable[Listed], where: str) -> None:
    """Add files to those that were listed before.

    Raises:
        HubAnswerError: a name that stands twice, or too many.
    """
    for listed in more:
        if listed.path in found:
            raise HubAnswerError("the Hub lists a file twice", where=where, found=listed.path)
        found[listed.path] = listed
        if len(found) > MAX_FILES:
            raise HubAnswerError(
                "the Hub lists too many files", where=where, expected=f"at most {MAX_FILES}"
            )


def check_folders(found: Iterable[str], where: str) -> None:
    """Refuse a name that is a file and a folder at once.

    Raises:
        HubAnswerError: naming it.
    """
    names = set(found)
    for name in names:
        parent = name
        while parent := parent.rpartition("/")[0]:
            if parent in names:
                raise HubAnswerError(
                    "a file of the Hub is a folder, too", where=where, found=parent
                )
