"""`endorsement/v0.1`: somebody else stands by a claim: a parent's publisher, a hub, a lab.

It says nothing but which payload, so that endorsements by several are byte-identical and can be counted.
"""

from __future__ import annotations

from typing import Final

from parentage.attest.statement import Statement, Subject
from parentage.attest.statements.shared import Words, read, write
from parentage.manifest.errors import StatementError
from parentage.manifest.lineage import NAMESPACE
from parentage.manifest.wire import Wire

TYPE: Final = f"{NAMESPACE}/endorsement/v0.1"


class Endorsement(Wire, frozen=True, kw_only=True):
    """The predicate. Subject: `claim`, the SHA-256 of the endorsed payload.

    Attributes:
        statement: for people; endorsements with other words are counted apart.
    """

    statement: Words = ""


def build(claim: str, endorsement: Endorsement) -> bytes:
    """Return the payload of an endorsement of the statement whose payload has this SHA-256."""
    return write((Subject("claim", claim),), TYPE, endorsement)


def parse(statement: Statement, where: str) -> tuple[str, Endorsement]:
    """Read an endorsement, and the SHA-256 of the payload that it is of.

    Raises:
        StatementError: other subjects or fields.
    """
    endorsement = read(statement, TYPE, Endorsement, where)
    if [subject.name for subject in statement.subjects] != ["claim"]:
        raise StatementError("endorsement of something else", where=where, expected="claim")
    return statement.subjects[0].sha256, endorsement
