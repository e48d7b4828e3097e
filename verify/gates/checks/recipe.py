"""Checks of the recipe: how far it was recomputed, and what it has in it."""

from __future__ import annotations

from collections.abc import Iterator

from parentage.verify.gates.facts import Facts
from parentage.verify.gates.reasons import Reason, by_rule, reason
from parentage.verify.report import StepReport
from parentage.verify.verdict import ENOUGH, NAMES, Rung, Verdict


def nothing(facts: Facts) -> Iterator[Reason]:
    """Zero tensors, or some that were not compared, are never a pass."""
    covered = facts.report.coverage
    if facts.lineage is None:
        return  # no signature verified, which says it all
    if facts.rules.level == "remote":
        seen = facts.report.remote
        everything = covered.tensors > 0 and covered.files_signed > 0 and seen is not None
    else:
        everything = 0 < covered.tensors == covered.tensors_checked
    if not everything or not facts.report.root:
        yield reason(
            "nothing-checked",
            Verdict.UNPROVEN,
            "not every tensor was compared with what was signed",
            expected="all tensors, at least one",
            found=f"{covered.tensors_checked:,} of {covered.tensors:,}",
        )


def missing(facts: Facts) -> Iterator[Reason]:
    """Weights without a history."""
    lineage = facts.lineage
    if facts.rules.level == "recompute" and lineage is not None and not lineage.recipe.steps:
        yield from by_rule(
            facts.rules.no_recipe,
            "recipe-missing",
            "the lineage does not say where these weights come from",
            hint="declare them with their recipe, or set noRecipe where base models pass",
        )


def rung(facts: Facts) -> Iterator[Reason]:
    """Each computable step reaches the rung that is demanded."""
    if facts.rules.level != "recompute":
        return
    enough = ENOUGH[facts.rules.rung]
    lineage = facts.lineage
    done = {step.id for step in facts.report.steps}
    if lineage is not None and not done >= {step.id for step in lineage.recipe.steps}:
        yield reason(
            "rung-not-reached", Verdict.UNPROVEN, "the recipe was not recomputed to its end"
        )
    for step in facts.report.steps:
        if step.rung not in enough and step.rung not in {Rung.DECLARED, Rung.REFUTED}:
            yield reason(
                "rung-not-reached",
                Verdict.UNPROVEN,
                f"step {step.id} ({step.op}): {step.summary}",
                where=f"step {step.id}",
                expected=f"rung {facts.rules.rung} or better",
                found=NAMES[step.rung],
                hint=_help(facts),
            )


def declared(facts: Facts) -> Iterator[Reason]:
    """Training and opaque steps pass only where they are named."""
    for step in facts.report.steps:
        if step.rung is not Rung.DECLARED:
            continue
        verdict = Verdict.VERIFIED if kind_of(step) in facts.rules.declared else Verdict.UNPROVEN
        yield reason(
            "step-declared",
            verdict,
            f"step {step.id} ({step.op}) is taken at its word: {step.summary}",
            where=f"step {step.id}",
            expected="" if verdict is Verdict.VERIFIED else "a step that can be recomputed",
            found=step.op,
            hint="" if verdict is Verdict.VERIFIED else f"declared: [{kind_of(step)}] accepts it",
        )


def denied(facts: Facts) -> Iterator[Reason]:
    """Steps that must not occur, whatever their rung."""
    steps = facts.lineage.recipe.steps if facts.lineage is not None else ()
    for step in steps:
        op = str(step.__struct_config__.tag)
        if op in facts.rules.deny_steps:
            yield reason(
                "step-denied",
                Verdict.DENIED,
                f"this gate lets no {op} through",
                where=f"step {step.id}",
            )


def kind_of(step: StepReport) -> str:
    """Return "training" or "opaque" of a declared step."""
    return step.op.partition("/")[0]


def _help(facts: Facts) -> str:
    missing_parents = facts.report.parents_missing
    return f"--parent {missing_parents[0]}=FOLDER" if missing_parents else ""
