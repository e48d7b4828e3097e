"""What the trust policy says of a release whose signature and lineage verified."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from parentage.attest.claims import Claim, Claims, Found
from parentage.attest.opening import Opened
from parentage.attest.policy import Role
from parentage.attest.roles import Believed, persons
from parentage.verify.verdict import Finding, denial


class Judged(msgspec.Struct):
    """What the policy has to say.

    Attributes:
        findings: denials and notes.
        not_checked: sentences for the report.
    """

    findings: list[Finding] = msgspec.field(default_factory=list)
    not_checked: list[str] = msgspec.field(default_factory=list)


def judge(believed: Believed, signature: Opened, found: Found, claims: Claims) -> Judged:
    """Ask the policy.

    Args:
        believed: whom, and for what.
        signature: `model.sig`.
        found: the lineage.
        claims: all lines.
    """
    judged = Judged()
    judged.findings += _publishers(believed, signature, found, claims.opened)
    for demand in believed.demands:
        judged.findings.append(
            denial("requirement-not-met", "the policy demands what is not here", found=str(demand))
        )
    others = [c for c in claims.opened if c.opened.payload != found.opened.payload]
    passed_over = len(others) + len(claims.unopened)
    if passed_over:
        judged.not_checked.append(
            f"{passed_over} lines of claims.jsonl by other keys, or of other kinds"
        )
    return judged


def _publishers(
    believed: Believed, signature: Opened, found: Found, opened: Iterable[Claim]
) -> list[Finding]:
    """Count publishers over the payloads of signature and lineage."""
    wanted = believed.threshold(Role.PUBLISHER)
    denials = []
    for name, statement in (("model.sig", signature), ("lineage", found.opened)):
        signers = [statement.signer] + [
            claim.opened.signer
            for claim in opened
            if claim.opened.payload == statement.payload and Role.PUBLISHER in claim.roles
        ]
        who = persons(signers)
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
