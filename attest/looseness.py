"""What a policy leaves open: not errors, but doors that its author should know of."""

from __future__ import annotations

import re
from typing import Final

from parentage.attest.policy import Member, RecomputeRule, Role
from parentage.attest.roles import Believed, Seat

_HOSTED: Final = re.compile(r"https://(github|gitlab)\.com/")


def loose(believed: Believed) -> list[str]:
    """Return sentences, each about one thing that a policy leaves open."""
    policy = believed.policy
    if policy is None:
        return []
    found = [f"{seat.role}: {text}" for seat in _named(believed) for text in _of_seat(seat)]
    found += _of_roles(believed)
    found += [
        f"timestamps: {one.root}: add rootSha256, so that the policy's digest says who is meant"
        for one in policy.timestamps
        if one.root_sha256 is None
    ]
    if policy.roles.recovery is None:
        found.append(
            "recovery: nobody; if the publisher's key is stolen, only its thief can say so"
        )
    if policy.status.on_missing != "fail":
        found.append(
            "status: onMissing is not fail, so leaving out a withdrawal goes unnoticed where there is no lock"
        )
    if policy.status.max_age is None:
        found.append("status: no maxAge, so a `current` holds for as long as its publisher says")
    keyless = any(seat.member.kind == "keyless" for seat in believed.seats)
    if keyless and policy.trust_root is None:
        found.append("trustRoot: no maxAge, so a keyless signature is believed by roots of any age")
    weak = [d for d in believed.demands if isinstance(d, RecomputeRule) and d.min != "exact"]
    found += [f"require: a recompute at rung {d.min} is enough" for d in weak]
    if not believed.demands:
        found.append("require: nothing beside signature and lineage; this run alone decides")
    if policy.parents.depth and policy.parents.unsigned != "fail":
        found.append(
            "parents: unsigned is not fail, so a parent's identity rests on the child's word"
        )
    return found


def _named(believed: Believed) -> list[Seat]:
    """Leave out publishers where they appear again as signers of parents."""
    own = {seat.member for seat in believed.seats if seat.role is Role.PUBLISHER}
    return [s for s in believed.seats if s.role is not Role.PARENT or s.member not in own]


def _of_seat(seat: Seat) -> list[str]:
    member = seat.member
    match member.kind:
        case "key" if member.key_sha256 is None:
            why = "so that the policy's digest says who is meant"
            return [f"key file {member.key}: add keySha256: {seat.fingerprint}, {why}"]
        case "key" if seat.key is None:
            return [f"key {seat.fingerprint[:16]}… is not at hand: give it with --key"]
        case "certificate" if member.root_sha256 is None:
            return [f"root file {member.root}: add rootSha256: {seat.fingerprint}"]
        case "keyless":
            return _of_identity(member)
        case _:
            return []


def _of_identity(member: Member) -> list[str]:
    identity, found = member.identity or "", []
    before, at, after = identity.partition("@")
    if "://" in identity and at and after == "*":
        found.append(f"{identity}: any branch or tag, pull requests included")
    if "://" in identity and not at and _HOSTED.match(identity):
        found.append(f"{identity}: no @ref, which hosted workflows always have")
    if "*" in before and "://" in identity:
        found.append(f"{identity}: whoever can make a name in that place")
    if "*" in before and "://" not in identity:
        found.append(f"{identity}: everyone of that domain")
    if _HOSTED.match(identity) and member.repo_id is None and member.owner_id is None:
        found.append(f"{identity}: no repoId or ownerId, so a name that is given up can be taken")
    return found


def _of_roles(believed: Believed) -> list[str]:
    found = []
    by_member: dict[Member, set[Role]] = {}
    for seat in believed.seats:
        by_member.setdefault(seat.member, set()).add(seat.role)
    for member, roles in by_member.items():
        held = roles & {Role.VERIFIER, Role.WITNESS}
        if held and roles & {Role.PUBLISHER, Role.SUCCESSOR}:
            found.append(
                f"{', '.join(sorted(held))}: {member} publishes, so it never counts as one"
            )
    for role in (Role.VERIFIER, Role.RECOVERY):
        rule = believed.policy.rule(role) if believed.policy else None
        if rule is not None and rule.threshold == 1:
            found.append(f"{role}: threshold 1, so one of {len(rule.any)} is enough")
    return found
