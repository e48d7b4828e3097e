"""The result of a verification: one structure, shown as JSON or as text."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from parentage.attest.identity import ChainIdentity, Identity, KeyIdentity, KeylessIdentity
from parentage.attest.lock import Entry
from parentage.attest.required import Met
from parentage.attest.standing import Standing
from parentage.manifest.errors import printable
from parentage.verify.integrity import Coverage
from parentage.verify.showing import Shown, shown_of
from parentage.verify.verdict import EXIT_CODES, ORDER, Finding, Rung, TensorResult, Verdict

SCHEMA: Final = "https://parentage.dev/report/v0.1"
_WORDS: Final = {Rung.UNPROVEN: "undecided", Rung.REFUTED: "refuted"}


class StepReport(msgspec.Struct, kw_only=True, rename="camel"):
    """How far one step of the recipe was established.

    Attributes:
        id, op: of the step.
        rung: A, B, C, D, "-" (declared only), "?" (not decided) or refuted.
        engine: that reached it.
        tensors: how many were recomputed.
        summary: one line for people.
    """

    id: str
    op: str
    rung: Rung
    engine: str = ""
    tensors: int = 0
    summary: str = ""


class Signer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who signed.

    Attributes:
        method: "key", "certificate" or "keyless".
        key_sha256: of a key: SHA-256 of its PEM form.
        subject: of a certificate.
        certificate_sha256: of a certificate: SHA-256 of its DER form.
        root_sha256: of the trusted certificate that it leads to, likewise.
        identity, issuer: of a keyless signature.
    """

    method: str = "key"
    key_sha256: str = ""
    subject: str = ""
    certificate_sha256: str = ""
    root_sha256: str = ""
    identity: str = ""
    issuer: str = ""


def signed_by(who: Identity) -> Signer:
    """Return an identity as reports show it."""
    match who:
        case KeyIdentity():
            return Signer(key_sha256=who.fingerprint)
        case ChainIdentity():
            return Signer(
                method="certificate",
                subject=who.subject,
                certificate_sha256=who.fingerprint,
                root_sha256=who.root,
            )
        case KeylessIdentity():
            return Signer(method="keyless", identity=who.identity, issuer=who.issuer)


