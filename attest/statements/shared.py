"""What these statements share: whom they are about, digests, reasons, and reading a predicate."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from parentage.attest.statement import Statement, Subject, build_statement
from parentage.manifest.errors import StatementError
from parentage.manifest.wire import DigestSet, Hex, Wire

Reason = Literal[
    "wrong-artifact", "undisclosed-parent", "license", "security", "key-compromise", "other"
]
Words = Annotated[str, msgspec.Meta(max_length=4000)]
Link = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
#: A count that may pass 2^53, as a decimal string.
Count = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,19})$(?!\n)")]
_T = TypeVar("_T", bound=msgspec.Struct)


class Digest(Wire, frozen=True, kw_only=True):
    """The SHA-256 of a statement's payload, or of a file."""

    sha256: Hex


class Evidence(Wire, frozen=True, kw_only=True):
    """A document that backs a statement, by digest.

    Attributes:
        sha256: of its bytes.
        media_type: of its bytes.
        uri: where it may be found; a hint.
    """

    sha256: Hex
    media_type: str = ""
    uri: str = ""


class Release(Wire, frozen=True, kw_only=True):
    """Another release, by full digests.

    Attributes:
        lineage: SHA-256 of its lineage's payload.
        model: digest of its model signature's subject.
        weights: its weights root.
        uri: where it may be found; a hint.
    """

    lineage: Hex
    model: Hex
    weights: DigestSet
    uri: str = ""


class About(msgspec.Struct, frozen=True):
    """The release that a status or a dispute is about: `lineage` and `model`, both or nothing.

    Attributes:
        lineage: SHA-256 of the lineage's payload.
        model: digest of the model signature's subject.
    """

    lineage: str
    model: str

    def subjects(self) -> tuple[Subject, ...]:
        """Return the two subjects."""
        return Subject("lineage", self.lineage), Subject("model", self.model)


def sha256(payload: bytes) -> str:
    """Return how statements name each other: by the SHA-256 of the payload."""
    return hashlib.sha256(payload).hexdigest()


def about(statement: Statement, where: str) -> About:
    """Return the release that a statement is about.

    Raises:
        StatementError: its subjects are others than `lineage` and `model`.
    """
    named = {subject.name: subject.sha256 for subject in statement.subjects}
    if [subject.name for subject in statement.subjects] != ["lineage", "model"]:
        raise StatementError(
            "statement has other subjects",
            where=where,
            expected="lineage, model",
            found=", ".join(named),
        )
    return About(named["lineage"], named["model"])


def read(statement: Statement, kind: str, model: type[_T], where: str) -> _T:
    """Turn a statement's predicate into its structure.

    Raises:
        StatementError: it is of another type, or breaks the schema.
    """
    if statement.predicate_type != kind:
        raise StatementError(
            "statement of another kind", where=where, expected=kind, found=statement.predicate_type
        )
    try:
        return msgspec.convert(statement.predicate, model)
    except msgspec.ValidationError as error:
        raise StatementError(f"not a {_word(kind)} predicate: {error}", where=where) from error


def write(subjects: tuple[Subject, ...], kind: str, predicate: msgspec.Struct) -> bytes:
    """Return the canonical payload of a statement."""
    document: dict[str, Any] = msgspec.to_builtins(predicate)
    return build_statement(subjects, kind, document)


def _word(kind: str) -> str:
    return kind.rstrip("/").split("/")[-2].replace("_", " ")
