"""What the steps of a recipe found out, and the lines and findings that say so."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.manifest.digest import Profile
from parentage.manifest.steps import Step
from parentage.verify import verdict, witness
from parentage.verify.parts import Part
from parentage.verify.report import Sample, StepReport, summarise
from parentage.verify.verdict import NAMES, ORDER, Finding, Rung, TensorResult, finding

#: Findings of one kind that are listed one by one.
SHOWN: Final = 20


class Outcome(msgspec.Struct):
    """What the steps found out."""

    device: str
    found: list[str] = msgspec.field(default_factory=list)
    missing: list[str] = msgspec.field(default_factory=list)
    steps: list[StepReport] = msgspec.field(default_factory=list)
    tensors: list[TensorResult] = msgspec.field(default_factory=list)
    findings: list[Finding] = msgspec.field(default_factory=list)
    not_checked: list[str] = msgspec.field(default_factory=list)
    reached: str = ""
    sample: Sample | None = None
    part: Part | None = None


def preface(outcome: Outcome) -> None:
    """Say which parents are missing."""
    if outcome.missing:
        names = ", ".join(outcome.missing)
        outcome.not_checked.append(
            f"steps that need parents which were not given: {names} (add --parent {outcome.missing[0]}=FOLDER)"
        )


def reached(steps: list[StepReport]) -> str:
    """Return the name of the weakest rung among the steps."""
    return NAMES[max((step.rung for step in steps), key=ORDER.index)]


def line_of(
    step: Step, rung: Rung, summary: str, *, used: str = "", tensors: int = 0
) -> StepReport:
    """Return the report line of a step."""
    op = str(step.__struct_config__.tag)
    return StepReport(id=step.id, op=op, rung=rung, engine=used, tensors=tensors, summary=summary)


def conclude(
    outcome: Outcome, step: Step, tensors: list[TensorResult], demanded: str
) -> StepReport:
    """Turn the results of the last step's tensors into findings and the step's line."""
    outcome.tensors = tensors
    rung, summary = summarise(outcome.tensors)
    used = outcome.tensors[0].engine if outcome.tensors else ""
    refuted = [result for result in outcome.tensors if result.rung == Rung.REFUTED]
    outcome.findings += [mismatch(step, result) for result in refuted[:SHOWN]]
    if len(refuted) > SHOWN:
        outcome.findings.append(
            finding(
                "recipe-mismatch",
                f"and {len(refuted) - SHOWN} more tensors",
                where=f"step {step.id}",
            )
        )
    outcome.not_checked += _witnessed(outcome.tensors)
    loose = [r for r in outcome.tensors if r.rung in {Rung.IN_CELL, Rung.CONSISTENT, Rung.UNPROVEN}]
    if loose:
        count = sum(r.unexplained for r in loose)
        outcome.not_checked.append(
            f"{len(loose)} tensors miss rung A under {used}: {count:,} elements follow no known engine "
            f"({sum(r.ambiguous for r in loose):,} have more than one allowed value); first: {loose[0].name}"
        )
    if rung in verdict.ENOUGH["C"] - verdict.ENOUGH[demanded]:
        outcome.not_checked.append(
            f"step {step.id} at rung {demanded}: it reaches {NAMES[rung]}, which --rung {rung} accepts"
        )
    return line_of(step, rung, f"{summary} under {used}", used=used, tensors=len(outcome.tensors))


def _witnessed(results: list[TensorResult]) -> list[str]:
    """Say how far scalars are from float64, where a reader may want to know."""
    found = [(s.deviation, r.name, key) for r in results for key, s in r.witness.items()]
    if not found:
        return []
    worst, name, key = max(found)
    text = (
        f"how the engine came by {len(found)} scalars of {sum(1 for r in results if r.witness)} tensors: "
        f"each is within its bound of the float64 value, the furthest by {worst:.1e} ({name}: {key})"
    )
    far = sum(deviation > witness.NOTABLE for deviation, _, _ in found)
    return [f"{text}; {far} are further than {witness.NOTABLE:g}" if far else text]


def mismatch(step: Step, result: TensorResult) -> Finding:
    """Return the finding for a tensor that the recipe does not give."""
    first = result.first
    return finding(
        "recipe-mismatch",
        f"{result.differing:,} of {result.elements:,} elements are not what step {step.id} gives "
        f"under {result.engine}",
        where=f"{result.name}[{first.index if first else '?'}]",
        expected=first.expected if first else "",
        found=first.found if first else "",
    )


def unstated(step: Step, variant: str) -> StepReport:
    """Return the line of a step whose output nobody stated."""
    return line_of(step, Rung.EXACT, "recomputed as an input of the next step", used=variant)


def equal_root(step: Step, variant: str, tensors: int) -> StepReport:
    """Return the line of a step whose output was recomputed."""
    summary = f"rung A: recomputed weights root equals the declared one under {variant}"
    return line_of(step, Rung.EXACT, summary, used=variant, tensors=tensors)


def other_root(
    outcome: Outcome, step: Step, found: dict[Profile, str], *, deterministic: bool
) -> StepReport:
    """Return the line of a step that no engine gives the declared output of."""
    if deterministic:
        outcome.findings.append(
            finding(
                "step-output",
                f"step {step.id} does not give the output that it declares",
                where=f"step {step.id}",
                expected=str(dict(step.output or {})),
                found=str(found),
            )
        )
        return line_of(step, Rung.REFUTED, "recomputed weights root is another")
    outcome.not_checked.append(f"step {step.id}: no known engine gives the declared output root")
    return line_of(step, Rung.UNPROVEN, "no known engine gives the declared output root")
