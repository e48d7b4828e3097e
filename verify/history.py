"""Steps 6 to 8 of the examination: parents, recompute, declared steps, hidden merges."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import Profile
from parentage.manifest.errors import RecipeError
from parentage.manifest.hashing import Progress, default_threads
from parentage.manifest.lineage import Lineage
from parentage.manifest.model import Model
from parentage.manifest.steps import DECLARED, Opaque, Step, Training
from parentage.verify import blend, engine, rungs, training, verdict, witness
from parentage.verify import parents as parenthood
from parentage.verify.engine import Engine, StepSource
from parentage.verify.methods.merging import WITNESS
from parentage.verify.parents import Candidate, same_root
from parentage.verify.parts import Part
from parentage.verify.recompute import examine, identities, results, rules_of
from parentage.verify.report import Sample, StepReport, summarise
from parentage.verify.running import inputs_of, running
from parentage.verify.sampling import sampled
from parentage.verify.sharding import gather
from parentage.verify.sources import FileSource, Source
from parentage.verify.verdict import NAMES, ORDER, Finding, Rung, TensorResult, finding
from parentage.verify.way import Way
from parentage.verify.work import Runner, Scene

_SHOWN = 20


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


class _Work(msgspec.Struct):
    """Who recomputes what, and how."""

    runner: Runner
    engine: Engine
    scene: Scene
    demanded: str
    way: Way


def examine_history(
    model: Model,
    lineage: Lineage,
    root: dict[str, str],
    given: Sequence[Candidate],
    *,
    rung: str,
    device: str,
    threads: int | None,
    progress: Progress | None,
    way: Way | None = None,
) -> Outcome:
    """Match the parents, recompute what can be, check what is declared, look for hidden merges.

    Args:
        model: the release's weights.
        lineage: as signed.
        root: of the weights, by digest profile.
        given: parents and suspects.
        rung: the weakest that counts.
        device: "auto", "cpu", "cuda", "all" or a list of CUDA devices.
        threads: worker threads; None: all cores.
        progress: told of the bytes done.
        way: threads or Ray, all or a part.
    """
    first, *others = engine.pick_devices(device)
    runner = Engine(first, threads or default_threads(), progress, tuple(others))
    outcome = Outcome(device=first.type)
    release = FileSource(model)
    matched = parenthood.match(lineage.parents, given)  # (6)
    outcome.found, outcome.missing = sorted(matched.found), matched.missing
    outcome.findings += matched.notes
    _name(matched.found)
    _recipe(runner, outcome, release, lineage, root, matched.found, rung, way or Way())  # (7)
    steps = lineage.recipe.steps
    if any(c.suspect for c in given) or not steps or isinstance(steps[-1], DECLARED):
        outcome.findings += _hidden(runner, release, given, root, lineage, outcome)  # (8)
    return outcome


def _name(found: dict[str, Candidate]) -> None:
    for parent_id, candidate in found.items():
        candidate.label = parent_id


def _recipe(
    runner: Engine,
    outcome: Outcome,
    release: FileSource,
    lineage: Lineage,
    root: dict[str, str],
    parents: dict[str, Candidate],
    demanded: str,
    way: Way,
) -> None:
    steps = lineage.recipe.steps
    if not steps:
        outcome.not_checked.append("where these weights come from: the lineage declares no recipe")
        return
    preface(outcome, sorted(parents))
    sources: dict[str, Source] = {name: c.source for name, c in parents.items()}
    try:
        bound = engine.bind(steps, sources)
    except RecipeError as error:
        # Parents are the declared ones by root, so a recipe that can't run on them is false.
        outcome.findings.append(verdict.of_error(error))
        return
    scene = Scene(release, bound)
    inputs = inputs_of(root, lineage, parents, demanded)
    files = {name: c.source for name, c in parents.items()}
    with running(way, runner, scene, files, inputs) as tasks:
        work = _Work(tasks, runner, scene, demanded, way)
        _steps(work, outcome, steps, sources, inputs)
    _lookup(outcome, lineage, root)
    outcome.reached = reached(outcome.steps)


def preface(outcome: Outcome, found: Sequence[str]) -> None:
    """Say which parents are missing, and what is not known of those that were found."""
    if outcome.missing:
        names = ", ".join(outcome.missing)
        outcome.not_checked.append(
            f"steps that need parents which were not given: {names} (add --parent {outcome.missing[0]}=FOLDER)"
        )
    if found:
        outcome.not_checked.append(
            f"where {', '.join(found)} come from: their weights have the declared roots, and "
            "their own lineage was not followed"
        )


def _steps(
    work: _Work,
    outcome: Outcome,
    steps: Sequence[Step],
    sources: dict[str, Source],
    inputs: dict[str, str],
) -> None:
    bound, release = work.scene.bound, work.scene.release
    last = steps[-1]
    for step in steps:
        try:
            if isinstance(step, DECLARED):
                line = _declared(
                    work.engine, outcome, release, step, sources | dict(bound), final=step is last
                )
            elif step.id not in bound:
                line = line_of(step, Rung.UNPROVEN, "not recomputed: a parent is missing")
            elif step is last:
                line = _final(work, outcome, bound[step.id], inputs)
            else:
                line = _intermediate(work, outcome, bound[step.id])
        except RecipeError as error:
            outcome.findings.append(verdict.of_error(error))
            line = line_of(step, Rung.REFUTED, error.what)
        outcome.steps.append(line)


def reached(steps: list[StepReport]) -> str:
    """Return the name of the weakest rung among the steps."""
    return NAMES[max((step.rung for step in steps), key=ORDER.index)]


def line_of(
    step: Step, rung: Rung, summary: str, *, used: str = "", tensors: int = 0
) -> StepReport:
    """Return the report line of a step."""
    op = str(step.__struct_config__.tag)
    return StepReport(id=step.id, op=op, rung=rung, engine=used, tensors=tensors, summary=summary)


def _final(work: _Work, outcome: Outcome, source: StepSource, inputs: dict[str, str]) -> StepReport:
    step = source.step
    structure = _structure(work.scene.release, source)
    if structure:
        outcome.findings += structure
        return line_of(step, Rung.REFUTED, structure[0].message)
    if work.way.sample is not None:
        return _sample(work, outcome, source)
    if work.way.shard is not None:
        outcome.part = gather(work.runner, work.scene, work.way, inputs, work.demanded, work.engine)
        share = f"shard {work.way.shard[0]} of {work.way.shard[1]}"
        outcome.not_checked.append(f"the other shards' tensors: this is {share}, to be joined")
        return line_of(step, Rung.UNPROVEN, f"{share}: parentage join decides from all of them")
    rules, names = rules_of(source, work.demanded), list(source.specs)
    tried = examine(work.runner, work.scene, step.id, names, rules, expect=work.engine)
    return conclude(outcome, step, results(rules, source.specs, tried), work.demanded)


def _sample(work: _Work, outcome: Outcome, source: StepSource) -> StepReport:
    step = source.step
    outcome.sample, refuted = sampled(work.runner, work.scene, step.id, work.way, work.demanded)
    outcome.findings += [_mismatch(step, result) for result in refuted[:_SHOWN]]
    rest = outcome.sample.of_elements - outcome.sample.elements
    outcome.not_checked.append(f"{rest:,} of {outcome.sample.of_elements:,} elements: not sampled")
    rung = Rung.REFUTED if refuted else Rung.UNPROVEN
    return line_of(step, rung, outcome.sample.describe(), used=outcome.sample.engine)


def conclude(
    outcome: Outcome, step: Step, tensors: list[TensorResult], demanded: str
) -> StepReport:
    """Turn the results of the last step's tensors into findings and the step's line."""
    outcome.tensors = tensors
    rung, summary = summarise(outcome.tensors)
    used = outcome.tensors[0].engine if outcome.tensors else ""
    refuted = [result for result in outcome.tensors if result.rung == Rung.REFUTED]
    outcome.findings += [_mismatch(step, result) for result in refuted[:_SHOWN]]
    if len(refuted) > _SHOWN:
        outcome.findings.append(
            finding(
                "recipe-mismatch",
                f"and {len(refuted) - _SHOWN} more tensors",
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


def _structure(release: FileSource, source: StepSource) -> list[Finding]:
    where = f"step {source.step.id}"
    found: list[Finding] = []
    for name in sorted(source.specs.keys() - release.specs.keys())[:_SHOWN]:
        found.append(
            finding(
                "tensor-not-there", f"{where} makes a tensor that the release lacks", where=name
            )
        )
    for name in sorted(release.specs.keys() - source.specs.keys())[:_SHOWN]:
        found.append(
            finding("tensor-from-nowhere", f"{where} does not make this tensor", where=name)
        )
    for name in sorted(release.specs.keys() & source.specs.keys()):
        if release.specs[name] != source.specs[name]:
            want, have = source.specs[name], release.specs[name]
            found.append(
                finding(
                    "tensor-form",
                    f"{where} makes another dtype or shape",
                    where=name,
                    expected=f"{want.dtype} {list(want.shape)}",
                    found=f"{have.dtype} {list(have.shape)}",
                )
            )
    return found[:_SHOWN]


def _mismatch(step: Step, result: TensorResult) -> Finding:
    first = result.first
    return finding(
        "recipe-mismatch",
        f"{result.differing:,} of {result.elements:,} elements are not what step {step.id} gives "
        f"under {result.engine}",
        where=f"{result.name}[{first.index if first else '?'}]",
        expected=first.expected if first else "",
        found=first.found if first else "",
    )


def _intermediate(work: _Work, outcome: Outcome, source: StepSource) -> StepReport:
    """Compare a step's recomputed root with the declared one, engine by engine."""
    step = source.step
    if not step.output:
        return unstated(step, source.variant)
    if work.way.sample is not None:
        return line_of(
            step, Rung.UNPROVEN, "not recomputed: a sample of the last step was asked for"
        )
    if work.way.shard is not None:
        return line_of(step, Rung.UNPROVEN, "recomputed in part, to be joined")
    profiles: list[Profile] = list(step.output)
    found: dict[Profile, str] = {}

    def roots(variant: str) -> dict[Profile, str]:
        source.variant = variant
        named = identities(work.runner, work.scene, step.id, list(source.specs), variant, profiles)
        return {profile: digest.weights_root(profile, n.items()) for profile, n in named.items()}

    for place, variant in enumerate(source.method.variants):
        if place:
            work.engine.expect(sum(spec.nbytes for spec in source.specs.values()))
        found = roots(variant)
        if found == dict(step.output):
            source.confirmed = True
            return equal_root(step, variant, len(source.specs))
    witnessed = f"{source.method.variants[0]}{WITNESS}"
    if rungs.published_within(source) and roots(witnessed) == dict(step.output):
        summary = f"rung B: recomputed weights root equals the declared one under {witnessed}"
        return line_of(step, Rung.WITNESSED, summary, used=witnessed, tensors=len(source.specs))
    source.variant = source.method.variants[0]
    return other_root(outcome, step, found, deterministic=source.method.deterministic)


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


def _declared(
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


def _lookup(outcome: Outcome, lineage: Lineage, root: dict[str, str]) -> None:
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


def _hidden(
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
