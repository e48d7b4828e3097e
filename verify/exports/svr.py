"""A simple verification result v0.2 (in-toto): what holds, of whom, when; nothing else."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from parentage.attest.clock import to_text
from parentage.attest.statement import TYPE
from parentage.manifest.errors import UsageError
from parentage.verify.exports.record import Record, to_bytes
from parentage.verify.levels import DECLARED, SIGNED, recipe_level
from parentage.verify.report import Report

RESULT: Final = "https://in-toto.io/attestation/svr/v0.2"
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")


def checked_verifier(uri: str) -> str:
    """Return who verified.

    Raises:
        UsageError: it is no URI.
    """
    if not _URI.fullmatch(uri):
        raise UsageError("a verifier is named by a URI", found=uri, hint="--verifier-id URI")
    return uri


def svr(record: Record, report: Report, verifier: str, now: datetime) -> bytes:
    """Return an unsigned in-toto statement about a release that was verified.

    Args:
        record: of the release.
        report: its verification.
        verifier: URI of who verified.
        now: when.

    Raises:
        UsageError: the release was not verified.
    """
    if not report.verified:
        raise UsageError("a result of what was not verified", found=report.verdict.value)
    policies = [{"digest": {"sha256": report.policy_sha256}}] if report.policy_sha256 else []
    predicate: dict[str, Any] = {
        "verifier": {"id": verifier, "policies": policies},
        "timeCreated": to_text(now),
        "properties": [*SIGNED, DECLARED, *filter(None, [recipe_level(report)])],
        "parentage_derivedFrom": record.derived_from(),
    }
    # The lineage's own subjects: a result is about the release, not about any file with these bytes.
    subjects = [{"name": s.name, "digest": {"sha256": s.sha256}} for s in record.subjects]
    return to_bytes(
        {"_type": TYPE, "subject": subjects, "predicateType": RESULT, "predicate": predicate}
    )
