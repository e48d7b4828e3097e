"""Statements as if they had been opened: people by name, times by day, no signatures to make."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from parentage.attest import clock
from parentage.attest.claims import Claim
from parentage.attest.heard import Signature
from parentage.attest.identity import Identity, KeyIdentity
from parentage.attest.opening import Opened
from parentage.attest.policy import Member, Policy, Role, RoleRule, RoleRules, StatusRule
from parentage.attest.roles import Believed, Seat, persons
from parentage.attest.standing import Standing, standing
from parentage.attest.statement import Subject, parse_statement
from parentage.attest.statements import dispute, recompute, status
from parentage.attest.statements.dispute import Dispute
from parentage.attest.statements.shared import About, Digest, Evidence, Release, sha256
from parentage.attest.statements.status import Status

ABOUT = About("a" * 64, "b" * 64)
NEW = Release(lineage="c" * 64, model="d" * 64, weights={"ptd1-b3": "e" * 64})
ROOT = {"ptd1-b3": "9" * 64}
SUBJECTS = (
    Subject("model", "b" * 64),
    Subject(".parentage/tensors.jsonl", "1" * 64),
    Subject("oms-statement", "2" * 64),
)
START = datetime(2026, 6, 1, tzinfo=UTC)
PEOPLE = {
    "owner": Role.PUBLISHER,
    "colleague": Role.PUBLISHER,
    "heir": Role.SUCCESSOR,
    "safe1": Role.RECOVERY,
    "safe2": Role.RECOVERY,
    "safe3": Role.RECOVERY,
    "lab1": Role.VERIFIER,
    "lab2": Role.VERIFIER,
    "hub": Role.WITNESS,
}


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def who(name: str) -> Identity:
    return KeyIdentity(sha256(name.encode()))


def believed(thresholds: dict[Role, int] | None = None, **status_rules: Any) -> Believed:
    """Whom these tests believe; recovery is two of three."""
    counts = {Role.RECOVERY: 2, **(thresholds or {})}
    members = {name: Member(key_sha256=sha256(name.encode())) for name in PEOPLE}
    rules = {
        role.value: RoleRule(
            any=tuple(members[n] for n, r in PEOPLE.items() if r is role),
            threshold=counts.get(role, 1),
        )
        for role in Role
        if role is not Role.PARENT
    }
    policy = Policy(version="0.1", roles=RoleRules(**rules), status=StatusRule(**status_rules))
    seats = tuple(Seat(role, members[n], sha256(n.encode())) for n, role in PEOPLE.items())
    return Believed(everyone=None, seats=seats, policy=policy)  # type: ignore[arg-type]


def claim(payload: bytes, by: str, rules: Believed, time: datetime | None = None) -> Claim:
    """Return a line as if `by` had signed it."""
    opened = Opened(payload, parse_statement(payload, "t"), who(by), time)
    return Claim("t", opened, rules.roles_of(who(by)))


def said(state: str, sequence: int, on: int = 0, about: About = ABOUT, **fields: Any) -> bytes:
    """Return the payload of a status of day `on`; what its state needs is filled in."""
    if state == "current":
        fields.setdefault("valid_until", clock.to_text(day(fields.pop("until", on + 30))))
    else:
        fields.setdefault("reason", "security")
    if state == "superseded":
        fields.setdefault("superseded_by", (NEW,))
    if sequence > 1:
        fields.setdefault("previous", Digest(sha256="f" * 64))
    found = Status(state=state, sequence=sequence, effective_at=clock.to_text(day(on)), **fields)  # type: ignore[arg-type]
    return status.build(about, found)


def disputed(about: About = ABOUT, words: str = "no") -> bytes:
    found = Dispute(
        claim=Digest(sha256=about.lineage), reason="undisclosed-parent", statement=words
    )
    return dispute.build(about, found)


def stand(
    claims: list[Claim], rules: Believed, on: int = 5, signed: datetime | None = None, **more: Any
) -> Standing:
    return standing(
        ABOUT, Signature(persons([who("owner")]), signed), claims, rules, day(on), **more
    )


def denied(found: Standing) -> list[str]:
    return [problem.code for problem in found.problems if problem.denies]


def reached(rung: str, elements: int, root: str = "9") -> Any:
    return recompute.Reached(
        rung=rung, tensors=2, elements=str(elements), root={"ptd1-b3": root * 64}
    )  # type: ignore[arg-type]


def recomputed(**changes: Any) -> recompute.Recompute:
    step = recompute.StepDone(id="merge", op="weighted_sum/v1", rung="A", engine="parentage-1")
    found = recompute.Recompute(
        weights=ROOT,  # type: ignore[arg-type]
        parents=(recompute.Used(id="a", weights=ROOT),),  # type: ignore[arg-type]
        verdict="verified",
        demanded="A",
        device="cpu",
        steps=(step,),
        rungs=(reached("A", 100),),
        evidence=Evidence(sha256="7" * 64, media_type=recompute.EVIDENCE),
    )
    return msgspec.structs.replace(found, **changes)
