"""Whether the lineage of benchmarked weights is known as strongly as a gate demands, and from whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from parentage.attest.claims import Claim, Found
from parentage.attest.policy import RecomputeRule, Role
from parentage.attest.required import Wanted, met
from parentage.attest.roles import Believed, persons
from parentage.attest.statements import summary
from parentage.attest.statements.shared import sha256
from parentage.manifest.errors import StatementError
from parentage.verify.benchmarks.rules import Strength
from parentage.verify.levels import RECIPE
from parentage.verify.report import Report
from parentage.verify.verdict import Rung

#: Rungs by the words of policies.
RUNGS: Final = {"exact": "A", "witnessed": "B", "in-cell": "C"}
_ORDER: Final = ("exact", "witnessed", "in-cell")


class Known(msgspec.Struct, frozen=True):
    """How a lineage is known.

    Attributes:
        how: in words; empty: not as demanded.
        why_not: what was found instead.
    """

    how: str = ""
    why_not: str = ""


def known(
    demanded: Strength,
    report: Report,
    found: Found,
    wanted: Wanted,
    claims: Sequence[Claim],
    believed: Believed,
) -> Known:
    """Say how the lineage of a release is known, as strongly as demanded.

    Args:
        demanded: by the gate.
        report: of the verification here, of whatever level.
        found: the lineage.
        wanted: the release, as statements must be about it.
        claims: verified lines.
        believed: who may say that they recomputed it.
    """
    if demanded == "signed":
        return Known("signed by its publisher")
    if not found.lineage.recipe.steps:
        return Known(why_not="the lineage declares no recipe")
    if demanded == "declared":
        return Known("a recipe is declared, and was not recomputed")
    if report.demanded in RUNGS.values() and report.verified:
        return Known(f"recomputed here: rung {report.reached} (demanded: {report.demanded})")
    return _by_verifiers(demanded, wanted, claims, believed)


def _by_verifiers(
    demanded: Literal["exact", "witnessed", "in-cell"],
    wanted: Wanted,
    claims: Sequence[Claim],
    believed: Believed,
) -> Known:
    rule = RecomputeRule(min=demanded)
    said = met(rule, believed, wanted, claims)
    if said.met:
        return Known(f"recomputed, {demanded}, by {', '.join(said.by)}")
    summed = _summaries(demanded, wanted, claims)
    if len(summed) >= believed.threshold(Role.VERIFIER):
        return Known(f"summaries of a recompute, {demanded}, by {', '.join(sorted(summed))}")
    lacks = "; ".join(said.why_not) or "no verifier of the trust policy says so"
    return Known(why_not=f"{lacks}; nor was it recomputed here")


def _summaries(demanded: Strength, wanted: Wanted, claims: Sequence[Claim]) -> frozenset[str]:
    """Return the verifiers who signed a summary that says so; each has its own time and words."""
    enough = {
        RECIPE[rung]
        for word, rung in zip(_ORDER, (Rung.EXACT, Rung.WITNESSED, Rung.IN_CELL), strict=True)
        if _ORDER.index(word) <= _ORDER.index(demanded)
    }
    # Its subjects are the files, which another lineage may be about, too.
    lines = {one.sha256 for one in claims if sha256(one.opened.payload) == wanted.lineage}
    signers = []
    for claim in claims:
        statement = claim.opened.statement
        if statement.predicate_type != summary.TYPE or Role.VERIFIER not in claim.roles:
            continue
        try:
            subjects, said = summary.parse(statement, claim.where)
        except StatementError:
            continue
        if (
            subjects == wanted.subjects
            and lines & {one.digest.get("sha256", "") for one in said.input_attestations}
            and said.verification_result == "PASSED"
            and enough & set(said.verified_levels)
        ):
            signers.append(claim.opened.signer)
    return persons(signers) - wanted.signers
