"""`status/v0.1`: what a publisher says of its release later: current, superseded or withdrawn."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from parentage.attest.clock import Time, parse_time
from parentage.attest.statement import Statement
from parentage.attest.statements.shared import About, Digest, Reason, Release, Words, read, write
from parentage.attest.statements.shared import about as about_of
from parentage.manifest.errors import StatementError
from parentage.manifest.lineage import NAMESPACE
from parentage.manifest.wire import Wire

TYPE: Final = f"{NAMESPACE}/status/v0.1"
State = Literal["current", "superseded", "withdrawn"]
#: Reasons that say that something was false: the claim must be named.
#: Reasons that say that a claim was false; such a status names it.
FALSE: Final = frozenset({"wrong-artifact", "undisclosed-parent"})


class Status(Wire, frozen=True, kw_only=True):
    """The predicate. Subjects: `lineage` (SHA-256 of its payload) and `model` (root of model.sig).

    Attributes:
        state: what holds from `effective_at` on.
        sequence: 1, 2, 3, … of one release; the highest holds, and two of one number are a fork.
        previous: payload of the status before; absent in the first only.
        effective_at: from when. Of a stolen key: since when its signatures are not the publisher's.
        valid_until: of `current`, which is a statement with an end: leaving out what came later makes
            it stale.
        reason: of the other two.
        statement: for people.
        superseded_by: what replaces it, by full digests.
        false_claims: payloads of the claims that were false, where the reason says that one was.
    """

    state: State
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    effective_at: Time
    previous: Digest | None = None
    valid_until: Time | None = None
    reason: Reason | None = None
    statement: Words = ""
    superseded_by: Annotated[tuple[Release, ...], msgspec.Meta(max_length=16)] = ()
    false_claims: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=64)] = ()


def build(about: About, status: Status) -> bytes:
    """Return the payload of a status.

    Raises:
        StatementError: it says too little or too much for its state.
    """
    _check(status, "status")
    return write(about.subjects(), TYPE, status)


def parse(statement: Statement, where: str) -> tuple[About, Status]:
    """Read a status statement.

    Raises:
        StatementError: other subjects or fields, or it says too little or too much for its state.
    """
    status = read(statement, TYPE, Status, where)
    _check(status, where)
    return about_of(statement, where), status


def _check(status: Status, where: str) -> None:
    starts = parse_time(status.effective_at, where)
    ends = None if status.valid_until is None else parse_time(status.valid_until, where)
    is_current = status.state == "current"
    for wrong, what, expected in (
        ((status.previous is None) != (status.sequence == 1), "previous", "one, but in the first"),
        (is_current != (ends is not None), "validUntil", "of a current status, and of no other"),
        (is_current != (status.reason is None), "reason", "of every other than a current status"),
        (ends is not None and ends <= starts, "validUntil", "later than effectiveAt"),
        (
            (status.state == "superseded") != bool(status.superseded_by),
            "supersededBy",
            "of a superseded status, and of no other",
        ),
        (
            (status.reason in FALSE) != bool(status.false_claims),
            "falseClaims",
            f"with the reasons {', '.join(sorted(FALSE))}, and with no other",
        ),
    ):
        if wrong:
            raise StatementError(
                f"status and its {what} do not fit", where=where, expected=expected
            )
