"""checkpoint_merge/v1: what mergers of image models do to the tensors of two checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from parentage.manifest.errors import RecipeError
from parentage.manifest.wire import Arithmetic, Glob, Ratio, StepBase, Wire


class AlphaFor(Wire, frozen=True, kw_only=True):
    """Another alpha for some tensors; the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    alpha: Ratio


class CheckpointMergeParams(Wire, frozen=True, kw_only=True):
    """One function of two checkpoints, tensor by tensor.

    Attributes:
        function: "weighted_sum": (1 - alpha) A + alpha B. "add": A + alpha B. "difference": A - B.
            "scale": alpha A. "keep": A.
        alpha: its exact float64 value.
        overrides: other alphas (block weights).
        include, exclude: to which tensors of A; the others are copied. One that B lacks is copied too;
            a difference to it is zero.
        half: whether fp32 results are stored as fp16.
        join: whether tensors that only B has and `include` names are added.
    """

    function: Literal["weighted_sum", "add", "difference", "scale", "keep"]
    alpha: Ratio = "1"
    overrides: tuple[AlphaFor, ...] = ()
    include: tuple[Glob, ...] = ("*",)
    exclude: tuple[Glob, ...] = ()
    half: bool = False
    join: bool = False


class CheckpointMerge(StepBase, frozen=True, kw_only=True, tag="checkpoint_merge/v1"):
    """Two checkpoints merged as webui, supermerger or sd-mecha do it."""

    arithmetic: Arithmetic
    params: CheckpointMergeParams


def check_checkpoint_merge(step: CheckpointMerge, where: str) -> None:
    """Check the number of inputs.

    Raises:
        RecipeError: it does not fit the function.
    """
    wanted = 1 if step.params.function in {"scale", "keep"} else 2
    if len(step.inputs) != wanted:
        found = str(len(step.inputs))
        raise RecipeError("wrong number of inputs", where=where, expected=str(wanted), found=found)
