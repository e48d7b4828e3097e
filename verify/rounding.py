"""Roundings and single operations whose bits do not depend on the device.

IEEE 754 add, subtract, multiply, divide and conversions are exact to the last bit on CPU and GPU when
each is its own kernel. What is not (fused multiply-add, double rounding through fp32) is built here from
those; square roots, which MKL rounds otherwise, in fixed_math.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor

DTYPES: Final[dict[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
STORED: Final[dict[str, torch.dtype]] = DTYPES | {
    "BOOL": torch.uint8,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E5M2": torch.uint8,
    "F8_E4M3": torch.uint8,
    "F8_E8M0": torch.uint8,
}
_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
#: The quiet NaN that `parentage-1` stores: payloads differ between devices, so none is kept.
_NAN_BITS: Final = {"F64": 0x7FF8 << 48, "F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}
#: Unit roundoff 2^-p, p the significand's precision in bits (IEEE 754-2019, table 3.5).
UNIT: Final = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
#: Smallest positive number: the absolute error that underflow can add to one operation.
TINY: Final = {"F64": 2.0**-1074, "F32": 2.0**-149, "F16": 2.0**-24, "BF16": 2.0**-133}


def bits(values: Tensor) -> Tensor:
    """Return the same storage as integers of the same width."""
    return values.view(_BITS[values.element_size()])


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Say whether two tensors of one dtype and size hold the same bits.

    On the CPU this is C's memcmp: torch compares 16-bit integers far slower.
    """
    if left.device.type != "cpu" or not (left.is_contiguous() and right.is_contiguous()):
        return torch.equal(bits(left), bits(right))
    if left.dtype != right.dtype or left.numel() != right.numel():
        return False
    size = left.numel() * left.element_size()
    return size == 0 or _memcmp()(left.data_ptr(), right.data_ptr(), size) == 0


@cache
def _memcmp() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).memcmp
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    function.restype = ctypes.c_int
    return cast("Callable[[int, int, int], int]", function)


def round_once(exact: Tensor, dtype: str) -> Tensor:
    """Round float64 values to `dtype`, to nearest, ties to even, once.

    torch converts float64 to bf16 and fp16 through fp32, which rounds twice. Rounding to odd in
    fp32 first makes the second rounding right (Boldo & Melquiond 2008, 24 >= p + 2).
    """
    if dtype == "F64":
        rounded = exact
    elif dtype == "F32":
        rounded = exact.to(torch.float32)
    else:
        rounded = to_odd(exact).to(DTYPES[dtype])
    # A NaN would survive in the sum: far cheaper than asking every element.
    if not bool(rounded.sum(dtype=torch.float32).isfinite()):
        missing = exact.isnan()
        rounded = rounded.clone()
        bits(rounded)[missing] = _NAN_BITS[dtype]
    return rounded


def to_odd(exact: Tensor) -> Tensor:
    """Round float64 to fp32 towards zero, and set the last bit where that was inexact."""
    nearest = exact.to(torch.float32)
    back = nearest.to(torch.float64)
    inexact = back != exact
    pattern = nearest.view(torch.int32)
    pattern.sub_((back.abs_() > exact.abs()).to(torch.int32))
    pattern.bitwise_or_(inexact.to(torch.int32))
    return nearest


@cache
def addcmul_is_fused() -> bool:
    """Say whether `torch.addcmul` on this CPU rounds once (AVX2/AVX-512 yes, plain SSE2 no)."""
    ones = torch.full((64,), 1.0 + 2.0**-12, dtype=torch.float32)
    minus = torch.full((64,), -(1.0 + 2.0**-11), dtype=torch.float32)
    return bool((torch.addcmul(minus, ones, ones) == 2.0**-24).all())


def fma(total: Tensor, values: Tensor, factor: float | Tensor) -> Tensor:
    """Return fp32 `total + values * factor`, rounded once; `total` may be overwritten.

    `factor` must be exact in fp32. On a device whose kernel is not fused the exact product is
    formed in float64, and the sum rounded to odd there (its error comes from TwoSum, Knuth 4.2.2).
    """
    if total.device.type == "cpu" and addcmul_is_fused():
        return total.addcmul_(values, torch.as_tensor(factor, dtype=torch.float32))
    product = values.to(torch.float64) * factor
    addend = total.to(torch.float64)
    rounded = product + addend
    virtual = rounded - product
    error = (product - (rounded - virtual)) + (addend - virtual)
    pattern = rounded.view(torch.int64)
    inexact = (error != 0) & rounded.isfinite()
    towards_zero = inexact & ((error < 0) != (rounded < 0))
    pattern.sub_(towards_zero.to(torch.int64))
    pattern.bitwise_or_(inexact.to(torch.int64))
    return rounded.to(torch.float32)


def fp32(value: float) -> float:
    """Round a Python float to fp32."""
    return float(torch.tensor(value, dtype=torch.float32).item())


def rounded(value: float, dtype: str) -> float:
    """Round a Python float to `dtype` as `torch.tensor(value, dtype=...)` does."""
    return float(torch.tensor(value, dtype=DTYPES[dtype]).item())


def dot64(parts: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Return c_1 x_1 + c_2 x_2 + ... in float64, each product and each sum rounded, in order."""
    total: Tensor | None = None
    for part, coefficient in zip(parts, coefficients, strict=True):
        # Two kernels, so that nothing fuses them; a fresh copy may be overwritten.
        fresh = part.dtype != torch.float64
        term = part.to(torch.float64).mul_(coefficient) if fresh else part * coefficient
        total = term if total is None else total.add_(term)
    if total is None:
        raise ValueError("a sum of nothing")
    return total
