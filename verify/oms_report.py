"""The result of verifying a model signature: one structure, shown as JSON or as text."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.verify.integrity import Coverage
from parentage.verify.report import Signer, who
from parentage.verify.showing import Shown, shown_of
from parentage.verify.verdict import EXIT_CODES, Finding, Verdict

SCHEMA: Final = "https://parentage.dev/oms/v0.1"


class Serialization(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How the signer hashed the model, as signed.

    Attributes:
        method: "files" or "shards".
        hash_type: "sha256", "blake2b" or "blake3".
        shard_size: bytes; 0 for files.
        allow_symlinks: whether links stood for what they led to.
        ignore_paths: what the signer left out.
        legacy: whether it is a form before model_signing 1.1.
    """

    method: str = ""
    hash_type: str = ""
    shard_size: int = 0
    allow_symlinks: bool = False
    ignore_paths: list[str] = []
    legacy: bool = False


class OmsReport(msgspec.Struct, kw_only=True, rename="camel"):
    """Everything that the check of a model signature found.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: the decision.
        model, signature: what was verified, as it was named.
        root: digest of the signed list.
        signer: whose signature verified.
        serialization: as signed.
        coverage: files and bytes covered, ignored and unsigned.
        findings: contradictions, then notes.
        not_checked: what this run says nothing about, in sentences.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.REFUTED
    exit_code: int = EXIT_CODES[Verdict.REFUTED]
    model: str = ""
    signature: str = ""
    root: str = ""
    signer: Signer | None = None
    serialization: Serialization = Serialization()
    coverage: Coverage = msgspec.field(default_factory=Coverage)
    findings: list[Finding] = []
    not_checked: list[str] = []

    @property
    def verified(self) -> bool:
        """Whether the verdict is `verified`."""
        return self.verdict == Verdict.VERIFIED

    def shown(self, command: str = "oms verify") -> Shown:
        """Return the report as any format shows it."""
        return shown_of(self, command, self.model, _facts(self))

    def decide(self, verdict: Verdict) -> None:
        """Set verdict and exit code together."""
        self.verdict = verdict
        self.exit_code = EXIT_CODES[verdict]


def _facts(report: OmsReport) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if report.signer is not None:
        facts.append(("signed by", who(report.signer)))
    if report.root:
        said = report.serialization
        shards = f" of {said.shard_size:,} bytes" if said.shard_size else ""
        facts.append(
            ("root", f"sha256 {report.root}, over {said.method}{shards} by {said.hash_type}")
        )
    facts.append(("covered", report.coverage.describe()))
    return facts
