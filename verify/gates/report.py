"""The result of a gate: one structure, shown in every format."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.manifest.errors import printable
from parentage.verify.cards.report import CardReport
from parentage.verify.cards.rules import RULES
from parentage.verify.gates.checks import CHECKS
from parentage.verify.gates.reasons import Reason, strongest
from parentage.verify.report import Report
from parentage.verify.showing import Arrow, Shown
from parentage.verify.verdict import EXIT_CODES, Verdict

SCHEMA: Final = "https://parentage.dev/gate-report/v0.1"
_CHECKS: Final = {check.code: check.what for check in CHECKS}


class PolicyDigests(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the gate was, exactly: SHA-256 of the gate's file and of the trust policy."""

    gate: str
    trust: str


class GateReport(msgspec.Struct, kw_only=True, rename="camel"):
    """Everything that a gate found.

    Attributes:
        schema: version of this structure.
        gate: "upload" or "download".
        verdict, exit_code: the strongest reason's: refuted, unsigned, denied, unproven, else verified.
        release: what was asked about, as it was named.
        reasons: all of them, the strongest first; those with the verdict `verified` are notes.
        checks: codes of the checks that were made.
        policies: what the gate was.
        report: of the verification.
        card: of the card's check; none where there was no manifest to hold it against.
        arrows: what the release was made from, as signed.
        not_checked: what this says nothing about, in sentences.
    """

    schema: str = SCHEMA
    gate: str
    verdict: Verdict = Verdict.UNPROVEN
    exit_code: int = EXIT_CODES[Verdict.UNPROVEN]
    release: str = ""
    reasons: list[Reason] = []
    checks: list[str] = []
    policies: PolicyDigests
    report: Report
    card: CardReport | None = None
    arrows: list[Arrow] = []
    not_checked: list[str] = []

    @property
    def passed(self) -> bool:
        """Whether the gate lets it through."""
        return self.verdict is Verdict.VERIFIED

    def to_json(self) -> bytes:
        """Return the report as one JSON document."""
        return msgspec.json.encode(self)

    def decide(self, verdicts: list[Verdict]) -> None:
        """Set verdict and exit code together."""
        self.verdict = strongest(verdicts)
        self.exit_code = EXIT_CODES[self.verdict]

    def shown(self, command: str = "") -> Shown:
        """Return the report as any format shows it."""
        facts = [("gate", f"{self.gate}, sha256 {self.policies.gate}")]
        facts += [("trust", f"sha256 {self.policies.trust}")]
        facts += [fact for fact in self.report.shown().facts if fact[0] != "policy"]
        facts.append(("checks", f"{len(self.checks)}: {', '.join(self.checks)}"))
        if self.card is not None:
            facts.append(("card", f"{len(self.card.rules)} rules: {', '.join(self.card.rules)}"))
        return Shown(
            command=command or f"gate {self.gate}",
            subject=printable(self.release),
            verdict=self.verdict,
            exit_code=self.exit_code,
            problems=tuple(one.problem() for one in self.reasons),
            facts=tuple(facts),
            not_checked=tuple(printable(text, 400) for text in self.not_checked),
            document=self,
            arrows=tuple(self.arrows),
            meanings={**_CHECKS, **{rule.id: rule.help for rule in RULES.values()}},
        )
