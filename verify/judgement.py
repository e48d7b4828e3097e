"""What the trust policy says of a release whose signature and lineage verified."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from parentage.attest import oms
from parentage.attest.claims import Claim, Claims, Found
from parentage.attest.disputes import Problem
from parentage.attest.heard import Signature
from parentage.attest.identity import Identity
from parentage.attest.lock import Compared, Entry, compare
from parentage.attest.opening import Opened
from parentage.attest.policy import Role
from parentage.attest.required import Met, Wanted, required
from parentage.attest.roles import Believed, persons
from parentage.attest.standing import Standing, standing
from parentage.attest.statements import STATEMENTS
from parentage.attest.statements.shared import About, sha256
from parentage.attest.strangers import disputes
from parentage.verify.demands import Remembered
from parentage.verify.verdict import Finding, denial


class Judged(msgspec.Struct):
    """What the policy has to say.

    Attributes:
        standing: where the release stands.
        required: how far each demand is met.
        findings: denials and notes.
        not_checked: sentences for the report.
        lock: what came of a comparison with what is remembered.
    """

    standing: Standing
    required: list[Met]
    lock: Compared | None = None
    findings: list[Finding] = msgspec.field(default_factory=list)
    not_checked: list[str] = msgspec.field(default_factory=list)


def about_of(signature: Opened, found: Found) -> About:
    """Return how a status or a dispute names a release."""
    return About(sha256(found.opened.payload), signature.statement.subjects[0].sha256)


def judge(
    believed: Believed,
    signature: Opened,
    found: Found,
    claims: Claims,
    now: datetime,
    remembered: Remembered | None = None,
) -> Judged:
    """Ask the policy.

    Args:
        believed: whom, and for what.
        signature: `model.sig`.
        found: the lineage.
        claims: all lines.
        now: the time.
        remembered: what a lock file has of the release.
    """
    about = about_of(signature, found)
    strangers = disputes(claims.unopened, about)
    stands = standing(
        about,
        Signature(persons([signature.signer]), _signed_at(signature, found.opened)),
        claims.opened,
        believed,
        now,
        strangers=strangers,
    )
    judged = Judged(stands, required(believed, wanted_of(signature, found), claims.opened))
    judged.findings += _publishers(believed, signature, found, claims.opened)
    judged.findings += [of_problem(problem) for problem in stands.problems]
    judged.findings += [_of_demand(met) for met in judged.required if not met.met]
    judged.findings += [
        denial(
            "dispute",
            f"disputed by {said.by}: {said.reason}",
            denies=False,
            where=said.payload,
            found=said.statement,
        )
        for said in stands.disputes
    ]
    if remembered is not None:
        seen = _entry(about, signature, found, claims.opened)
        judged.lock = compare(remembered.entry, seen, stands, claims.opened, believed, now)
        judged.findings += [of_problem(problem) for problem in judged.lock.problems]
    passed_over = len(claims.unopened) - len(strangers)
    passed_over += len(claims.opened) - len(known(claims, signature, found.opened))
    if passed_over:
        judged.not_checked.append(
            f"{passed_over} lines of claims.jsonl by other keys, or of other kinds"
        )
    return judged


def known(claims: Claims, signature: Opened, lineage: Opened) -> list[Claim]:
    """Return the lines that this was decided from: signature, lineage, and what was said since."""
    same = {lineage.payload, signature.payload}
    return [
        claim
        for claim in claims.opened
        if claim.opened.payload in same or claim.opened.statement.predicate_type in STATEMENTS
    ]


def _signed_at(signature: Opened, lineage: Opened) -> datetime | None:
    """Return a time at which both were signed, if both are proven."""
    times = [opened.time for opened in (signature, lineage) if opened.time is not None]
    return max(times) if len(times) == 2 else None


def wanted_of(signature: Opened, found: Found) -> Wanted:
    """Return the release that statements must be about."""
    return Wanted(
        lineage=sha256(found.opened.payload),
        subjects=found.opened.statement.subjects,
        weights=found.lineage.weights.root,
        tensors=found.lineage.weights.tensors,
        files=oms.parse(signature.statement).resources,
        signers=persons([signature.signer, found.opened.signer]),
    )


def _entry(about: About, signature: Opened, found: Found, opened: Iterable[Claim]) -> Entry:
    return Entry(
        signers=tuple(sorted(persons(_signers(signature, opened)))),
        model=about.model,
        lineage=about.lineage,
        weights=found.lineage.weights.root,
    )


def of_problem(problem: Problem) -> Finding:
    """Return a problem of a release's standing as a finding."""
    return denial(
        problem.code,
        problem.message,
        denies=problem.denies,
        where=problem.where,
        expected=problem.expected,
        found=problem.found,
    )


def _of_demand(met: Met) -> Finding:
    by = ", ".join(met.by)
    return denial(
        "requirement-not-met",
        f"the policy demands what is not here: {met.demand}",
        where=met.payload,
        expected=f"{met.needed} distinct, over the same bytes",
        found="; ".join([by or "nobody", *met.why_not]),
        hint="a verifier makes one with: parentage attest",
    )


def _signers(statement: Opened, opened: Iterable[Claim]) -> list[Identity]:
    """Return the publishers who signed a payload."""
    return [statement.signer] + [
        claim.opened.signer
        for claim in opened
        if claim.opened.payload == statement.payload and Role.PUBLISHER in claim.roles
    ]


def _publishers(
    believed: Believed, signature: Opened, found: Found, opened: Iterable[Claim]
) -> list[Finding]:
    """Count publishers over the payloads of signature and lineage."""
    wanted = believed.threshold(Role.PUBLISHER)
    lines = list(opened)
    denials = []
    for name, statement in (("model.sig", signature), ("lineage", found.opened)):
        who = persons(_signers(statement, lines))
        if len(who) < wanted:
            denials.append(
                denial(
                    "too-few-signers",
                    f"{name} is signed by fewer publishers than the policy demands",
                    where=name,
                    expected=f"{wanted} distinct publishers over the same bytes",
                    found=", ".join(sorted(who)),
                    hint="another publisher can sign the same bytes: parentage countersign",
                )
            )
    return denials
