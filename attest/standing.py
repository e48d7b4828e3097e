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
from typing import Literal

import msgspec

from parentage.attest.claims import Claim
from parentage.attest.clock import length, parse_time, to_text
from parentage.attest.disputes import Dispute, Problem, as_dispute, disputes, listened_to
from parentage.attest.heard import (
    DEPUTIES,
    Heard,
    Signature,
    Word,
    authority,
    heard,
    stolen_since,
    words,
)
from parentage.attest.policy import OnIt, Role
from parentage.attest.roles import Believed
from parentage.attest.statements.shared import About, Release
from parentage.attest.statements.status import Status

State = Literal["unknown", "current", "superseded", "withdrawn", "forked", "compromised"]


class Standing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where a release stands.

    Attributes:
        state: what the status that holds says; "unknown" without one.
        fresh: whether a `current` holds now.
        sequence: of the status that holds; 0 without one.
        payload: SHA-256 of its payload.
        by: role that it counts for.
        reason, statement, effective_at, valid_until, superseded_by: what it says.
        stolen_since: of the key that signed the release; empty: nobody says so.
        words: all that was said by those who may lower a verdict: what a lock file remembers.
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
    stolen_since: str = ""
    superseded_by: tuple[Release, ...] = ()
    words: tuple[Word, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    problems: tuple[Problem, ...] = ()


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
    said, unread = heard(claims, about)
    problems = [_unreadable(payload, why) for payload, why in unread]
    now_said = [one for one in said if parse_time(one.status.effective_at, "status") <= now]
    by_deputies = stolen_since(now_said, signature, believed, DEPUTIES)
    since = by_deputies or stolen_since(now_said, signature, believed, (Role.PUBLISHER,))
    counted, others = [], []
    for one in now_said:
        admits = one.status.reason == "key-compromise" and by_deputies is None
        by = authority(one, signature, believed, None if admits else since)
        if by:
            counted.append(msgspec.structs.replace(one, by=by))
        else:
            others.append(one)
    found = _decide(counted, signature, since, believed, now, problems)
    bad_news = [as_dispute(one) for one in others if one.status.state != "current"]
    against = [*disputes(claims, about), *bad_news, *strangers]
    problems += listened_to(claims, about, believed)
    order = sorted(problems, key=lambda p: (not p.denies, p.code, p.where, p.message))
    return msgspec.structs.replace(
        found,
        stolen_since="" if since is None else to_text(since),
        words=tuple(_words(said, signature, believed, problems)),
        disputes=tuple(sorted(against, key=lambda d: (not d.roles, d.payload, d.by))),
        problems=tuple(dict.fromkeys(order)),
    )


def _words(
    said: Sequence[Heard], signature: Signature, believed: Believed, problems: Sequence[Problem]
) -> list[Word]:
    """Return what was said that may lower a verdict, here or later."""
    other = {"status-unreadable", "disputed"}
    found = {p.where: Word(payload=p.where) for p in problems if p.code in other and p.denies}
    found |= {word.payload: word for word in words(said, signature, believed)}
    return [found[payload] for payload in sorted(found)]


def _unreadable(payload: str, why: str) -> Problem:
    # Whoever may speak said something that can't be read; it may have been a withdrawal.
    return Problem(
        code="status-unreadable",
        denies=True,
        message=f"a status can't be read: {why}",
        where=payload,
    )


def _decide(
    counted: Sequence[Heard],
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


def _top(heard: Iterable[Heard]) -> Heard:
    return max(heard, key=lambda one: (one.status.sequence, one.payload))


def _thefts(heard: Iterable[Heard]) -> list[Heard]:
    return [one for one in heard if one.status.reason == "key-compromise"]


def _affirmed(counted: Sequence[Heard]) -> bool:
    """Say whether the last word is a deputy's, and is of this release and not of the theft."""
    last = _top(counted).status.sequence
    words = [one for one in counted if one.status.sequence == last]
    return not _thefts(words) and all(one.by in DEPUTIES for one in words)


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


def _history(top: Heard, counted: Sequence[Heard]) -> list[Problem]:
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


def _shown(one: Heard, *, state: State, fresh: bool = False) -> Standing:
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
