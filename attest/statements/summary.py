"""SLSA's verification summary (VSA) v1: a gate's verdict, with our levels as custom strings."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from parentage.attest.statement import Statement, Subject
from parentage.attest.statements.shared import Link, read, write
from parentage.manifest.errors import StatementError

TYPE: Final = "https://slsa.dev/verification_summary/v1"
SLSA: Final = "1.1"
FAILED: Final = "FAILED"


class _Open(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """SLSA's own documents: consumers must ignore what they do not know."""


class Verifier(_Open, frozen=True, kw_only=True):
    """Who verified. Believe it only for the signer that you know it of.

    Attributes:
        id: URI.
        version: of its tools, by name.
    """

    id: Link
    version: dict[str, str] = {}


class Resource(_Open, frozen=True, kw_only=True):
    """A policy or an attestation."""

    uri: str = ""
    digest: dict[str, str] = {}


class Summary(_Open, frozen=True, kw_only=True):
    """The predicate. Subjects: those of the lineage.

    Attributes:
        verifier: who.
        time_verified: RFC 3339.
        resource_uri: what it may be used as.
        policy: that it was verified against.
        input_attestations: all of those that were used, by the SHA-256 of their bundles.
        verification_result: the verdict.
        verified_levels: all that hold (SLSA forbids custom ones that start with SLSA_); FAILED where the
            result is.
        dependency_levels: how many parents hold which.
        slsa_version: that the document is of.
    """

    verifier: Verifier
    time_verified: Annotated[
        str, msgspec.Meta(pattern=r"^[0-9-]{10}T[0-9:.]{8,24}(Z|[+-][0-9:]{5})$(?!\n)")
    ]
    resource_uri: Link
    policy: Resource
    verification_result: Literal["PASSED", "FAILED"]
    verified_levels: tuple[str, ...]
    input_attestations: tuple[Resource, ...] = ()
    dependency_levels: dict[str, int] = {}
    slsa_version: str = ""


def build(subjects: tuple[Subject, ...], summary: Summary) -> bytes:
    """Return the payload of a summary.

    Raises:
        StatementError: result and levels contradict each other, or the policy has no URI.
    """
    _check(summary, "summary")
    return write(subjects, TYPE, summary)


def parse(statement: Statement, where: str) -> tuple[tuple[Subject, ...], Summary]:
    """Read a summary, and what it is about.

    Raises:
        StatementError: a field is missing, or result and levels contradict each other.
    """
    summary = read(statement, TYPE, Summary, where)
    _check(summary, where)
    return statement.subjects, summary


def _check(summary: Summary, where: str) -> None:
    failed = FAILED in summary.verified_levels
    if failed != (summary.verification_result == "FAILED") or not summary.verified_levels:
        raise StatementError(
            "result and levels contradict each other",
            where=where,
            expected=summary.verification_result,
            found=", ".join(summary.verified_levels) or "no level",
        )
    if not summary.policy.uri:
        raise StatementError("summary names no policy", where=where, expected="policy.uri")
