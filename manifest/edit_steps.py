"""Steps on the weights of one model or one run: a direction taken out, checkpoints averaged."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from parentage.manifest.merge_steps import MergeStep
from parentage.manifest.wire import Arithmetic, Glob, Ratio, StepBase, Wire


class Ablation(Wire, frozen=True, kw_only=True):
    """What is taken out of some matrices.

    Attributes:
        tensors: which; further dimensions before the last two are matrices of their own.
        direction: name of the vector r in the second input.
        side: "left": W - alpha r r' W (what writes: `o_proj`, `down_proj`). "right": W - alpha W r r'
            (what has r along its last dimension: `embed_tokens`).
        alpha: 1 takes all of it out.
    """

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    direction: str
    side: Literal["left", "right"]
    alpha: Ratio = "1"


class AbliterateParams(Wire, frozen=True, kw_only=True):
    """Directions shipped as data; for each tensor the first matching rule wins.

    Attributes:
        rules: which directions from where.
        normalize: whether r is divided by its length first.
    """

    rules: Annotated[tuple[Ablation, ...], msgspec.Meta(min_length=1, max_length=4096)]
    normalize: bool = True


class Abliterate(StepBase, frozen=True, kw_only=True, tag="abliterate/v1"):
    """Directions (second input) taken out of a model (first input)."""

    arithmetic: Arithmetic
    params: AbliterateParams


class RunningMeanParams(Wire, frozen=True, kw_only=True):
    """Checkpoints averaged in the order of `inputs`.

    Attributes:
        decay: of an exponential average, e = decay e + (1 - decay) x; none: the plain mean (SWA).
    """

    decay: Ratio | None = None


class RunningMean(MergeStep, frozen=True, kw_only=True, tag="running_mean/v1"):
    """Stochastic weight averaging: avg + (x - avg) / (n + 1), one checkpoint after another."""

    params: RunningMeanParams = RunningMeanParams()