class Sample(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a sample covered.

    Attributes:
        seed: hex; the same seed samples the same chunks.
        chunks, of_chunks: compared, and in the release.
        elements, of_elements: likewise.
        differing: elements that differ.
        engine: that they were compared with.
    """

    seed: str
    chunks: int
    of_chunks: int
    elements: int
    of_elements: int
    differing: int
    engine: str

    def describe(self) -> str:
        """Return the coverage and what was seen in it, in one line."""
        share = self.elements / max(self.of_elements, 1)
        seen = f"{self.differing:,} differ" if self.differing else "all equal"
        return (
            f"a sample of {self.chunks:,} of {self.of_chunks:,} chunks, {self.elements:,} of "
            f"{self.of_elements:,} elements ({share:.2%}): {seen} under {self.engine}; "
            f"--sample-seed {self.seed} repeats it"
        )


class Remote(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a check of a repository cost that was not downloaded, and what it rests on.

    Attributes:
        requests: sent.
        bytes: of bodies that came.
        files_read: files that were read whole and hashed.
        files_declared: files compared by the SHA-256 that the Hub declares.
        bytes_declared: their sizes.
        slices, of_slices: chunks of 1 MiB that were read and compared with their signed leaves, and all.
        seed: hex; the same seed draws the same chunks. Empty: none was drawn.
    """

    requests: int = 0
    bytes: int = 0
    files_read: int = 0
    files_declared: int = 0
    bytes_declared: int = 0
    slices: int = 0
    of_slices: int = 0
    seed: str = ""

    def describe(self) -> str:
        """Return what it rests on, in one line."""
        return (
            f"{self.files_read} files read and hashed; {self.files_declared} files, "
            f"{self.bytes_declared:,} bytes, by the SHA-256 that the Hub declares"
        )

    def cost(self) -> str:
        """Return what it cost, in one line."""
        cost = f"{self.requests} requests, {self.bytes:,} bytes"
        if not self.bytes_declared:
            return cost
        return f"{cost} ({self.bytes / self.bytes_declared:.2%} of what was not downloaded)"

    def drawn(self) -> str:
        """Return which slices were compared, in one line; empty: none."""
        if not self.slices:
            return ""
        return (
            f"{self.slices:,} of {self.of_slices:,} chunks of 1 MiB, drawn at random: "
            f"--slice-seed {self.seed} repeats it"
        )


class Ancestor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A release further up whose claims verified.

    Attributes:
        id: that its child calls it by.
        path: of ids, from it down to the release.
        signer: who signed it.
        payload: SHA-256 of its lineage's payload, or of its model signature's.
        has_lineage: whether it says where it comes from itself.
        state: where it stands.
    """

    id: str
    path: str
    signer: Signer | None = None
    payload: str = ""
    has_lineage: bool = True
    state: str = "unknown"


class Locked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a lock file had to say.

    Attributes:
        name: of the release in the file.
        state: how it compares.
        entry: what is to be remembered; none where the release is refused.
    """

    name: str
    state: str
    entry: Entry | None = None


class Report(msgspec.Struct, kw_only=True, rename="camel"):
    """Everything that a verification found; the same bytes for the same inputs.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: the decision.
        release: what was verified, as it was named.
        root: weights root by digest profile.
        model: root of the publisher's signature, over the SHA-256 of every signed file.
        signer: whose signatures verified.
        additional: who else signed exactly what `model.sig` signs.
        policy_sha256: of the trust policy's file; empty where keys were given by themselves.
        standing: what was said of the release since it was signed.
        required: how far each demand of the policy is met.
        lock: what was remembered of the release, where a lock file was asked.
        demanded, reached: rungs.
        coverage: files, bytes and tensors looked at.
        parents: declared parent ids that were found, and those that were not.
        ancestors: releases further up whose own claims were followed.
        steps: of the recipe.
        tensors: rung of each tensor of the last step.
        findings: contradictions, then notes.
        not_checked: what this run says nothing about, in sentences.
        device: kind of device that the recompute ran on.
        sample: its coverage, where only a sample was asked for.
        remote: what a check without a download rests on.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.UNPROVEN
    exit_code: int = 4
    release: str = ""
    root: dict[str, str] = {}
    model: str = ""
    signer: Signer | None = None
    additional: list[Signer] = []
    policy_sha256: str = ""
    standing: Standing | None = None
    required: list[Met] = []
    lock: Locked | None = None
    demanded: str = "A"
    reached: str = ""
    coverage: Coverage = msgspec.field(default_factory=Coverage)
    parents_found: list[str] = []
    parents_missing: list[str] = []
    ancestors: list[Ancestor] = []
    steps: list[StepReport] = []
    tensors: list[TensorResult] = []
    findings: list[Finding] = []
    not_checked: list[str] = []
    device: str = ""
    sample: Sample | None = None
    remote: Remote | None = None

    @property
    def verified(self) -> bool:
        """Whether the verdict is `verified`."""
        return self.verdict == Verdict.VERIFIED

    def to_json(self) -> bytes:
        """Return the report as one JSON document."""
        return msgspec.json.encode(self)

    def shown(self, command: str = "verify") -> Shown:
        """Return the report as any format shows it."""
        return shown_of(self, command, self.release, _facts(self))

    def decide(self, verdict: Verdict) -> None:
        """Set verdict and exit code together."""
        self.verdict = verdict
        self.exit_code = EXIT_CODES[verdict]


def who(signer: Signer) -> str:
    """Return a signer for people."""
    if signer.method == "key":
        return f"key {signer.key_sha256[:16]}…"
    if signer.method == "certificate":
        return f"certificate {printable(signer.subject)} ({signer.certificate_sha256[:16]}…)"
    return f"{printable(signer.identity)} by {printable(signer.issuer)}"


def _facts(report: Report) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if report.signer is not None:
        facts.append(("signed by", who(report.signer)))
    facts += [("also by", who(signer)) for signer in report.additional]
    if report.policy_sha256:
        facts.append(("policy", f"sha256 {report.policy_sha256}"))
    facts += _stands(report)
    facts += [("weights", f"{profile} {root}") for profile, root in report.root.items()]
    facts.append(("covered", report.coverage.describe()))
    if report.remote is not None:
        facts.append(("remote", report.remote.describe()))
        facts += [("slices", drawn)] if (drawn := report.remote.drawn()) else []
        facts.append(("cost", report.remote.cost()))
    for one in report.ancestors:
        by = who(one.signer) if one.signer is not None else "nobody"
        state = "" if one.state == "unknown" else f", {one.state}"
        facts.append(("parent", f"{printable(one.path)}: signed by {by}{state}"))
    for step in report.steps:
        facts.append(("step", f"{step.id} ({step.op}): {step.summary}"))
    if report.reached:
        where = f" on {report.device}" if report.device else ""
        facts.append(("rung", f"{report.reached} (demanded: {report.demanded}){where}"))
    return facts


def _stands(report: Report) -> list[tuple[str, str]]:
    stands = report.standing
    facts = []
    if stands is not None and stands.state != "unknown":
        since = f" since {stands.effective_at}"
        until = f" until {stands.valid_until}" if stands.valid_until else ""
        by = f" ({stands.by}, sequence {stands.sequence})"
        facts.append(("status", f"{stands.state}{since}{until}{by}"))
        facts += [
            ("replaced", f"{printable(new.uri)} model {new.model}") for new in stands.superseded_by
        ]
    if report.lock is not None:
        facts.append(("lock", f"{printable(report.lock.name)}: {report.lock.state}"))
    facts += [("demand", f"met by {len(m.by)}: {m.demand}") for m in report.required if m.met]
    return facts


def summarise(results: list[TensorResult]) -> tuple[Rung, str]:
    """Return the weakest rung of some tensors, and a line that says how many reached which."""
    counts = Counter(result.rung for result in results)
    worst = max((result.rung for result in results), key=ORDER.index, default=Rung.UNPROVEN)
    parts = [
        f"{_WORDS.get(rung, f'rung {rung}')} on {counts[rung]}" for rung in ORDER if counts[rung]
    ]
    return worst, f"{', '.join(parts)} of {len(results)} tensors"
