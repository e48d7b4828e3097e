"""`.parentage/claims.jsonl`: one bundle a line, append-only, order-free, unknown lines ignored.

Dropping or adding a line may only lower what is known: a line that is malformed, by an untrusted
key or about something else is counted and passed over, never an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, NoReturn

import msgspec

from parentage.attest.bundle import CLAIMS, MAX_BUNDLE, MODEL_MLDSA
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.policy import Role
from parentage.attest.roles import Believed
from parentage.attest.roles import believed as as_believed
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


class Claim(msgspec.Struct, frozen=True):
    """A line that somebody who is believed for something signed.

    Attributes:
        where: file and line.
        opened: the verified statement.
        roles: of its signer.
        sha256: of the line.
    """

    where: str
    opened: Opened
    roles: frozenset[Role]
    sha256: str = ""


class Unopened(msgspec.Struct, frozen=True):
    """A line that nobody who is believed signed, or no bundle at all.

    Attributes:
        where: file and line.
        line: its bytes, not to be believed.
        why: what stopped it.
    """

    where: str
    line: bytes
    why: str


class Claims(msgspec.Struct, frozen=True):
    """The lines of `claims.jsonl`, in their order, which means nothing."""

    opened: tuple[Claim, ...] = ()
    unopened: tuple[Unopened, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """The lineage of a release.

    Attributes:
        lineage: the predicate.
        opened: its statement.
        history: other lineages by the same signer: what was once said here.
    """

    lineage: Lineage
    opened: Opened
    history: tuple[Claim, ...] = ()


def read_claims(files: FileSet, believed: Believed) -> Claims:
    """Verify every line, and only then read it; an additional signature is one more line."""
    opened: list[Claim] = []
    unopened: list[Unopened] = []
    for where, line in _lines(files):
        try:
            found = open_bundle(line, believed.everyone, where)
        except (MalformedError, SignatureError) as error:
            unopened.append(Unopened(where, line, error.what))
            continue
        opened.append(
            Claim(where, found, believed.roles_of(found.signer), hashlib.sha256(line).hexdigest())
        )
    return Claims(tuple(opened), tuple(unopened))


def _lines(files: FileSet) -> Iterator[tuple[str, bytes]]:
    if MODEL_MLDSA in files.files:
        yield MODEL_MLDSA, files.files[MODEL_MLDSA].read_small(MAX_BUNDLE)
    if CLAIMS in files.files:
        lines = files.files[CLAIMS].read_small(MAX_CLAIMS).split(b"\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{CLAIMS}:{number}", line


def choose_lineage(files: FileSet, oms: Opened, claims: Claims) -> Found:
    """Return the one lineage by the signer of `oms`.

    Raises:
        UnsignedError: no claims, or no lineage by that signer.
        StatementError: a lineage by that signer is about other subjects, or there are two.
        LineageError, RecipeError: it is signed and broken.
    """
    by_payload = {
        claim.opened.payload: claim
        for claim in claims.opened
        if claim.opened.statement.predicate_type == LINEAGE and claim.opened.signer == oms.signer
    }
    if not by_payload:
        raise _no_lineage(files)
    expected = subjects(oms, table_digest(files))
    matching = [c.opened for c in by_payload.values() if c.opened.statement.subjects == expected]
    if not matching:
        _refuse_subjects(expected, by_payload[min(by_payload)].opened)
    if len(matching) > 1:
        raise StatementError(
            "two lineages by the same signer about the same weights",
            where=CLAIMS,
            expected="1",
            found=str(len(matching)),
            hint="the publisher must sign again: parentage declare, parentage sign",
        )
    chosen = matching[0]
    # Lineages of the same signer about other statements are history: what was once said here.
    history = tuple(c for c in by_payload.values() if c.opened.payload != chosen.payload)
    return Found(lineages.parse(chosen.statement.predicate, where="lineage"), chosen, history)


def find_lineage(files: FileSet, oms: Opened, trust: Trust) -> Lineage:
    """Return the one lineage by the signer of `oms`; raises as `choose_lineage`."""
    return choose_lineage(files, oms, read_claims(files, as_believed(trust))).lineage


def table_digest(files: FileSet) -> str:
    """Return the SHA-256 of the tensor table.

    Raises:
        LineageError: there is none.
    """
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
        hint="the publisher can add one: parentage declare, parentage sign; "
        "the files alone: parentage oms verify",
    )
