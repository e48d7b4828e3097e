"""`.parentage/claims.jsonl`: one bundle a line, append-only, order-free, unknown lines ignored.

Dropping or adding a line may only lower what is known: a line that is malformed, by an untrusted
key or about something else is counted and passed over, never an error.
"""

from __future__ import annotations

import hashlib
from typing import Final, NoReturn

from parentage.attest.bundle import CLAIMS
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.statement import Subject, build_statement
from parentage.attest.trust import Trust
from parentage.manifest import lineage as lineages
from parentage.manifest import table
from parentage.manifest.errors import (
    LineageError,
    MalformedError,
    SignatureError,
    StatementError,
    UnsignedError,
)
from parentage.manifest.files import FileSet
from parentage.manifest.lineage import LINEAGE, Lineage

MAX_CLAIMS: Final = 256 << 20


def subjects(oms: Opened, tensors_sha256: str) -> tuple[Subject, ...]:
    """Return the three subjects of a lineage statement; a verifier demands all of them."""
    return (
        Subject("model", oms.statement.subjects[0].sha256),
        Subject(table.TENSORS, tensors_sha256),
        Subject("oms-statement", hashlib.sha256(oms.payload).hexdigest()),
    )


def lineage_statement(oms: Opened, tensors_sha256: str, predicate: Lineage) -> bytes:
    """Return the canonical payload of a lineage statement."""
    return build_statement(subjects(oms, tensors_sha256), LINEAGE, lineages.to_document(predicate))


def find_lineage(files: FileSet, oms: Opened, trust: Trust) -> tuple[Lineage, int]:
    """Return the one lineage by the signer of `oms`, and how many other lines were passed over.

    Raises:
        UnsignedError: no claims, or no lineage by that signer.
        StatementError: a lineage by that signer is about other subjects, or there are two.
        LineageError, RecipeError: it is signed and broken.
    """
    if CLAIMS not in files.files:
        raise _no_lineage(files)
    lines = files.files[CLAIMS].read_small(MAX_CLAIMS).split(b"\n")
    payloads: dict[bytes, Opened] = {}
    ignored = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            opened = open_bundle(line, trust, f"{CLAIMS}:{number}")
        except (MalformedError, SignatureError):
            ignored += 1
            continue
        same_signer = opened.signer == oms.signer
        if opened.statement.predicate_type != LINEAGE or not same_signer:
            ignored += 1
            continue
        payloads[opened.payload] = opened
    if not payloads:
        raise _no_lineage(files)
    expected = subjects(oms, _table_digest(files))
    matching = [opened for opened in payloads.values() if opened.statement.subjects == expected]
    if not matching:
        _refuse_subjects(expected, next(reversed(payloads.values())))
    if len(matching) > 1:
        raise StatementError(
            "two lineages by the same signer about the same weights",
            where=CLAIMS,
            expected="1",
            found=str(len(matching)),
            hint="the publisher must sign again: parentage declare, parentage sign",
        )
    # Lineages of the same signer about other statements are history: what was once said here.
    history = len(payloads) - 1
    predicate = lineages.parse(matching[0].statement.predicate, where="lineage")
    return predicate, ignored + history


def _table_digest(files: FileSet) -> str:
    if table.TENSORS not in files.files:
        raise LineageError("release has no tensor table", where=table.TENSORS)
    return hashlib.sha256(files.files[table.TENSORS].read_small(table.MAX_TABLE)).hexdigest()


def _refuse_subjects(expected: tuple[Subject, ...], opened: Opened) -> NoReturn:
    found = {subject.name: subject.sha256 for subject in opened.statement.subjects}
    for subject in expected:
        if found.get(subject.name) != subject.sha256:
            raise StatementError(
                "lineage statement is about something else",
                where=f"subject {subject.name}",
                expected=f"sha256 {subject.sha256}",
                found=f"sha256 {found.get(subject.name, 'absent')}",
            )
    raise StatementError("lineage statement has other subjects", found=str(sorted(found)))


def _no_lineage(files: FileSet) -> UnsignedError:
    return UnsignedError(
        "no lineage by the signer of model.sig",
        where=str(files.root / CLAIMS),
        expected=LINEAGE,
        hint="the publisher can add one: parentage declare, parentage sign",
    )
