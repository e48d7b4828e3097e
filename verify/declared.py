"""Step 8 of the examination: declared steps contradicted, and merges that nobody declared."""

from __future__ import annotations

from collections.abc import Sequence

from parentage.manifest.lineage import Lineage
from parentage.manifest.steps import DECLARED, Opaque, Training
from parentage.verify import blend, training, verdict
from parentage.verify.engine import Engine, StepSource
from parentage.verify.outcome import Outcome, line_of
from parentage.verify.parents import Candidate, same_root
from parentage.verify.report import StepReport
from parentage.verify.values import FileSource, Source
from parentage.verify.verdict import Finding, Rung, finding


def examine(
    runner: Engine,
    outcome: Outcome,
    release: FileSource,
    step: Training | Opaque,
    sources: dict[str, Source],
    *,
    final: bool,
) -> StepReport:
    """(8) A declared step can be contradicted, never confirmed."""
    base = sources.get(step.inputs[0])
    kind = "training" if isinstance(step, Training) else "an opaque step"
    if not final or base is None:
        outcome.not_checked.append(f"step {step.id}: {kind}, declared only")
        return line_of(step, Rung.DECLARED, "declared only; nothing of it was checked")
    if isinstance(step, Opaque):
        outcome.not_checked.append(f"step {step.id}: an opaque step can't be recomputed")
        return line_of(step, Rung.DECLARED, f"declared only: {step.description}")
    trace = training.examine(runner, release, base, step)
    outcome.findings += trace.findings
    if trace.nothing:
        origin = step.inputs[0]
        what = (
            f"the output of step `{origin}`"
            if isinstance(base, StepSource)
            else f"parent `{origin}`, unchanged"
        )
        outcome.findings.append(
            finding(
                "is-intermediate" if isinstance(base, StepSource) else "no-trace",
                f"this is {what}: all {trace.tensors} tensors are bit-identical, and the declared "
                f"training step `{step.id}` ({step.training.steps} steps) left no trace at all",
                where=f"step {step.id}",
                hint="upload the trained weights, or declare what this is",
            )
        )
        return line_of(step, Rung.REFUTED, "left no trace at all", tensors=trace.tensors)
    outcome.not_checked.append(
        f"step {step.id}: that this training happened ({step.training.method}, {step.training.steps} steps); "
        "a log that could be replayed is not part of this release"
    )
    if not trace.comparable or any(f.refutes for f in trace.findings):
        return line_of(step, Rung.REFUTED, "contradicted by the weights", tensors=trace.tensors)
    summary = (
        f"declared; not contradicted: {trace.tensors_changed} of {trace.tensors} tensors and "
        f"{trace.elements_changed / trace.elements:.1%} of the elements moved"
    )
    if training.speed_limit(step) is not None:
        summary += ", none further than the declared learning rates allow"
    return line_of(step, Rung.DECLARED, summary, tensors=trace.tensors)


def look_up(outcome: Outcome, lineage: Lineage, root: dict[str, str]) -> None:
    """Look the release's root up among declared parents and step outputs."""
    *earlier, last = lineage.recipe.steps
    codes = {found.code for found in outcome.findings}
    if not isinstance(last, DECLARED) or codes & {"is-intermediate", "no-trace"}:
        return
    for step in earlier:
        if step.output and same_root(step.output, root):
            outcome.findings.append(
                finding(
                    "is-intermediate",
                    f"this is the output of step `{step.id}`: the declared step `{last.id}` left no trace",
                    where=f"step {last.id}",
                )
            )
    for parent in lineage.parents:
        if same_root(parent.weights, root):
            outcome.findings.append(
                finding(
                    "no-trace",
                    f"this is parent `{parent.id}`, unchanged: the declared step `{last.id}` left no trace",
                    where=f"step {last.id}",
                )
            )


def hidden(
    runner: Engine,
    release: FileSource,
    candidates: Sequence[Candidate],
    root: dict[str, str],
    lineage: Lineage,
    outcome: Outcome,
) -> list[Finding]:
    """Look for a merge that the recipe does not declare, among all the weights at hand."""
    if any(found.code in {"is-intermediate", "no-trace"} for found in outcome.findings):
        return []
    if outcome.tensors and all(r.rung in verdict.ENOUGH["C"] for r in outcome.tensors):
        return []
    found = blend.search(runner, release, candidates, root)
    if not found and len(candidates) > 1:
        outcome.not_checked.append(
            f"merges with models that were not given (looked among {len(candidates)} for blends of two)"
        )
    elif not found and lineage.recipe.steps:
        outcome.not_checked.append("hidden merges: give suspected parents with --against")
    return found
