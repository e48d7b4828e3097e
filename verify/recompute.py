"""Recompute-and-compare: the rung that each tensor of the release reaches against a step.

Rung A: every element has the bits of one engine of the declared profile. Rung C: every element lies
in the interval that any engine within a proven error bound can reach; ambiguous elements (two
values allowed) are counted, and so are those that no known engine produces. One element outside
refutes. Under `parentage-1` nothing is free, so one other bit refutes.
"""

from __future__ import annotations

from collections import Counter

from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.verify import rungs
from parentage.verify.differences import Difference, difference, differences
from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of
from parentage.verify.methods.base import Chooser
from parentage.verify.sources import FileSource, Scratch, Source
from parentage.verify.verdict import Rung, TensorResult


def compare(
    engine: Engine, release: FileSource, step: StepSource, *, rung: str = "A"
) -> list[TensorResult]:
    """Return one result for each tensor that both have; names must be checked before.

    Args:
        engine: where the work runs.
        release: the weights that are claimed to be the step's output.
        step: bound to its parents.
        rung: the weakest that counts. With "C", what only rung A needs (sorting) is left out.
    """
    method = step.method
    names = [name for name in step.specs if name in release.specs]
    if isinstance(method, Chooser) and (
        method.unseeded or (method.exact_is_costly and rung == "C")
    ):
        results = {name: _open(step, name) for name in names}
        bad = names
    else:
        results = _exact(engine, release, step, names)
        bad = [name for name in names if results[name].differing]
    if not method.deterministic:
        for name in bad:
            if step.specs[name].dtype in FLOAT_DTYPES:
                results[name] = rungs.below_exact(engine, release, step, results[name])
    return [results[name] for name in names]


def _open(step: StepSource, name: str) -> TensorResult:
    return TensorResult(
        name=name,
        rung=Rung.UNPROVEN,
        elements=step.specs[name].units,
        engine=step.method.variants[0].partition("/")[0],
    )


def _exact(
    engine: Engine, release: FileSource, step: StepSource, names: list[str]
) -> dict[str, TensorResult]:
    """Try every engine of the profile on every tensor: rung A."""
    best: dict[str, dict[str, Difference]] = {name: {} for name in names}
    for variant in step.method.variants:
        for name, count in differences(engine, release, step, variant, names).items():
            best[name][variant] = count
        if not any(best[name][variant].differing for name in names):
            break
    chosen = _one_engine(step, best)
    return {
        name: TensorResult(
            name=name,
            rung=Rung.REFUTED if best[name][chosen].differing else Rung.EXACT,
            elements=step.specs[name].units,
            differing=best[name][chosen].differing,
            engine=chosen,
            first=best[name][chosen].first,
        )
        for name in names
    }


def _one_engine(step: StepSource, best: dict[str, dict[str, Difference]]) -> str:
    """Return the variant that most tensors equal: rung A is one engine for the whole step."""
    exact = Counter(
        variant for counts in best.values() for variant, c in counts.items() if not c.differing
    )
    order = [v for v in step.method.variants if all(v in counts for counts in best.values())]
    return max(order, key=lambda variant: (exact[variant], -order.index(variant)))


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
