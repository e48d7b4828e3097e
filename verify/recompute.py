"""Recompute-and-compare: the rung that each tensor of the release reaches against a step.

Rung A: every element has the bits of one engine of the declared profile, the same for all tensors.
What does not is asked what holds below (rungs.py). Under `parentage-1` nothing is free, so one other
bit refutes.

`examine` gathers counts and lower rungs for some tensors; `results` decides from those of all. Between
the two they may be kept, signed and joined: the decision is the same whoever gathered what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from parentage.manifest.digest import Profile
from parentage.manifest.errors import CannotRunError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.verify import planner, work
from parentage.verify.differences import Difference, difference
from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of
from parentage.verify.freedom import inherited
from parentage.verify.methods.base import Chooser, Scalared
from parentage.verify.values import FileSource, Scratch, Source
from parentage.verify.verdict import Rung, TensorResult
from parentage.verify.work import Compare, Identify, Leaves, Lower, Runner, Scene, Threads


class Rules(msgspec.Struct, frozen=True):
    """What a decision needs to know of a step.

    Attributes:
        variants: engines of its profile, the likeliest first.
        deterministic: whether one other bit refutes it.
        direct: whether no float is compared by bits first: rungs below A at once, under the first.
        free: tensors made from those of an earlier step that leaves its engine a choice; what misses
            there is undecided, never refuted.
    """

    variants: tuple[str, ...]
    deterministic: bool
    direct: bool = False
    free: tuple[str, ...] = ()


class Tried(msgspec.Struct):
    """What was found out about one tensor.

    Attributes:
        counts: how it differs, by engine.
        below: the best rung below A where it differs, by engine.
    """

    counts: dict[str, Difference] = msgspec.field(default_factory=dict)
    below: dict[str, TensorResult] = msgspec.field(default_factory=dict)


def rules_of(step: StepSource, rung: str = "A") -> Rules:
    """Return the rules of a bound step.

    Args:
        step: bound to its inputs.
        rung: the weakest that counts. What only rung A needs is left out where less is asked for: torch's
            reductions of whole tensors under "B", its sort under "C".
    """
    method = step.method
    direct = isinstance(method, Chooser) and (
        method.unseeded or (method.exact_is_costly and rung == "C")
    )
    if isinstance(method, Scalared) and method.replay_streams and not method.deterministic:
        direct = direct or rung in {"B", "C"}
    free = tuple(sorted(name for name in step.specs if inherited(step, name)))
    return Rules(tuple(method.variants), method.deterministic, direct, free)


def compare(
    engine: Engine, release: FileSource, step: StepSource, *, rung: str = "A"
) -> list[TensorResult]:
    """Return one result for each tensor that both have; names must be checked before.

    Args:
        engine: where the work runs.
        release: the weights that are claimed to be the step's output.
        step: bound to its inputs.
        rung: as of `rules_of`.
    """
    runner = Threads(engine, Scene(release, {step.step.id: step}))
    names = [name for name in step.specs if name in release.specs]
    rules = rules_of(step, rung)
    tried = examine(runner, runner.scene, step.step.id, names, rules)
    return results(rules, step.specs, tried)


def examine(
    runner: Runner,
    scene: Scene,
    step: str,
    names: Sequence[str],
    rules: Rules,
    *,
    expect: Engine | None = None,
    every_engine: bool = False,
) -> dict[str, Tried]:
    """Find out about tensors what a decision may need.

    Args:
        runner: runs the tasks.
        scene: release and bound steps.
        step: whose output the release is claimed to be.
        names: tensors, all in both.
        rules: of the step.
        expect: told of passes over the tensors after the first.
        every_engine: try all of them, for the case that tensors elsewhere decide for another engine
            than these.
    """
    source, tried = scene.bound[step], {name: Tried() for name in names}
    engines = scene.engines(step)
    by_bits = [name for name in names if not _is_direct(rules, source.specs[name])]
    pieces = planner.tasks(source, by_bits)
    nbytes = sum(source.specs[name].nbytes for name in by_bits)
    for place, variant in enumerate(rules.variants[:1] if rules.direct else rules.variants):
        if place:
            scene.confirm()
        if place and expect is not None:
            expect.expect(nbytes)
        job = Compare(step=step, engines=engines, engine=variant)
        for name, count in _run(runner, job, pieces).items():
            if isinstance(count, Difference):
                tried[name].counts[variant] = count
        if not every_engine and not any(tried[n].counts[variant].differing for n in by_bits):
            break
    if not rules.deterministic:
        everything = every_engine and not rules.direct
        for variant in rules.variants if everything else (_chosen(rules, tried.values()),):
            _look_below(runner, scene, step, rules, tried, variant)
    return tried


def _look_below(
    runner: Runner,
    scene: Scene,
    step: str,
    rules: Rules,
    tried: Mapping[str, Tried],
    variant: str,
) -> None:
    """Find the best rungs below A of the tensors that miss it under one engine."""
    source = scene.bound[step]
    missed = _missed(rules, source, tried, variant)
    pieces = [planner.Task(name, 0, source.specs[name].units) for name in missed]
    job = Lower(step=step, engines=scene.engines(step), missed=missed)
    for piece, found in runner.run(job, pieces) if pieces else ():
        if isinstance(found, TensorResult):
            tried[piece.name].below[variant] = found
            if found.rung in {Rung.REFUTED, Rung.UNPROVEN}:
                scene.confirm()


def _missed(
    rules: Rules, source: StepSource, tried: Mapping[str, Tried], engine: str
) -> dict[str, TensorResult]:
    """Return the tensors that bits do not decide under one engine."""
    found = {
        name: at_bits(rules, source.specs[name], known, engine)
        for name, known in tried.items()
        if source.specs[name].dtype in FLOAT_DTYPES
    }
    return {n: result for n, result in found.items() if rules.direct or result.differing}


def _run(
    runner: Runner, job: work.AnyJob, pieces: Sequence[planner.Task]
) -> dict[str, work.Result]:
    return work.joined(pieces, dict(runner.run(job, pieces))) if pieces else {}


def _open_engine(rules: Rules) -> str:
    return rules.variants[0].partition("/")[0]


def _is_direct(rules: Rules, spec: TensorSpec) -> bool:
    """Say whether a tensor is not compared by bits: what is no float is copied under every engine."""
    return rules.direct and spec.dtype in FLOAT_DTYPES


def at_bits(rules: Rules, spec: TensorSpec, tried: Tried, engine: str) -> TensorResult:
    """Return a tensor's result under one engine as bits alone decide it."""
    if _is_direct(rules, spec):
        return TensorResult(
            name=spec.name,
            rung=Rung.UNPROVEN,
            elements=spec.units,
            engine=_open_engine(rules),
        )
    count = tried.counts[rules.variants[0] if rules.direct else engine]
    return TensorResult(
        name=spec.name,
        rung=Rung.REFUTED if count.differing else Rung.EXACT,
        elements=spec.units,
        differing=count.differing,
        engine=engine,
        first=count.first,
    )


