"""Which known engine made these bits from these two models, if any: merges replayed, not estimated.

Equality of every bit of millions of elements does not happen by chance, so a hit needs no threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import torch

from parentage.manifest.merge_steps import WeightedSum, WeightedSumParams
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import Arithmetic, FloatDtype
from parentage.verify.engine import Engine, StepSource
from parentage.verify.methods.weighted_sum import weighted_sum
from parentage.verify.recompute import compare
from parentage.verify.rounding import same_bits
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import Rung

#: Elements of one tensor that a wrong guess is dismissed by.
_GLANCE: Final = 1 << 14


def exact_engine(
    engine: Engine,
    release: FileSource,
    sources: tuple[FileSource, FileSource],
    weights: tuple[str, str],
) -> str:
    """Return the engine under which w_1 a + w_2 b gives every bit of the release, or nothing."""
    stored = {s.dtype for s in release.specs.values() if s.dtype in FLOAT_DTYPES}
    if len(stored) != 1:
        return ""
    given = {spec.dtype for source in sources for spec in source.specs.values()} & FLOAT_DTYPES
    computes = (None,) if given == stored else (None, *stored)
    for step in _steps(weights, stored.pop(), computes):  # type: ignore[arg-type]  # float dtypes
        source = StepSource(step, weighted_sum(step, dict(zip(step.inputs, sources, strict=True))))
        if not _glance(engine, release, source):
            continue
        results = compare(engine, release, source)
        if all(result.rung == Rung.EXACT for result in results):
            base = step.params.base
            kind = f", as task arithmetic from {'the first' if base == 'left' else 'the second'}"
            return results[0].engine + (kind if base else "")
    return ""


def _steps(
    weights: tuple[str, str], dtype: FloatDtype, computes: Sequence[FloatDtype | None]
) -> Iterator[WeightedSum]:
    yield _linear(weights, Arithmetic(profile="parentage-1", store=dtype))
    for compute in computes:
        for profile in ("mk-0.1.5", "mk-0.1.4"):
            yield _linear(weights, Arithmetic(profile=profile, compute=compute, store=dtype))
    for base, weight in (("left", weights[1]), ("right", weights[0])):
        yield WeightedSum(
            id="found",
            inputs=("left", "right"),
            params=WeightedSumParams(weights=(weight,), normalize=False, base=base),
            arithmetic=Arithmetic(profile="mk-0.1.5", compute=dtype, store=dtype),
        )


def _linear(weights: tuple[str, str], arithmetic: Arithmetic) -> WeightedSum:
    return WeightedSum(
        id="found",
        inputs=("left", "right"),
        params=WeightedSumParams(weights=weights, normalize=True),
        arithmetic=arithmetic,
    )


def _glance(engine: Engine, release: FileSource, source: StepSource) -> bool:
    """Say whether some engine gives the first elements of the largest tensor."""
    specs = [spec for spec in release.specs.values() if spec.dtype in FLOAT_DTYPES]
    spec = max(specs, key=lambda spec: spec.elements)
    stop = min(spec.elements, _GLANCE)
    scratch = Scratch(engine.device)
    with torch.inference_mode():
        found = release.read(spec.name, 0, stop, scratch)
        return any(
            same_bits(source.method.chunk(spec.name, 0, stop, variant, scratch), found)
            for variant in source.method.variants
        )
