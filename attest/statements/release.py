"""in-toto's `release/v0.1`: these files are what lies at this place, in this revision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from parentage.attest.statement import Statement, Subject
from parentage.attest.statements.shared import read, write
from parentage.manifest.errors import StatementError

TYPE: Final = "https://in-toto.io/attestation/release/v0.1"
_PURL: Final = re.compile(r"pkg:[a-z][a-z0-9.+-]*/[^@?#\s]+@[^@?#\s/]+(\?[^#\s]*)?(#\S*)?")


class Release(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The predicate. Subjects: every file by its name. Unknown fields are ignored, as in-toto asks.

    Attributes:
        purl: package URL with its version: "pkg:huggingface/acme/rio@<commit>".
        release_id: of the package, where the registry has one that survives renames.
    """

    purl: Annotated[str, msgspec.Meta(max_length=2048)]
    release_id: str = ""


def build(files: Mapping[str, str], release: Release) -> bytes:
    """Return the payload of a release statement about files with these SHA-256 digests.

    Raises:
        StatementError: no file, or no package URL with a version.
    """
    if not files:
        raise StatementError("a release of no files", where="release")
    _check(release, "release")
    subjects = tuple(Subject(name, files[name]) for name in sorted(files))
    return write(subjects, TYPE, release)


def parse(statement: Statement, where: str) -> tuple[dict[str, str], Release]:
    """Read a release statement, and the SHA-256 of its files by name.

    Raises:
        StatementError: no package URL with a version.
    """
    release = read(statement, TYPE, Release, where)
    _check(release, where)
    return {subject.name: subject.sha256 for subject in statement.subjects}, release


def _check(release: Release, where: str) -> None:
    if not _PURL.fullmatch(release.purl):
        raise StatementError(
            "not a package URL with a version",
            where=where,
            expected="pkg:huggingface/ORG/NAME@COMMIT",
            found=release.purl,
        )
