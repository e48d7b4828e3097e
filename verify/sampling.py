"""A first answer: some chunks of the last step's output, drawn when nobody can choose them any more."""

from __future__ import annotations

import os

from parentage.manifest.errors import CannotRunError
from parentage.verify import planner
from parentage.verify.differences import Difference
from parentage.verify.engine import StepSource, chunks_of
from parentage.verify.planner import Task
from parentage.verify.recompute import Tried, at_bits, rules_of
from parentage.verify.report import Sample
from parentage.verify.values import Source
from parentage.verify.verdict import TensorResult
from parentage.verify.way import Way
from parentage.verify.work import Compare, Runner, Scene

_SEED_BYTES = 16


def sampled(
    runner: Runner, scene: Scene, step: str, way: Way, demanded: str
) -> tuple[Sample, list[TensorResult]]:
    """Compare a sample by bits; return its coverage, and the tensors that it refutes.

    The seed is drawn here: after the release's weights root was computed, so that no publisher can
    have known it. A seed that was given repeats a sample; it proves nothing to anyone else. Only where
    neither the step nor any before it leaves anything free does a differing element refute.

    Args:
        runner: runs the tasks.
        scene: release and bound steps.
        step: the last.
        way: how many chunks, and the seed to repeat.
        demanded: rung.

    Raises:
        CannotRunError: the step leaves elements open, so that bits of a sample say nothing.
    """
    source = scene.bound[step]
    rules = rules_of(source, demanded)
    if rules.direct:
        raise CannotRunError(
            "a sample can't be compared: this step leaves elements open",
            where=f"step {step}",
            hint="verify without --sample",
        )
    names = list(source.specs)
    seed = bytes.fromhex(way.sample_seed) or os.urandom(_SEED_BYTES)
    chunks = planner.sample(source.specs, names, way.sample or 0, seed)
    tasks = [Task(chunk.name, chunk.start, chunk.stop) for chunk in chunks]
    best: tuple[int, str, dict[str, Tried]] | None = None
    for variant in rules.variants:
        job = Compare(step=step, engines=scene.engines(step), engine=variant)
        tried = {task.name: Tried({variant: Difference(0, None)}) for task in tasks}
        found = dict(runner.run(job, tasks))
        for task in tasks:
            count = found[task]
            if isinstance(count, Difference):
                tried[task.name].counts[variant].add(count)
        differing = sum(t.counts[variant].differing for t in tried.values())
        if best is None or differing < best[0]:
            best = differing, variant, tried
        if not differing:
            break
    if best is None:
        raise CannotRunError("no engine to compare with", where=f"step {step}")
    differing, variant, tried = best
    coverage = Sample(
        seed=seed.hex(),
        chunks=len(tasks),
        of_chunks=sum(1 for name in names for _ in chunks_of(source.specs[name])),
        elements=sum(task.stop - task.start for task in tasks),
        of_elements=sum(source.specs[name].elements for name in names),
        differing=differing,
        engine=variant,
    )
    if not _nothing_free(source):
        return coverage, []
    results = [at_bits(rules, source.specs[name], tried[name], variant) for name in tried]
    return coverage, [result for result in results if result.differing]


def _nothing_free(source: Source) -> bool:
    if not isinstance(source, StepSource):
        return True
    return source.method.deterministic and all(map(_nothing_free, source.inputs.values()))
