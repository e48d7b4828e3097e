"""Who disagrees with a release, and whether a policy listens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from parentage.attest.claims import Claim
from parentage.attest.heard import Heard
from parentage.attest.policy import Role
from parentage.attest.roles import Believed, persons
from parentage.attest.statements import dispute
from parentage.attest.statements.shared import About, sha256
from parentage.manifest.errors import StatementError


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a reader must know of.

    Attributes:
        code: stable name.
        denies: whether the policy says no.
        message: what it is.
        where: payload or line.
        expected, found: values.
    """

    code: str
    denies: bool
    message: str
    where: str = ""
    expected: str = ""
    found: str = ""


class Dispute(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A disagreement.

    Attributes:
        by: who, and whether their signature was checked.
        reason, statement: what they say.
        payload: SHA-256 of the statement's payload.
        roles: of the signers; none: a stranger.
    """

    by: str
    reason: str
    statement: str
    payload: str
    roles: list[Role] = []


def disputes(claims: Iterable[Claim], release: About) -> list[Dispute]:
    """Return the disputes of a release by those who are believed for something."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.opened.statement.predicate_type == dispute.TYPE:
            found.setdefault(sha256(claim.opened.payload), []).append(claim)
    shown = []
    for payload, signed in found.items():
        try:
            said, what = dispute.parse(signed[0].opened.statement, "dispute")
        except StatementError:
            continue
        if said.lineage == release.lineage or said.model == release.model:
            shown.append(
                Dispute(
                    by=_names(signed),
                    reason=what.reason,
                    statement=what.statement,
                    payload=payload,
                    roles=_roles(signed),
                )
            )
    return shown


def as_dispute(one: Heard) -> Dispute:
    """Show a status by somebody who may not say it."""
    return Dispute(
        by=_names(one.claims),
        reason=one.status.reason or "",
        statement=f"{one.status.state}: {one.status.statement}",
        payload=one.payload,
        roles=_roles(one.claims),
    )


def _names(signed: Iterable[Claim]) -> str:
    return ", ".join(sorted(persons(claim.opened.signer for claim in signed)))


def _roles(signed: Iterable[Claim]) -> list[Role]:
    return sorted({role for claim in signed for role in claim.roles})


def listened_to(claims: Sequence[Claim], release: About, believed: Believed) -> list[Problem]:
    """Return the disputes of verifiers and witnesses, in the number that their role demands."""
    found = []
    for one in disputes(claims, release):
        signed = [c for c in claims if sha256(c.opened.payload) == one.payload]
        for role in (Role.VERIFIER, Role.WITNESS):
            some = persons(c.opened.signer for c in signed if role in c.roles)
            if some and len(some) >= believed.threshold(role):
                found.append(
                    Problem(
                        code="disputed",
                        denies=believed.status.on_dispute == "fail",
                        message=f"disputed by {role}s: {one.reason}",
                        where=one.payload,
                        found=one.statement,
                    )
                )
                break
    return found
