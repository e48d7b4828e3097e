"""Steps 6 to 8 of the examination: parents, recompute, declared steps, hidden merges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import Profile
from parentage.manifest.errors import RecipeError
from parentage.manifest.hashing import Progress, default_threads
from parentage.manifest.lineage import Lineage
from parentage.manifest.model import Model
from parentage.manifest.steps import DECLARED, Step
from parentage.verify import declared, engine, rungs, verdict
from parentage.verify import parents as parenthood
from parentage.verify.engine import Engine, StepSource
from parentage.verify.methods.merging import WITNESS
from parentage.verify.outcome import (
    SHOWN,
    Outcome,
    conclude,
    equal_root,
    line_of,
    mismatch,
    other_root,
    preface,
    reached,
    unstated,
)
from parentage.verify.parents import Candidate
from parentage.verify.recompute import examine, identities, results, rules_of
from parentage.verify.report import StepReport
from parentage.verify.running import inputs_of, running
from parentage.verify.sampling import sampled
from parentage.verify.sharding import gather
from parentage.verify.values import FileSource, Source
from parentage.verify.verdict import Finding, Rung, finding
from parentage.verify.way import Way
from parentage.verify.work import Runner, Scene


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
    confirm: Callable[[], None] = lambda: None,
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
        confirm: raises where parents are not those that they were taken for.
    """
    first, *others = engine.pick_devices(device)
    runner = Engine(first, threads or default_threads(), progress, tuple(others))
    outcome = Outcome(device=first.type)
    release = FileSource(model)
    matched = parenthood.match(lineage.parents, given)  # (6)
    outcome.found, outcome.missing = sorted(matched.found), matched.missing
    outcome.findings += matched.notes
    _name(matched.found)
    scene = Scene(release, {}, confirm)
    _recipe(runner, outcome, scene, lineage, root, matched.found, rung, way or Way())  # (7)
    steps = lineage.recipe.steps
    if any(c.suspect for c in given) or not steps or isinstance(steps[-1], DECLARED):
        outcome.findings += declared.hidden(runner, release, given, root, lineage, outcome)  # (8)
    return outcome


def _name(found: dict[str, Candidate]) -> None:
    for parent_id, candidate in found.items():
        candidate.label = parent_id


def _recipe(
    runner: Engine,
    outcome: Outcome,
    scene: Scene,
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
    preface(outcome)
    sources: dict[str, Source] = {name: c.source for name, c in parents.items()}
    try:
        bound = engine.bind(steps, sources)
    except RecipeError as error:
        # Parents are the declared ones by root, so a recipe that can't run on them is false.
        outcome.findings.append(verdict.of_error(error))
        return
    scene = msgspec.structs.replace(scene, bound=bound)
    inputs = inputs_of(root, lineage, parents, demanded)
    files = {name: c.source for name, c in parents.items()}
    with running(way, runner, scene, files, inputs) as tasks:
        work = _Work(tasks, runner, scene, demanded, way)
        _steps(work, outcome, steps, sources, inputs)
    declared.look_up(outcome, lineage, root)
    outcome.reached = reached(outcome.steps)


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
                line = declared.examine(
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
    outcome.findings += [mismatch(step, result) for result in refuted[:SHOWN]]
    rest = outcome.sample.of_elements - outcome.sample.elements
    outcome.not_checked.append(f"{rest:,} of {outcome.sample.of_elements:,} elements: not sampled")
    rung = Rung.REFUTED if refuted else Rung.UNPROVEN
    return line_of(step, rung, outcome.sample.describe(), used=outcome.sample.engine)


def _structure(release: FileSource, source: StepSource) -> list[Finding]:
    where = f"step {source.step.id}"
    found: list[Finding] = []
    for name in sorted(source.specs.keys() - release.specs.keys())[:SHOWN]:
        found.append(
            finding(
                "tensor-not-there", f"{where} makes a tensor that the release lacks", where=name
            )
        )
    for name in sorted(release.specs.keys() - source.specs.keys())[:SHOWN]:
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
    return found[:SHOWN]


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
            work.scene.confirm()
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