def results(
    rules: Rules, specs: Mapping[str, TensorSpec], tried: Mapping[str, Tried]
) -> list[TensorResult]:
    """Decide from what was found out about all tensors, in the order of `specs`.

    Raises:
        CannotRunError: an engine decides that was not tried on some tensor.
    """
    chosen = _chosen(rules, tried.values())
    found: list[TensorResult] = []
    for name, spec in specs.items():
        if name not in tried:
            continue
        known = tried[name]
        if chosen in known.below:
            found.append(known.below[chosen])
            continue
        missing = not rules.direct and chosen not in known.counts
        if not missing:
            found.append(at_bits(rules, spec, known, chosen))
            missing = (
                found[-1].rung == Rung.REFUTED
                and not rules.deterministic
                and spec.dtype in FLOAT_DTYPES
            )
        if missing:
            raise CannotRunError(
                "the tensors together decide for an engine that was not tried on each of them",
                where=name,
                expected=chosen,
                found=", ".join(known.counts),
                hint="run the shards again with --every-engine",
            )
    for result in found:
        if result.rung == Rung.REFUTED and result.name in rules.free:
            result.rung = Rung.UNPROVEN
    return found


def _chosen(rules: Rules, tried: Iterable[Tried]) -> str:
    """Return the engine that most tensors equal, the likelier of two: rung A is one for all.

    Where an engine was not tried on a tensor, both answers must lead to the same choice.
    """
    if rules.direct:
        return _open_engine(rules)
    least = dict.fromkeys(rules.variants, 0)
    most = dict.fromkeys(rules.variants, 0)
    for known in tried:
        for variant in rules.variants:
            count = known.counts.get(variant)
            least[variant] += count is not None and not count.differing
            most[variant] += count is None or not count.differing
    order = {variant: -place for place, variant in enumerate(rules.variants)}
    best = max(rules.variants, key=lambda variant: (least[variant], order[variant]))
    for other in rules.variants:
        if other != best and (most[other], order[other]) > (least[best], order[best]):
            raise CannotRunError(
                "the tensors together do not decide between two engines",
                expected="tensors tried under both",
                found=f"{best}, {other}",
                hint="run the shards again with --every-engine",
            )
    return best


def identities(
    runner: Runner,
    scene: Scene,
    step: str,
    names: Sequence[str],
    variant: str,
    profiles: Sequence[Profile],
) -> dict[Profile, dict[str, str]]:
    """Return the identities of some tensors of a step's output under one engine."""
    source = scene.bound[step]
    job = Identify(step=step, engines=scene.engines(step), engine=variant, profiles=tuple(profiles))
    found = _run(runner, job, planner.tasks(source, names))
    leaves = {name: part for name, part in found.items() if isinstance(part, Leaves)}
    return work.identities_of(source, leaves)


def equal_share(engine: Engine, left: Source, right: Source) -> dict[str, int]:
    """Return, for each tensor that both have in one shape and dtype, how many elements differ."""

    def task(chunk: Chunk, scratch: Scratch) -> int:
        a = left.read(chunk.name, chunk.start, chunk.stop, scratch)
        b = right.read(chunk.name, chunk.start, chunk.stop, scratch)
        engine.report(a.numel() * a.element_size())
        return difference(a, b, chunk.start).differing

    names = [name for name, spec in left.specs.items() if right.specs.get(name) == spec]
    chunks = [chunk for name in names for chunk in chunks_of(left.specs[name])]
    totals = dict.fromkeys(names, 0)
    for chunk, differing in zip(chunks, engine.map(task, chunks), strict=True):
        totals[chunk.name] += differing
    return totals
