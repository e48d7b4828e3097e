"""Roundings to fewer bits as steps: casts, INT8 and FP8, NF4, and the block types of GGUF.

Every choice that moves a bit is a parameter: docs/engines.md gives the arithmetic of each.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from parentage.manifest.wire import (
    FloatDtype,
    ProfileName,
    Ratio,
    SelectParams,
    StepBase,
    Wire,
)

Fp8 = Literal["F8_E4M3", "F8_E5M2"]
Overflow = Literal["infinity", "saturate"]
#: What tensors of a quantised one are called: its own name stands in for the braces.
Template = Annotated[str, msgspec.Meta(pattern=r"^[^{}]*\{\}[^{}]*$(?!\n)", max_length=256)]


class CastArithmetic(Wire, frozen=True, kw_only=True):
    """How a cast rounds.

    Attributes:
        profile: "parentage-1" rounds once; "torch" through fp32; the others as "parentage-1".
        store: dtype of the output.
        compute: has no part in a cast.
    """

    profile: ProfileName
    store: FloatDtype | Fp8 | None = None
    compute: FloatDtype | None = None


class CastParams(SelectParams, frozen=True, kw_only=True):
    """Which tensors, and what becomes of numbers beyond the largest of an FP8 dtype.

    Attributes:
        overflow: "infinity": as IEEE 754 has it, NaN in E4M3, which has none (torch, ml_dtypes);
            "saturate": the largest finite number, of infinities too (ONNX, CUDA's satfinite).
    """

    overflow: Overflow = "infinity"


class Cast(StepBase, frozen=True, kw_only=True, tag="cast/v1"):
    """Float tensors rounded to another dtype (to nearest, ties to even); the others are copied."""

    arithmetic: CastArithmetic
    params: CastParams = CastParams()


class QuantiseArithmetic(Wire, frozen=True, kw_only=True):
    """How scales and quotients are computed.

    Attributes:
        profile: "parentage-1": in float64. "torch": every operation rounded to `compute`.
        compute: only for "torch"; F32 by default.
        scale: dtype that scales are stored in.
    """

    profile: ProfileName
    compute: FloatDtype | None = None
    scale: FloatDtype = "F32"


class QuantiseRtnParams(SelectParams, frozen=True, kw_only=True):
    """Symmetric rounding to nearest: s = max|x| / limit, q = RN(x / s).

    Attributes:
        dtype: of q.
        axis: one scale for each index of this dimension (may be negative).
        group: one scale for each run of this many elements of the last dimension. Neither: one scale.
        limit: 127 or 127.5 for I8; 448 for F8_E4M3; 57344 for F8_E5M2.
        scale_by: s = RN(max / limit), or RN(max x RN(1 / limit)).
        quotient: "x/s"; "x*(1/s)", 1 / s rounded first; "x*(limit/max)", limit / max rounded first;
            "x*(limit*(1/max))", both rounded (torch's `limit / max`).
        using: the scale of the quotient: as "stored", or as "computed" before it was rounded to store.
        floor: scales below are raised to it, before they are stored.
        zero: the scale where it would be 0.
        clamp: least and greatest quotient; the range of `dtype` by default.
        ties: of I8, to "even" or "away" from zero.
        values, scales: names of the tensors that are made.
        keep_dimensions: whether a scale tensor has as many dimensions as its tensor.
    """

    dtype: Literal["I8", "F8_E4M3", "F8_E5M2"]
    limit: Ratio
    axis: Annotated[int, msgspec.Meta(ge=-255, le=255)] | None = None
    group: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None
    scale_by: Literal["divide", "reciprocal"] = "divide"
    quotient: Literal["x/s", "x*(1/s)", "x*(limit/max)", "x*(limit*(1/max))"] = "x/s"
    using: Literal["stored", "computed"] = "stored"
    floor: Ratio = "0"
    zero: Ratio = "1"
    clamp: tuple[Ratio, Ratio] | None = None
    ties: Literal["even", "away"] = "even"
    values: Template = "{}"
    scales: Template = "{}_scale"
    keep_dimensions: bool = False


class QuantiseRtn(StepBase, frozen=True, kw_only=True, tag="quantise_rtn/v1"):
    """Float tensors as I8 or FP8 with scales; the others are copied."""

    arithmetic: QuantiseArithmetic
    params: QuantiseRtnParams


class Nf4Arithmetic(Wire, frozen=True, kw_only=True):
    """How codes are found: "parentage-1" in float64, "bnb-0.50" as bitsandbytes on CPU, in fp32."""

    profile: ProfileName


class QuantiseNf4Params(SelectParams, frozen=True, kw_only=True):
    """Blocks of the flattened tensor, each divided by its largest magnitude (no nested statistics).

    Attributes:
        block: elements of a block.
    """

    block: Literal[64, 128, 256, 512, 1024, 2048, 4096] = 64


class QuantiseNf4(StepBase, frozen=True, kw_only=True, tag="quantise_nf4/v1"):
    """Float tensors as 4-bit NormalFloat, in the tensors that bitsandbytes saves."""

    arithmetic: Nf4Arithmetic
    params: QuantiseNf4Params = QuantiseNf4Params()


class GgufArithmetic(Wire, frozen=True, kw_only=True):
    """How blocks are made: "ggml", its reference quantisers, with or without fused multiply-add."""

    profile: ProfileName


class QuantiseGgufParams(SelectParams, frozen=True, kw_only=True):
    """Which tensors, as blocks of what type."""

    dtype: Literal["Q8_0", "Q4_0"]


class QuantiseGguf(StepBase, frozen=True, kw_only=True, tag="quantise_gguf/v1"):
    """Float tensors as GGUF blocks of 32 along the last dimension; the others are copied."""

    arithmetic: GgufArithmetic
    params: QuantiseGgufParams


Quantise = QuantiseRtn | QuantiseNf4 | QuantiseGguf
QUANTISE: Final = (QuantiseRtn, QuantiseNf4, QuantiseGguf)
