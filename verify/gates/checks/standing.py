"""Checks of what was said of a release since it was signed."""

from __future__ import annotations

from collections.abc import Iterator

from parentage.verify.gates.facts import Facts
from parentage.verify.gates.reasons import Reason, reason
from parentage.verify.verdict import Verdict


def current(facts: Facts) -> Iterator[Reason]:
    """Demand a status that says `current` and is valid now."""
    stands = facts.report.standing
    if facts.rules.status == "any" or (stands is not None and stands.state == "current"):
        return
    yield reason(
        "status-not-current",
        Verdict.DENIED,
        "no valid status says that this release is current",
        expected="current",
        found=stands.state if stands is not None else "nothing verified",
        hint="the publisher says so with: parentage affirm",
    )
