"""Where a release stands: current, superseded, withdrawn, disputed. A pure function of what was signed.

The rules, exactly (docs/trust.md says them to users):

1. A status counts if it is by the person who signed the release, by a successor or by recovery, in the
   number that the role demands, over one payload. Anybody else's is shown as a dispute.
2. If a counting status says that the key is stolen since T, what that key signed without a trusted time
   before T is not counted: not its statuses, and not the release, unless a deputy's later status says
   so of these very digests. Deputies are believed about the theft first; without them the key itself,
   which can only harm its holder.
3. Of what is left and in effect, the highest sequence holds. Two of that sequence are a fork.
4. `current` is fresh until its own end and the policy's, whichever comes first. Without a fresh one,
   freshness is missing: what the policy says about that is how leaving out a withdrawal is met.
5. A dispute denies nothing by itself. A policy may listen to its verifiers and witnesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from parentage.attest.claims import Claim
from parentage.attest.clock import length, parse_time
from parentage.attest.identity import Identity
from parentage.attest.policy import OnIt, Role
from parentage.attest.roles import Believed, person, persons
from parentage.attest.statements import dispute, status
from parentage.attest.statements.shared import About, Release, sha256
from parentage.attest.statements.status import Status
from parentage.manifest.errors import StatementError

State = Literal["unknown", "current", "superseded", "withdrawn", "forked", "compromised"]
#: Who may say the status of a release, beside the person who signed it.
_DEPUTIES: Final = (Role.SUCCESSOR, Role.RECOVERY)


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


class Standing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a release stands.

    Attributes:
        state: what the status that holds says; "unknown" without one.
        fresh: whether a `current` holds now.
        sequence: of the status that holds; 0 without one.
        payload: SHA-256 of its payload.
        by: role that it counts for.
        reason, statement, effective_at, valid_until, superseded_by: what it says.
        disputes: who disagrees.
        problems: denials and warnings.
    """

    state: State = "unknown"
    fresh: bool = False
    sequence: int = 0
    payload: str = ""
    by: str = ""
    reason: str = ""
    statement: str = ""
    effective_at: str = ""
    valid_until: str = ""
    superseded_by: tuple[Release, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    problems: tuple[Problem, ...] = ()


class Signature(msgspec.Struct, frozen=True):
    """The release's own signature.

    Attributes:
        signer: of model.sig and lineage.
        time: before which it was certainly made; None: nobody trusted says.
    """

    signer: Identity
    time: datetime | None = None


class _Heard(msgspec.Struct, frozen=True):
    """One status payload and those who signed it."""

    payload: str
    status: Status
    about: About
    claims: tuple[Claim, ...]
    by: str = ""


def standing(
    about: About,
    signature: Signature,
    claims: Sequence[Claim],
    believed: Believed,
    now: datetime,
    *,
    strangers: Sequence[Dispute] = (),
) -> Standing:
    """Return where a release stands.

    Args:
        about: the release.
        signature: its own.
        claims: verified lines, in any order, with any others among them.
        believed: roles, thresholds, and what status means.
        now: the time.
        strangers: what was said by people whose signature can't be checked: shown, and no more.
    """
    problems: list[Problem] = []
    said = _heard(claims, about, problems)
    heard = [one for one in said if parse_time(one.status.effective_at, "status") <= now]
    by_deputies = _stolen_since(heard, signature, believed, _DEPUTIES)
    since = by_deputies or _stolen_since(heard, signature, believed, (Role.PUBLISHER,))
    counted, others = [], []
    for one in heard:
        admits = one.status.reason == "key-compromise" and by_deputies is None
        by = _authority(one, signature, believed, None if admits else since)
        if by:
            counted.append(msgspec.structs.replace(one, by=by))
        else:
            others.append(one)
    found = _decide(counted, signature, since, believed, now, problems)
    bad_news = [_as_dispute(one) for one in others if one.status.state != "current"]
    disputes = [*_disputes(claims, about), *bad_news, *strangers]
    problems += _listened_to(claims, about, believed)
    order = sorted(problems, key=lambda p: (not p.denies, p.code, p.where, p.message))
    return msgspec.structs.replace(
        found,
        disputes=tuple(sorted(disputes, key=lambda d: (not d.roles, d.payload, d.by))),
        problems=tuple(dict.fromkeys(order)),
    )


def is_about(status: Status, said: About, release: About) -> bool:
    """Say whether a status is about a release.

    Good news must be about all of it. Bad news about one part is enough: the same files under another
    lineage are the same files, unless the status itself names that lineage as what replaces it.
    """
    if said == release:
        return True
    if status.state == "current":
        return False
    replaced = any(new.lineage == release.lineage for new in status.superseded_by)
    return not replaced and (said.lineage == release.lineage or said.model == release.model)


def _heard(claims: Iterable[Claim], release: About, problems: list[Problem]) -> list[_Heard]:
    """Group the statuses about a release by payload."""
    by_payload: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.opened.statement.predicate_type == status.TYPE:
            by_payload.setdefault(sha256(claim.opened.payload), []).append(claim)
    heard = []
    for payload, signed in sorted(by_payload.items()):
        try:
            said, found = status.parse(signed[0].opened.statement, "status")
        except StatementError as error:
            # Whoever may speak said something that can't be read; it may have been a withdrawal.
            speaks = any(claim.roles & {Role.PUBLISHER, *_DEPUTIES} for claim in signed)
            problems.append(
                Problem(
                    code="status-unreadable",
                    denies=speaks,
                    message=f"a status can't be read: {error.what}",
                    where=payload,
                    found=error.found,
                )
            )
            continue
        if is_about(found, said, release):
            heard.append(_Heard(payload, found, said, tuple(signed)))
    return heard


def _authority(
    one: _Heard, signature: Signature, believed: Believed, since: datetime | None
) -> str:
    """Return the role that a status counts for; empty: for none."""
    owner = person(signature.signer)
    own = [
        claim.opened.signer
        for claim in one.claims
        if Role.PUBLISHER in claim.roles
        and (since is None or person(claim.opened.signer) != owner or _before(claim, since))
    ]
    who = persons(own)
    if owner in who and len(who) >= believed.threshold(Role.PUBLISHER):
        return Role.PUBLISHER
    for role in _DEPUTIES:
        some = persons(claim.opened.signer for claim in one.claims if role in claim.roles)
        if some and len(some) >= believed.threshold(role):
            return role
    return ""


def _stolen_since(
    heard: Iterable[_Heard],
    signature: Signature,
    believed: Believed,
    roles: Sequence[Role],
) -> datetime | None:
    """Return since when the release's key is not its owner's, if those who may say so do."""
    times = [
        parse_time(one.status.effective_at, "status")
        for one in heard
        if one.status.reason == "key-compromise"
        and _authority(one, signature, believed, None) in roles
    ]
    return min(times, default=None)


def _before(claim: Claim, since: datetime) -> bool:
    time = claim.opened.time
    return time is not None and time < since


def _decide(
    counted: Sequence[_Heard],
    signature: Signature,
    since: datetime | None,
    believed: Believed,
    now: datetime,
    problems: list[Problem],
) -> Standing:
    rule = believed.status
    if since is not None and not _affirmed(counted):
        if signature.time is None or signature.time >= since:
            problems.append(_stolen(since, signature))
            return _shown(_top(_thefts(counted)), state="compromised")
        problems.append(_kept(since, signature.time))
        counted = [one for one in counted if one.status.reason != "key-compromise"]
    if not counted:
        problems += _missing(rule.on_missing, "no status statement")
        return Standing()
    top = _top(counted)
    rivals = [one for one in counted if one.status.sequence == top.status.sequence]
    if len(rivals) > 1:
        problems.append(
            Problem(
                code="status-fork",
                denies=True,
                message=f"{len(rivals)} statuses of sequence {top.status.sequence} contradict each other",
                expected="one status of each sequence",
                found=", ".join(one.payload for one in rivals),
            )
        )
        return _shown(top, state="forked")
    problems += _history(top, counted)
    if top.status.state == "current":
        stale = _stale(top.status, believed, now)
        problems += _missing(rule.on_missing, stale) if stale else []
        return _shown(top, state="current", fresh=not stale)
    denies = {"withdrawn": rule.on_withdrawn, "superseded": rule.on_superseded}[top.status.state]
    problems.append(
        Problem(
            code=f"release-{top.status.state}",
            denies=denies == "fail",
            message=f"the release is {top.status.state}: {top.status.reason}",
            where=top.payload,
            found=top.status.statement,
        )
    )
    if rule.on_missing == "fail" and denies != "fail":
        problems += _missing("fail", f"the release is {top.status.state}")
    return _shown(top, state=top.status.state)


def _top(heard: Iterable[_Heard]) -> _Heard:
    return max(heard, key=lambda one: (one.status.sequence, one.payload))


def _thefts(heard: Iterable[_Heard]) -> list[_Heard]:
    return [one for one in heard if one.status.reason == "key-compromise"]


def _affirmed(counted: Sequence[_Heard]) -> bool:
    """Say whether the last word is a deputy's, and is of this release and not of the theft."""
    last = _top(counted).status.sequence
    words = [one for one in counted if one.status.sequence == last]
    return not _thefts(words) and all(one.by in _DEPUTIES for one in words)


def _kept(since: datetime, signed: datetime) -> Problem:
    return Problem(
        code="key-compromised",
        denies=False,
        message="the key that signed this release was stolen later; it signed this before",
        expected=f"signed before {since.isoformat()}",
        found=signed.isoformat(),
    )


def _stolen(since: datetime, signature: Signature) -> Problem:
    return Problem(
        code="key-compromised",
        denies=True,
        message="the key that signed this release was stolen, and nobody trusted says that it signed before",
        expected=f"a timestamp before {since.isoformat()}",
        found=signature.time.isoformat() if signature.time else "no trusted time",
    )


def _stale(found: Status, believed: Believed, now: datetime) -> str:
    """Return why a `current` does not hold any more; empty: it does."""
    ends = parse_time(found.valid_until or "", "status")
    if now > ends:
        return f"the newest `current` ended {found.valid_until}"
    most = believed.status.max_age
    if most is not None and now > parse_time(found.effective_at, "status") + length(most):
        return f"the newest `current` is older than {most}: {found.effective_at}"
    return ""


def _missing(rule: OnIt, why: str) -> list[Problem]:
    if rule == "ignore":
        return []
    return [
        Problem(
            code="status-missing",
            denies=rule == "fail",
            message=f"nobody says that the release is current: {why}",
            expected="a `current` that is still valid",
        )
    ]


def _history(top: _Heard, counted: Sequence[_Heard]) -> list[Problem]:
    """Look at what a status says came before it: what is missing or forked is told, not judged."""
    before = [one for one in counted if one.status.sequence == top.status.sequence - 1]
    said = top.status.previous.sha256 if top.status.previous else ""
    if {one.payload for one in before} == ({said} if said else set()):
        return []
    found = ", ".join(sorted(one.payload for one in before))
    return [
        Problem(
            code="status-history",
            denies=False,
            message="the status before the one that holds is not the one that it names",
            expected=said or "none",
            found=found or "none here",
        )
    ]


def _shown(one: _Heard, *, state: State, fresh: bool = False) -> Standing:
    found = one.status
    return Standing(
        state=state,
        fresh=fresh,
        sequence=found.sequence,
        payload=one.payload,
        by=one.by,
        reason=found.reason or "",
        statement=found.statement,
        effective_at=found.effective_at,
        valid_until=found.valid_until or "",
        superseded_by=found.superseded_by,
    )


def _disputes(claims: Iterable[Claim], release: About) -> list[Dispute]:
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


def _as_dispute(one: _Heard) -> Dispute:
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


def _listened_to(claims: Sequence[Claim], release: About, believed: Believed) -> list[Problem]:
    """Return the disputes of verifiers and witnesses, in the number that their role demands."""
    found = []
    for one in _disputes(claims, release):
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
