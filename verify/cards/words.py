"""A recipe in plain words, with its exact numbers."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from parentage.manifest.errors import printable
from parentage.manifest.lineage import Lineage
from parentage.manifest.merge_steps import Slerp, WeightedSum
from parentage.manifest.quantise_steps import Cast
from parentage.manifest.steps import Copy, Opaque, Step, Training

_PARAMS: Final = 300


def in_words(lineage: Lineage) -> list[str]:
    """Return one sentence for each step, in order; texts are not escaped for any format."""
    return [f"{step.id}: {_step(step)}" for step in lineage.recipe.steps]


def _step(step: Step) -> str:
    inputs = ", ".join(step.inputs)
    match step:
        case WeightedSum():
            said = _sum(step)
        case Slerp(params=params) if isinstance(params.t, str):
            said = f"spherical interpolation (slerp) of {inputs} at t = {params.t}{_how(step)}"
        case Training(training=run):
            sets = f" on {len(run.data)} data sets named by digest" if run.data else ""
            said = f"training of {inputs}: {run.method}, {run.steps:,} steps{sets}, declared by the publisher"
        case Opaque(description=description):
            said = f"of {inputs}, something that nobody can recompute: {description}"
        case Copy():
            said = f"tensors of {inputs}, unchanged"
        case Cast(arithmetic=arithmetic):
            said = f"{inputs} rounded to {arithmetic.store}"
        case _:
            said = f"{step.__struct_config__.tag} of {inputs}{_params(step)}{_how(step)}"
    return said


def _sum(step: WeightedSum) -> str:
    params = step.params
    inputs = [name for name in step.inputs if name != params.base]
    terms = " + ".join(f"{w} x {name}" for w, name in zip(params.weights, inputs, strict=False))
    if params.base is not None:
        by = "" if params.scale == "1" else f"{params.scale} x "
        terms = f"{params.base} + {by}({terms}), each minus {params.base}"
    divided = ", divided by the sum of the weights" if params.normalize else ""
    others = f", with other weights for {len(params.overrides)} groups of tensors"
    return f"{terms}{divided}{others if params.overrides else ''}{_how(step)}"


def _how(step: Any) -> str:  # noqa: ANN401  (not every step has an arithmetic)
    arithmetic = getattr(step, "arithmetic", None)
    if arithmetic is None:
        return ""
    stored = f", stored as {arithmetic.store}" if getattr(arithmetic, "store", None) else ""
    return f" (arithmetic {arithmetic.profile}{stored})"


def _params(step: Any) -> str:  # noqa: ANN401  (not every step has parameters)
    params = getattr(step, "params", None)
    said = {} if params is None else msgspec.to_builtins(params)
    return f" with {printable(json.dumps(said), _PARAMS)}" if said else ""
