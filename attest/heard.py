"""Statuses of a release as they were heard: by payload, and with whose authority."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from parentage.attest.claims import Claim
from parentage.attest.clock import Time, parse_time, to_text
from parentage.attest.policy import Role
from parentage.attest.roles import Believed, person, persons
from parentage.attest.statements import status
from parentage.attest.statements.shared import About, sha256
from parentage.attest.statements.status import Status
from parentage.manifest.errors import StatementError
from parentage.manifest.wire import Hex, Wire

#: Who may say the status of a release, beside the person who signed it.
DEPUTIES: Final = (Role.SUCCESSOR, Role.RECOVERY)
_SPEAKERS: Final = frozenset({Role.PUBLISHER, *DEPUTIES})


class Signature(msgspec.Struct, frozen=True):
    """The release's own signature.

    Attributes:
        owners: persons who signed model.sig; the same person may say its status.
        time: before which it was certainly made; None: nobody trusted says.
    """

    owners: frozenset[str]
    time: datetime | None = None


class Heard(msgspec.Struct, frozen=True):
    """One status payload, those who signed it, and the role that it counts for."""

    payload: str
    status: Status
    claims: tuple[Claim, ...]
    by: str = ""


class Word(Wire, frozen=True, kw_only=True):
    """That something was said by those who may lower a verdict: what a lock file remembers.

    Attributes:
        payload: SHA-256 of the statement's payload.
        owner: whether the release's signer said it, as often as the role demands.
        deputy: whether a successor or recovery did.
        proven: a time before which the signer said it; that keeps it valid after a theft.
    """

    payload: Hex
    owner: bool = False
    deputy: bool = False
    proven: Time | None = None

    def covers(self, earlier: Word) -> bool:
        """Say whether this is at least as strong as what was heard before."""
        timed = earlier.proven is None or (
            self.proven is not None and self.proven <= earlier.proven
        )
        return (
            self.payload == earlier.payload
            and self.owner >= earlier.owner
            and self.deputy >= earlier.deputy
            and timed
        )


def is_about(said: Status, named: About, release: About) -> bool:
    """Say whether a status is about a release.

    Good news must be about all of it. Bad news about one part is enough: the same files under another
    lineage are the same files, unless the status itself names that lineage as what replaces it.
    """
    if named == release:
        return True
    if said.state == "current":
        return False
    replaced = any(new.lineage == release.lineage for new in said.superseded_by)
    return not replaced and (named.lineage == release.lineage or named.model == release.model)


def heard(claims: Iterable[Claim], release: About) -> tuple[list[Heard], list[tuple[str, str]]]:
    """Group the statuses about a release by payload.

    Returns:
        Them, and what those who may speak signed and nobody can read: payload and why.
    """
    by_payload: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.opened.statement.predicate_type == status.TYPE:
            by_payload.setdefault(sha256(claim.opened.payload), []).append(claim)
    found, unread = [], []
    for payload, signed in sorted(by_payload.items()):
        try:
            named, said = status.parse(signed[0].opened.statement, "status")
        except StatementError as error:
            if any(claim.roles & _SPEAKERS for claim in signed):
                unread.append((payload, error.what))
            continue
        if is_about(said, named, release):
            found.append(Heard(payload, said, tuple(signed)))
    return found, unread


def authority(one: Heard, signature: Signature, believed: Believed, since: datetime | None) -> str:
    """Return the role that a status counts for; empty: for none.

    `since`: of a theft: what the release's signer said without a trusted time before it is not counted.
    """
    # Deputies first: a thief who signs the same bytes does not make them the thief's.
    for role in DEPUTIES:
        some = persons(claim.opened.signer for claim in one.claims if role in claim.roles)
        if some and len(some) >= believed.threshold(role):
            return role
    own = [
        claim.opened.signer
        for claim in one.claims
        if Role.PUBLISHER in claim.roles
        and (since is None or not _owns(claim, signature) or _before(claim, since))
    ]
    who = persons(own)
    if who & signature.owners and len(who) >= believed.threshold(Role.PUBLISHER):
        return Role.PUBLISHER
    return ""


def stolen_since(
    said: Iterable[Heard], signature: Signature, believed: Believed, roles: Sequence[Role]
) -> datetime | None:
    """Return since when the release's key is not its owner's, if some of these roles say so."""
    times = [
        parse_time(one.status.effective_at, "status")
        for one in said
        if one.status.reason == "key-compromise"
        and authority(one, signature, believed, None) in roles
    ]
    return min(times, default=None)


def words(said: Iterable[Heard], signature: Signature, believed: Believed) -> list[Word]:
    """Return what those who may say a status said of a release, whatever it comes to."""
    found = []
    for one in said:
        deputy = authority(one, Signature(frozenset()), believed, None) in DEPUTIES
        own = [claim for claim in one.claims if Role.PUBLISHER in claim.roles]
        who = persons(claim.opened.signer for claim in own)
        owner = bool(who & signature.owners) and len(who) >= believed.threshold(Role.PUBLISHER)
        if deputy or owner:
            proven = _proven(own, signature, believed) if owner else None
            found.append(Word(payload=one.payload, owner=owner, deputy=deputy, proven=proven))
    return found


def _proven(own: Sequence[Claim], signature: Signature, believed: Believed) -> str | None:
    """Return the time after which a theft leaves a statement of the release's signers valid."""
    earliest: dict[str, datetime] = {}
    for claim in own:
        name, time = person(claim.opened.signer), claim.opened.time
        if name in signature.owners and time is not None:
            earliest[name] = min(time, earliest.get(name, time))
    others = persons(c.opened.signer for c in own) - signature.owners
    needed = max(1, believed.threshold(Role.PUBLISHER) - len(others))
    times = sorted(earliest.values())
    return to_text(times[needed - 1]) if len(times) >= needed else None


def _owns(claim: Claim, signature: Signature) -> bool:
    return person(claim.opened.signer) in signature.owners


def _before(claim: Claim, since: datetime) -> bool:
    time = claim.opened.time
    return time is not None and time < since
