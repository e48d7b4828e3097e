"""The steps of a recipe, typed: what each op reads and its exact parameters.

A step is computable (tensors moved, rounded or merged), `training`, or `opaque`; the last two are
declared and can only be checked for contradictions. The merge methods are in `merge_steps.py`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from parentage.manifest.adapter_steps import DoraMerge, LoraMerge
from parentage.manifest.checkpoint_steps import CheckpointMerge
from parentage.manifest.edit_steps import Abliterate, RunningMean
from parentage.manifest.layout_steps import Assemble, Layout, Tie
from parentage.manifest.merge_steps import (
    ArceeFusion,
    Karcher,
    ModelStock,
    MultiSlerp,
    NearSwap,
    NuSlerp,
    Ram,
    Sce,
    Slerp,
    TaskArithmetic,
    WeightedSum,
)
from parentage.manifest.quantise_steps import Cast, Quantise
from parentage.manifest.vocab_steps import VocabPermute, VocabResize
from parentage.manifest.wire import (
    Arithmetic,
    Glob,
    Hex,
    Id,
    Ratio,
    SelectParams,
    StepBase,
    Wire,
)


class Copy(StepBase, frozen=True, kw_only=True, tag="copy/v1"):
    """Some or all tensors of one input, unchanged."""

    params: SelectParams = SelectParams()


class RenameParams(Wire, frozen=True, kw_only=True):
    """Old name to new name; tensors not named keep theirs."""

    names: Annotated[dict[str, str], msgspec.Meta(min_length=1)]


class Rename(StepBase, frozen=True, kw_only=True, tag="rename/v1"):
    """The tensors of one input under other names."""

    params: RenameParams


class Slice(Wire, frozen=True, kw_only=True):
    """Layers [start, end) of one input."""

    input: Id
    start: Annotated[int, msgspec.Meta(ge=0, le=100_000)]
    end: Annotated[int, msgspec.Meta(ge=0, le=100_000)]


class Rest(Wire, frozen=True, kw_only=True):
    """Where tensors outside the layers come from; the first matching entry wins."""

    tensors: Glob
    input: Id


class LayerSelectParams(Wire, frozen=True, kw_only=True):
    """Slices stacked in order.

    Attributes:
        prefix: what stands before the layer number, e.g. "model.layers.".
        slices: stacked in order and renumbered from 0.
        rest: tensors outside the layers.
    """

    prefix: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    slices: Annotated[tuple[Slice, ...], msgspec.Meta(min_length=1, max_length=4096)]
    rest: tuple[Rest, ...] = ()


class LayerSelect(StepBase, frozen=True, kw_only=True, tag="layer_select/v1"):
    """Layers copied, duplicated or dropped (passthrough, depth up-scaling, pruning)."""

    params: LayerSelectParams


class ScaleOverride(Wire, frozen=True, kw_only=True):
    """Another factor for some tensors; the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    factor: Ratio


class ScaleParams(Wire, frozen=True, kw_only=True):
    """One factor for every float tensor; where it is 1 the tensor is copied."""

    factor: Ratio = "1"
    overrides: tuple[ScaleOverride, ...] = ()


class Scale(StepBase, frozen=True, kw_only=True, tag="scale/v1"):
    """The tensors of one input times a factor (a passthrough with `scale`)."""

    arithmetic: Arithmetic
    params: ScaleParams


class Material(Wire, frozen=True, kw_only=True):
    """A file or data set by digest."""

    sha256: Hex
    name: str = ""
    uri: str = ""


class Optimizer(Wire, frozen=True, kw_only=True):
    """An optimiser by its usual name and numbers (decimal strings)."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    betas: tuple[Ratio, Ratio] | None = None
    eps: Ratio | None = None
    weight_decay: Ratio | None = None


class TrainingRecord(Wire, frozen=True, kw_only=True):
    """What a training step declares.

    Attributes:
        method: "sft", "dpo", "on-policy-distillation", "continued-pretraining", ...
        steps: number of optimiser steps.
        optimizer: its name and constants.
        hyperparameters: the rest, as strings.
        sum_learning_rate: sum over all steps of the learning rate.
        sum_learning_rate_weight_decay: sum over all steps of learning rate x weight decay.
        data: digests of what was trained on; may be empty only if nothing was.
        program: digest of the code that ran.
        trainable: globs of the trained parameters; all others are declared frozen.
        tied_embeddings: whether input and output embeddings share one tensor.
        teacher: for distillation.
        log: digest of the step log.
    """

    method: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    steps: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    optimizer: Optimizer
    hyperparameters: dict[str, str]
    sum_learning_rate: Ratio
    sum_learning_rate_weight_decay: Ratio
    data: tuple[Material, ...]
    program: Material
    trainable: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    tied_embeddings: bool
    teacher: str = ""
    log: Material | None = None


class Training(StepBase, frozen=True, kw_only=True, tag="training/v1"):
    """A training run from the first input: declared, and checked only for contradictions."""

    training: TrainingRecord


class Opaque(StepBase, frozen=True, kw_only=True, tag="opaque/v1"):
    """Something that can't be recomputed; it caps the verdict at `unproven`."""

    description: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


Merge = (
    WeightedSum
    | TaskArithmetic
    | Slerp
    | NuSlerp
    | MultiSlerp
    | Karcher
    | ModelStock
    | Sce
    | NearSwap
    | ArceeFusion
    | Ram
    | RunningMean
    | CheckpointMerge
)
Moved = Copy | Rename | Tie | LayerSelect | Assemble | Layout | VocabResize | VocabPermute
Edit = Cast | Scale | LoraMerge | DoraMerge | Abliterate
Step = Moved | Edit | Quantise | Merge | Training | Opaque
DECLARED: Final = (Training, Opaque)
