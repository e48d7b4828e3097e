"""Adapters folded into a model: LoRA, rsLoRA and DoRA as steps."""

from __future__ import annotations

from typing import Annotated

import msgspec

from parentage.manifest.wire import Arithmetic, Glob, Ratio, StepBase, Wire


class AlphaOverride(Wire, frozen=True, kw_only=True):
    """Another alpha for some tensors (`alpha_pattern`); the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    alpha: Ratio


class LoraParams(Wire, frozen=True, kw_only=True):
    """s B A, s = alpha / r (LoRA) or alpha / sqrt(r) (rsLoRA).

    r is that of each pair of factors, so that a `rank_pattern` needs no field.

    Attributes:
        alpha: `lora_alpha` of the adapter.
        rs_lora: whether `use_rslora` was set.
        prefix: what the adapter's names carry before the base's names.
        fan_in_fan_out: whether W is stored transposed (in, out).
        overrides: other alphas, by the base's names.
    """

    alpha: Ratio
    rs_lora: bool = False
    prefix: str = "base_model.model."
    fan_in_fan_out: bool = False
    overrides: tuple[AlphaOverride, ...] = ()


class LoraMerge(StepBase, frozen=True, kw_only=True, tag="lora_merge/v1"):
    """An adapter (second input) folded into a model (first input): W + s B A."""

    arithmetic: Arithmetic
    params: LoraParams


class DoraMerge(StepBase, frozen=True, kw_only=True, tag="dora_merge/v1"):
    """The same with magnitudes m, one a row: m (W + s B A) / |W + s B A|."""

    arithmetic: Arithmetic
    params: LoraParams
