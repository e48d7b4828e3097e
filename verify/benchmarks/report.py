"""What a gate, or a replay, found out about benchmark scores: one structure, which is its JSON."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.attest.statements.benchmark import Replayed, Score
from parentage.manifest.errors import printable
from parentage.verify.benchmarks.replaying import Difference
from parentage.verify.report import Signer, who
from parentage.verify.showing import Shown, shown_of
from parentage.verify.verdict import EXIT_CODES, Finding, Verdict

SCHEMA: Final = "https://parentage.dev/bench/v0.1"
_SCORES: Final = 20


class Heard(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A benchmark statement that was looked at.

    Attributes:
        payload: SHA-256 of its payload.
        signer: who signed it.
        roles: that the policy gives them.
        binding: as it says.
        created: when, as it says.
        why_not: what keeps it from being counted; empty: it is.
    """

    payload: str
    signer: Signer
    roles: list[str]
    binding: str
    created: str
    why_not: list[str] = []


class BenchReport(msgspec.Struct, kw_only=True, rename="camel"):
    """Everything that was found about the scores of a results file.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: the decision.
        results: the file, as it was named.
        results_sha256: of its bytes.
        policy_sha256, gate_sha256: of the trust policy and of the gate's rules, where a gate was asked.
        release: that the scores are said to be of.
        root: weights root by digest profile, where the release verified.
        binding: the strongest that counts; empty: none does.
        lineage: how the release's lineage is known, in words; empty: it is not.
        scores: that the file has.
        statements: that were looked at.
        replay, worst: of a replay: the outcome, and the largest differences.
        findings: contradictions, then denials, then notes.
        not_checked: what this says nothing about, in sentences.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.UNPROVEN
    exit_code: int = 4
    results: str = ""
    results_sha256: str = ""
    policy_sha256: str = ""
    gate_sha256: str = ""
    release: str = ""
    root: dict[str, str] = {}
    binding: str = ""
    lineage: str = ""
    scores: list[Score] = []
    statements: list[Heard] = []
    replay: Replayed | None = None
    worst: list[Difference] = []
    findings: list[Finding] = []
    not_checked: list[str] = []

    @property
    def verified(self) -> bool:
        """Whether the verdict is `verified`."""
        return self.verdict == Verdict.VERIFIED

    def decide(self, verdict: Verdict) -> None:
        """Set verdict and exit code together, and bring the findings into their order."""
        self.findings = sorted(
            self.findings, key=lambda found: (not found.refutes, not found.denies)
        )
        self.verdict, self.exit_code = verdict, EXIT_CODES[verdict]

    def close(self) -> None:
        """Decide from what was found: a contradiction refutes, then the policy denies."""
        if any(found.refutes for found in self.findings):
            self.decide(Verdict.REFUTED)
        elif any(found.denies for found in self.findings):
            self.decide(Verdict.DENIED)
        else:
            self.decide(Verdict.VERIFIED)

    def shown(self, command: str = "gate benchmark") -> Shown:
        """Return the report as any format shows it."""
        return shown_of(self, command, self.results or self.release, _facts(self))


def _facts(report: BenchReport) -> list[tuple[str, str]]:
    facts = [("release", printable(report.release))] if report.release else []
    facts += [("weights", f"{profile} {root}") for profile, root in report.root.items()]
    if report.lineage:
        facts.append(("lineage", printable(report.lineage)))
    if report.binding:
        facts.append(("binding", report.binding))
    for heard in report.statements:
        counted = "not counted" if heard.why_not else heard.binding
        roles = ", ".join(heard.roles) or "no role"
        facts.append(("said by", f"{who(heard.signer)} ({roles}): {counted}, {heard.created}"))
    for score in report.scores[:_SCORES]:
        names = " ".join(filter(None, (score.task, score.metric, score.filter)))
        error = f" ± {score.stderr}" if score.stderr else ""
        facts.append(("score", f"{printable(names)} = {score.value}{error}"))
    if len(report.scores) > _SCORES:
        facts.append(("score", f"and {len(report.scores) - _SCORES} more"))
    return facts + _replay_facts(report)


def _replay_facts(report: BenchReport) -> list[tuple[str, str]]:
    said = report.replay
    if said is None:
        return []
    same = said.same_weights
    return [
        ("replayed", f"{said.requests} of {said.of_requests} log-likelihoods, {said.dtype} on {said.device}"),
        ("from log", f"median {said.median}, most {said.most} nats"),
        ("same", f"median {same.median}, most {same.most} nats in {same.reruns} reruns of these weights"),
        ("tolerance", f"median {said.median_tolerance}, most {said.tolerance} nats"),
        ("nonce", said.nonce),
    ]  # fmt: skip
