"""The steps of a recipe, typed: what each op reads and its exact parameters.

Every parameter is exact: a ratio is a decimal string or a hex float, never a JSON number. A step is
computable (copy, rename, cast, layer_select, weighted_sum, slerp, lora_merge), `training`, or
`opaque`; the last two are declared and can only be checked for contradictions.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

if TYPE_CHECKING:
    from fractions import Fraction

# Python's "$" also matches before a final newline; "$(?!\n)" does not, and ECMA 262 reads it alike.
Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$(?!\n)")]
Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Ratio = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^-?(?:(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,60})?|0x[01]\.[0-9a-f]{1,13}p[+-]?[0-9]{1,3})$(?!\n)",
        description="an exact number: decimal ('0.6') or hex float ('0x1.8p-1'), in quotes",
    ),
]
Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
FloatDtype = Literal["F64", "F32", "F16", "BF16"]
ProfileName = Literal["parentage-1", "mk-0.1.5", "mk-0.1.4", "peft"]
DigestSet = dict[Literal["ptd1-b3", "ptd1-sha256"], Hex]


class Wire(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    rename="camel",
):
    """What all wire structures share: closed, immutable, camelCase."""


class Arithmetic(Wire, frozen=True, kw_only=True):
    """The engine profile of a step.

    Attributes:
        profile: named arithmetic; docs/engines.md gives each, operation by operation.
        compute: mergekit's `dtype`; only for the mk profiles. None: the inputs' own dtype.
        store: dtype of the output. None: `compute`, else the first input's dtype.
    """

    profile: ProfileName
    compute: FloatDtype | None = None
    store: FloatDtype | None = None


class _Step(Wire, frozen=True, kw_only=True, tag_field="op"):
    """Fields of every step.

    Attributes:
        id: unique among parents and steps.
        inputs: ids of parents or earlier steps, in the order that the op reads them.
        output: weights root of the step's output, by digest profile.
    """

    id: Id
    inputs: Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=64)]
    output: DigestSet | None = None


class SelectParams(Wire, frozen=True, kw_only=True):
    """Which tensors: `*` in a glob matches any run of characters."""

    include: tuple[Glob, ...] = ("*",)
    exclude: tuple[Glob, ...] = ()


class Copy(_Step, frozen=True, kw_only=True, tag="copy/v1"):
    """Some or all tensors of one input, unchanged."""

    params: SelectParams = SelectParams()


class RenameParams(Wire, frozen=True, kw_only=True):
    """Old name to new name; tensors not named keep theirs."""

    names: Annotated[dict[str, str], msgspec.Meta(min_length=1)]


class Rename(_Step, frozen=True, kw_only=True, tag="rename/v1"):
    """The tensors of one input under other names."""

    params: RenameParams


class Cast(_Step, frozen=True, kw_only=True, tag="cast/v1"):
    """Float tensors rounded to another dtype (to nearest, ties to even); the others are copied."""

    arithmetic: Arithmetic
    params: SelectParams = SelectParams()


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


class LayerSelect(_Step, frozen=True, kw_only=True, tag="layer_select/v1"):
    """Layers copied, duplicated or dropped (passthrough, depth up-scaling, pruning)."""

    params: LayerSelectParams


class WeightsOverride(Wire, frozen=True, kw_only=True):
    """Other weights for some tensors; the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    weights: tuple[Ratio, ...]


class WeightedSumParams(Wire, frozen=True, kw_only=True):
    """Linear merge, soup, add-difference (no base) or task arithmetic (with base).

    Without base: sum(w_i x_i), divided by sum(w_i) if `normalize`.
    With base b:  b + scale * sum(w_i (x_i - b)), the sum divided by sum(w_i) if `normalize`.

    Attributes:
        weights: one for each input that is not the base, in order.
        normalize: whether to divide by the sum of the weights.
        base: the input that task vectors are taken from.
        scale: mergekit's `lambda`; only with a base.
        overrides: other weights for some tensors.
    """

    weights: Annotated[tuple[Ratio, ...], msgspec.Meta(min_length=1, max_length=64)]
    normalize: bool
    base: Id | None = None
    scale: Ratio = "1"
    overrides: tuple[WeightsOverride, ...] = ()


class WeightedSum(_Step, frozen=True, kw_only=True, tag="weighted_sum/v1"):
    """A linear combination of inputs of one architecture."""

    arithmetic: Arithmetic
    params: WeightedSumParams


class SlerpOverride(Wire, frozen=True, kw_only=True):
    """Another t for some tensors; the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    t: Ratio


class SlerpParams(Wire, frozen=True, kw_only=True):
    """Spherical interpolation from the first input (t = 0) to the second (t = 1), per tensor."""

    t: Ratio
    overrides: tuple[SlerpOverride, ...] = ()


class Slerp(_Step, frozen=True, kw_only=True, tag="slerp/v1"):
    """Shoemake's slerp over whole tensors, lerp where |cos| > 0.9995 (as mergekit does)."""

    arithmetic: Arithmetic
    params: SlerpParams


class LoraParams(Wire, frozen=True, kw_only=True):
    """W + s B A, s = alpha / r (LoRA) or alpha / sqrt(r) (rsLoRA).

    Attributes:
        alpha: `lora_alpha` of the adapter.
        rs_lora: whether `use_rslora` was set.
        prefix: what the adapter's names carry before the base's names.
        fan_in_fan_out: whether W is stored transposed (in, out).
    """

    alpha: Ratio
    rs_lora: bool = False
    prefix: str = "base_model.model."
    fan_in_fan_out: bool = False


class LoraMerge(_Step, frozen=True, kw_only=True, tag="lora_merge/v1"):
    """An adapter (second input) folded into a model (first input)."""

    arithmetic: Arithmetic
    params: LoraParams


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


class Training(_Step, frozen=True, kw_only=True, tag="training/v1"):
    """A training run from the first input: declared, and checked only for contradictions."""

    training: TrainingRecord


class Opaque(_Step, frozen=True, kw_only=True, tag="opaque/v1"):
    """Something that can't be recomputed; it caps the verdict at `unproven`."""

    description: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


Step = Copy | Rename | Cast | LayerSelect | WeightedSum | Slerp | LoraMerge | Training | Opaque
DECLARED: Final = (Training, Opaque)


def ratio(text: str) -> Fraction:
    """Return the exact value of a `Ratio`."""
    from fractions import Fraction

    negative = text.startswith("-")
    body = text.removeprefix("-")
    value = Fraction(float.fromhex(body)) if body.startswith("0x") else Fraction(body)
    return -value if negative else value


def matches(name: str, globs: tuple[str, ...]) -> bool:
    """Say whether a tensor name matches one of `globs`; only `*` is special."""
    return any(
        glob == "*" or fnmatchcase(name, glob.replace("[", "[[]").replace("?", "[?]"))
        for glob in globs
    )
