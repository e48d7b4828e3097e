"""in-toto Statement v1, strict, with its exact bytes kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import JsonError, StatementError

TYPE: Final = "https://in-toto.io/Statement/v1"
MAX_PAYLOAD: Final = 48 << 20
_HEX: Final = re.compile("[0-9a-f]{64}")
_FIELDS: Final = {"_type", "subject", "predicateType", "predicate"}


class Subject(msgspec.Struct, frozen=True):
    """What a statement is about.

    Attributes:
        name: unique inside the statement.
        sha256: 64 hex digits.
    """

    name: str
    sha256: str


class Statement(msgspec.Struct, frozen=True):
    """A parsed statement.

    Attributes:
        payload: the bytes that it was parsed from.
        subjects: at least one.
        predicate_type: URI.
        predicate: the JSON object, to be checked by whoever knows the type.
    """

    payload: bytes
    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]


def parse_statement(payload: bytes, where: str) -> Statement:
    """Parse a statement.

    Raises:
        StatementError: a field is unknown, missing or wrong; no subject; a name stands twice.
    """
    document = read_fields(payload, where)
    if not isinstance(document["predicateType"], str) or not isinstance(
        document["predicate"], dict
    ):
        raise StatementError("predicate is not an object with a type", where=where)
    return Statement(
        payload,
        _subjects(document["subject"], where),
        document["predicateType"],
        document["predicate"],
    )


def read_fields(payload: bytes, where: str, *, floats: bool = False) -> dict[str, Any]:
    """Return a statement's four fields, its type checked; their values are to be read by the caller.

    Args:
        payload: the signed bytes.
        where: for errors.
        floats: whether numbers may have a point, as other tools write them.

    Raises:
        StatementError: no JSON object, other fields, another type.
    """
    try:
        document = canonical.loads(payload, where=where, max_bytes=MAX_PAYLOAD, floats=floats)
    except JsonError as error:
        raise StatementError(f"statement: {error.what}", where=where, found=error.found) from error
    if not isinstance(document, dict) or document.keys() != _FIELDS:
        found = sorted(document) if isinstance(document, dict) else type(document).__name__
        raise StatementError(
            "statement has other fields",
            where=where,
            expected=str(sorted(_FIELDS)),
            found=str(found),
        )
    if document["_type"] != TYPE:
        raise StatementError(
            "statement of another type", where=where, expected=TYPE, found=str(document["_type"])
        )
    return document


def build_statement(
    subjects: Sequence[Subject], predicate_type: str, predicate: dict[str, Any]
) -> bytes:
    """Return the canonical bytes of a statement."""
    return canonical.dumps(
        {
            "_type": TYPE,
            "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in subjects],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def _subjects(value: object, where: str) -> tuple[Subject, ...]:
    if not isinstance(value, list) or not value:
        raise StatementError("statement without a subject", where=where)
    subjects: dict[str, Subject] = {}
    for entry in value:
        if not isinstance(entry, dict) or entry.keys() != {"name", "digest"}:
            raise StatementError("subject has other fields", where=where, expected="name, digest")
        name, digest = entry["name"], entry["digest"]
        # sha256 only: sigstore-python refuses others, and a second digest could disagree.
        if not isinstance(digest, dict) or digest.keys() != {"sha256"}:
            raise StatementError(
                "subject digest must be sha256 only", where=where, found=str(digest)
            )
        if not isinstance(name, str) or not isinstance(digest["sha256"], str):
            raise StatementError("subject is not text", where=where)
        if not _HEX.fullmatch(digest["sha256"]):
            raise StatementError("not a SHA-256", where=f"{where}: {name}", found=digest["sha256"])
        if name in subjects:
            raise StatementError("subject name stands twice", where=where, found=name)
        subjects[name] = Subject(name, digest["sha256"])
    return tuple(subjects.values())
