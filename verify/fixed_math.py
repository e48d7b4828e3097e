"""sqrt, exp, log, sin, cos and acos as fixed sequences of float64 operations: the same bits on any device.

The last bits of libm, CUDA and MKL differ; even torch's square root is not IEEE's where MKL computes
it. Here every step is one IEEE 754 addition, multiplication, division or rounding to a whole number, each
its own kernel, so nothing fuses; polynomials are Horner's, with Taylor's coefficients rounded to float64.
docs/parentage-1.md gives them step by step.

Errors (tests/verify/test_fixed_math.py holds them): sqrt and exp 1.5 ulps, log 3, acos 6, sin and cos
2^-52 absolute. Numbers are tensors, never scalars, where they divide: a device may multiply by 1 / scalar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

#: ln 2 in two parts; the first has 21 trailing zero bits, so that k * part is exact for |k| < 2^20.
_LN2_HIGH: Final = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
_LOG2_E: Final = float.fromhex("0x1.71547652b82fep+0")
#: pi / 2 in three parts of 33, 33 and 53 bits.
_HALF_PI: Final = (
    float.fromhex("0x1.921fb54400000p+0"),
    float.fromhex("0x1.0b4611a600000p-34"),
    float.fromhex("0x1.3198a2e037073p-69"),
)
_TWO_OVER_PI: Final = float.fromhex("0x1.45f306dc9c883p-1")
_MAGIC: Final = float.fromhex("0x1.8p52")
#: sin and cos take |x| up to here: k * part of pi / 2 stays exact.
LARGEST_ANGLE: Final = 2.0**19
_EXP: Final = [1 / math.factorial(n) for n in range(14)]
_SIN: Final = [(-1) ** n / math.factorial(2 * n + 1) for n in range(9)]
_COS: Final = [(-1) ** n / math.factorial(2 * n) for n in range(9)]
_ATANH: Final = [1 / (2 * n + 1) for n in range(12)]
_ATAN: Final = [(-1) ** n / (2 * n + 1) for n in range(10)]


def sqrt(x: Tensor) -> Tensor:
    """Return the square root of float64 x >= 0 by Heron's method; NaN below 0."""
    # Half the exponent: within 6.1 % for normal numbers, and each step squares the error.
    root = ((x.view(torch.int64) >> 1) + 0x1FF8_0000_0000_0000).view(torch.float64)
    for _ in range(4):
        root = (root + x / root) * 0.5
    return torch.where(x > 0, torch.where(x < math.inf, root, x), torch.where(x == 0, x, math.nan))


def exp(x: Tensor) -> Tensor:
    """Return e^x for float64 x <= 709; below -745 it is 0."""
    held = x.clamp(min=-746.0, max=709.0)
    k = _whole(held * _LOG2_E)
    rest = (held - k * _LN2_HIGH) - k * _LN2_LOW
    # Two powers: 2^k alone may be too small for a normal number.
    half = (k * 0.5).floor()
    out = _horner(rest, _EXP) * _power(half) * _power(k - half)
    return torch.where(x.isnan(), x, out)


def log(x: Tensor) -> Tensor:
    """Return ln x for positive, finite, normal float64 x; NaN for others."""
    pattern = x.view(torch.int64)
    # Exponents are counted from sqrt(1/2), so that the significand is in [sqrt(1/2), sqrt(2)).
    k = (pattern - _ROOT_HALF) >> 52
    m = (pattern - (k << 52)).view(torch.float64)
    s = (m - 1.0) / (m + 1.0)
    series = _horner(s * s, _ATANH) * s
    k = k.to(torch.float64)
    out = k * _LN2_HIGH + (k * _LN2_LOW + (series + series))
    usable = (x >= 2.0**-1022) & (x < math.inf)
    return torch.where(usable, out, math.nan)


_ROOT_HALF: Final = 0x3FE6A09E667F3BCD


def sin(x: Tensor) -> Tensor:
    """Return sin x for float64 |x| <= `LARGEST_ANGLE`; NaN beyond."""
    return _wave(x, 0)


def cos(x: Tensor) -> Tensor:
    """Return cos x for float64 |x| <= `LARGEST_ANGLE`; NaN beyond."""
    return _wave(x, 1)


def _wave(x: Tensor, quarters: int) -> Tensor:
    usable = x.abs() <= LARGEST_ANGLE
    held = torch.where(usable, x, 0.0)
    k = _whole(held * _TWO_OVER_PI)
    rest = ((held - k * _HALF_PI[0]) - k * _HALF_PI[1]) - k * _HALF_PI[2]
    square = rest * rest
    sine, cosine = _horner(square, _SIN) * rest, _horner(square, _COS)
    quarter = (k.to(torch.int64) + quarters) & 3
    out = torch.where((quarter & 1) == 0, sine, cosine)
    out = torch.where(quarter >= 2, -out, out)
    return torch.where(usable, out, math.nan)


def acos(c: Tensor) -> Tensor:
    """Return arccos c = 2 atan(sqrt((1 - c) / (1 + c))) for float64 c in [-1, 1]; NaN beyond."""
    low, high = 1.0 - c.abs(), 1.0 + c.abs()
    x = sqrt(low / high)  # of |c|: at most 1
    for _ in range(3):
        x = x / (sqrt(x * x + 1.0) + 1.0)
    angle = _horner(x * x, _ATAN) * x * 16.0
    return torch.where(c < 0, (_HALF_PI[0] * 2.0 - angle) + _HALF_PI[1] * 2.0, angle)


def _whole(x: Tensor) -> Tensor:
    """Round to the nearest whole number, ties to even, for |x| < 2^51."""
    return (x + _MAGIC) - _MAGIC


def _power(k: Tensor) -> Tensor:
    """Return 2^k for whole k in [-1022, 1023]."""
    return ((k.to(torch.int64) + 1023) << 52).view(torch.float64)


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
