"""What a step's types can't say: how many inputs, which of them is the base, how many weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from parentage.manifest.adapter_steps import DoraMerge, LoraMerge
from parentage.manifest.checkpoint_steps import CheckpointMerge, check_checkpoint_merge
from parentage.manifest.edit_steps import Abliterate, RunningMean
from parentage.manifest.errors import RecipeError
from parentage.manifest.layout_checks import LAYOUT_CHECKS
from parentage.manifest.layout_steps import Layout, Tie
from parentage.manifest.merge_steps import (
    ArceeFusion,
    ModelStock,
    MultiSlerp,
    NearSwap,
    NuSlerp,
    Ram,
    Sce,
    Slerp,
    TaskArithmetic,
    TaskArithmeticParams,
    TaskVectorOverride,
    WeightedSum,
)
from parentage.manifest.quantise_steps import QUANTISE, Cast, QuantiseRtn
from parentage.manifest.steps import Copy, LayerSelect, Rename, Scale, Step
from parentage.manifest.vocab_steps import (
    VocabPermute,
    VocabResize,
    check_vocab_permute,
    check_vocab_resize,
)
from parentage.manifest.wire import Ratio, ratio

_INPUTS: Final = {
    **dict.fromkeys((Slerp, LoraMerge, DoraMerge, Abliterate, NearSwap, ArceeFusion), 2),
    **dict.fromkeys((Copy, Rename, Tie, Layout, Cast, Scale, *QUANTISE), 1),
}
_BASED: Final = (WeightedSum, TaskArithmetic, NuSlerp, MultiSlerp, ModelStock, Sce, Ram)


def check_step(step: Step, where: str) -> None:
    """Check one step by itself.

    Raises:
        RecipeError: saying what does not fit.
    """
    _count("inputs", len(step.inputs), _INPUTS.get(type(step), len(step.inputs)), where)
    if isinstance(step, _BASED):
        base = step.params.base
        if base is not None and step.inputs.count(base) != 1:
            raise RecipeError("base must be one of the inputs, once", where=where, found=base)
        if base is not None and len(step.inputs) < 2:
            raise RecipeError("nothing to merge into the base", where=where, found=base)
    for kind, check in _CHECKS.items():
        if isinstance(step, kind):
            check(step, where)


def _count(what: str, found: int, expected: int, where: str) -> None:
    if found != expected:
        raise RecipeError(
            f"wrong number of {what}", where=where, expected=str(expected), found=str(found)
        )


def _check_weighted_sum(step: WeightedSum, where: str) -> None:
    params = step.params
    if params.base is None and params.scale != "1":
        raise RecipeError("scale without a base", where=where, found=params.scale)
    expected = len(step.inputs) - (params.base is not None)
    for weights in (params.weights, *(override.weights for override in params.overrides)):
        _count("weights", len(weights), expected, where)
        if params.normalize and sum(map(ratio, weights)) == 0:
            raise RecipeError(
                "weights that sum to zero can't be normalised",
                where=where,
                found=str(list(weights)),
            )


def _check_task_arithmetic(step: TaskArithmetic, where: str) -> None:
    params = step.params
    expected = len(step.inputs) - 1
    used = {"weights", "densities"}
    used |= {"outliers": {"gammas"}, "della": {"epsilons"}}.get(params.sparsify, set())
    places: tuple[TaskArithmeticParams | TaskVectorOverride, ...] = (params, *params.overrides)
    for at in places:
        for key in ("weights", "densities", "gammas", "epsilons"):
            values: tuple[Ratio, ...] | None = getattr(at, key)
            if values and key not in used:
                raise RecipeError(f"{key} have no part in {params.sparsify}", where=where)
            if values or (at is params and key in used and key != "densities"):
                _count(key, len(values or ()), expected, where)
        for text in at.densities or ():
            if not 0 <= ratio(text) <= 1:
                raise RecipeError("density is no share", where=where, expected="0 to 1", found=text)
    if params.seed is not None and params.sparsify not in {"random", "della"}:
        raise RecipeError(f"seed has no part in {params.sparsify}", where=where)


def _check_sphere(step: NuSlerp | MultiSlerp, where: str) -> None:
    expected = len(step.inputs) - (step.params.base is not None)
    if isinstance(step, NuSlerp):
        _count("inputs beside the base", expected, 2, where)
    for weights in (step.params.weights, *(o.weights for o in step.params.overrides)):
        _count("weights", len(weights), expected, where)


def _check_model_stock(step: ModelStock, where: str) -> None:
    if len(step.inputs) < 3:
        raise RecipeError("model_stock needs a base and two others", where=where)


def _check_ram(step: Ram, where: str) -> None:
    if (step.params.r is None) != (step.params.alpha is None):
        raise RecipeError("r and alpha come together", where=where)


def _check_slices(step: LayerSelect, where: str) -> None:
    read = [part.input for part in step.params.slices] + [rest.input for rest in step.params.rest]
    for name in read:
        if name not in step.inputs:
            raise RecipeError("slice reads what is not an input", where=where, found=name)


def _check_cast(step: Cast, where: str) -> None:
    if step.arithmetic.store is None:
        raise RecipeError("cast without a store dtype", where=where, expected="arithmetic.store")


def _check_running_mean(step: RunningMean, where: str) -> None:
    decay = step.params.decay
    if decay is not None and not 0 <= ratio(decay) <= 1:
        raise RecipeError("decay is no share", where=where, expected="0 to 1", found=decay)
    if step.witness:
        raise RecipeError("a running mean has no scalars to witness", where=where)


def _check_dora(step: DoraMerge, where: str) -> None:
    if step.params.fan_in_fan_out:
        raise RecipeError(
            "DoRA of transposed weights",
            where=where,
            found="fanInFanOut",
            hint="transpose them with layout/v1 before and after",
        )


def _check_quantise_rtn(step: QuantiseRtn, where: str) -> None:
    params, arithmetic = step.params, step.arithmetic
    if params.axis is not None and params.group is not None:
        raise RecipeError("axis and group exclude each other", where=where)
    if arithmetic.compute is not None and arithmetic.profile != "torch":
        raise RecipeError("compute is torch's alone", where=where, found=arithmetic.compute)
    if ratio(params.limit) <= 0 or ratio(params.floor) < 0 or ratio(params.zero) < 0:
        raise RecipeError("limit, floor and zero are no lengths", where=where, found=params.limit)
    if params.ties == "away" and params.dtype != "I8":
        raise RecipeError("FP8 rounds ties to even", where=where, found=params.ties)
    least, most = map(ratio, params.clamp or ("0", "0"))
    if least > 0 or most < 0 or (params.dtype == "I8" and not (least >= -128 and most <= 127)):
        raise RecipeError("clamp is no range of dtype", where=where, found=str(params.clamp))


_CHECKS: Final[dict[type, Callable[[Any, str], None]]] = {
    WeightedSum: _check_weighted_sum,
    TaskArithmetic: _check_task_arithmetic,
    NuSlerp: _check_sphere,
    MultiSlerp: _check_sphere,
    ModelStock: _check_model_stock,
    Ram: _check_ram,
    LayerSelect: _check_slices,
    VocabPermute: check_vocab_permute,
    VocabResize: check_vocab_resize,
    CheckpointMerge: check_checkpoint_merge,
    Cast: _check_cast,
    RunningMean: _check_running_mean,
    DoraMerge: _check_dora,
    **LAYOUT_CHECKS,
    QuantiseRtn: _check_quantise_rtn,
}
