"""What a verification reached, in the words that summaries use."""

from __future__ import annotations

from typing import Final

from parentage.verify.report import Report
from parentage.verify.verdict import ENOUGH, ORDER, Rung

IDENTITY: Final = "PARENTAGE_IDENTITY"
SIGNED: Final = (IDENTITY, "PARENTAGE_INTEGRITY")
DECLARED: Final = "PARENTAGE_LINEAGE_DECLARED"
SAMPLED: Final = "PARENTAGE_RECIPE_SAMPLED"
#: By the weakest rung among the steps.
RECIPE: Final = {
    Rung.EXACT: "PARENTAGE_RECIPE_EXACT",
    Rung.WITNESSED: "PARENTAGE_RECIPE_WITNESSED",
    Rung.IN_CELL: "PARENTAGE_RECIPE_IN_CELL",
}


def proven(report: Report) -> bool:
    """Say whether every step reached the rung that was demanded and nothing refutes, whatever the policy."""
    if report.demanded not in ENOUGH or any(finding.refutes for finding in report.findings):
        return False
    return bool(report.steps) and all(s.rung in ENOUGH[report.demanded] for s in report.steps)


def recipe_level(report: Report) -> str:
    """Return the level of the recipe where it was recomputed; empty: none."""
    if not report.verified or not report.steps:
        return ""
    return RECIPE[max((step.rung for step in report.steps), key=ORDER.index)]


def sample_holds(report: Report) -> bool:
    """Say whether nothing stands against a release but that only a sample of it was compared."""
    found = report.sample
    return (
        found is not None
        and not found.differing
        and found.elements > 0
        and report.verdict.value == "unproven"
        and not any(finding.refutes or finding.denies for finding in report.findings)
        and not report.parents_missing
    )


def levels(report: Report, *, has_recipe: bool) -> tuple[str, ...]:
    """Return all levels that hold; none where the release is neither verified nor sampled well."""
    if report.demanded == "remote":
        # No weights were read: their digests are what a Hub says of them.
        return (IDENTITY, *([DECLARED] if has_recipe else [])) if report.verified else ()
    sampled = sample_holds(report)
    if not report.verified and not sampled:
        return ()
    recipe = recipe_level(report)
    found = [*SIGNED, *([DECLARED] if has_recipe else [])]
    # What is equal in every element is equal in every sample.
    if sampled or recipe == RECIPE[Rung.EXACT]:
        found.append(SAMPLED)
    return (*found, *([recipe] if recipe else []))
