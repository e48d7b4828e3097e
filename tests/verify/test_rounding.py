"""Roundings against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parentage.verify import rounding

FORMATS = {"F32": (24, -126), "F16": (11, -14), "BF16": (8, -126)}


def nearest_even(value: float, dtype: str) -> float:
    """Round a float64 by fractions: quantum of the binade, ties to even, overflow to infinity."""
    if not math.isfinite(value) or value == 0:
        return value
    precision, low = FORMATS[dtype]
    exponent = max(math.frexp(abs(value))[1] - 1, low)
    quantum = Fraction(2) ** (exponent - precision + 1)
    units = round(Fraction(abs(value)) / quantum)  # round() of a Fraction is half to even
    result = units * quantum
    top = {"F32": 127, "F16": 15, "BF16": 127}[dtype]
    if result >= Fraction(2) ** (top + 1):
        return math.copysign(math.inf, value)
    return math.copysign(float(result), value)


@pytest.mark.parametrize("dtype", FORMATS)
@given(st.floats(width=64, allow_nan=False))
def test_round_once_is_the_nearest_value(dtype: str, value: float) -> None:
    rounded = rounding.round_once(torch.tensor([value], dtype=torch.float64), dtype)

    expected = nearest_even(value, dtype)
    assert float(rounded) == expected
    assert math.copysign(1, float(rounded)) == math.copysign(1, expected)


@pytest.mark.parametrize(
    ("dtype", "value"), [("BF16", 1 + 2**-8 + 2**-40), ("F16", 1 + 2**-11 + 2**-40)]
)
def test_round_once_does_not_round_twice(dtype: str, value: float) -> None:
    # Through fp32 the last bit is lost first, and the tie then goes to even: down instead of up.
    exact = torch.tensor([value], dtype=torch.float64)

    once = rounding.round_once(exact, dtype)

    assert float(once) > 1
    assert float(exact.to(torch.float32).to(rounding.DTYPES[dtype])) == 1


def test_nan_has_one_pattern() -> None:
    payloads = torch.tensor([0x7FF0000000000001, -1], dtype=torch.int64).view(torch.float64)

    assert rounding.bits(rounding.round_once(payloads, "BF16")).tolist() == [0x7FC0, 0x7FC0]
    assert rounding.bits(rounding.round_once(payloads, "F32")).tolist() == [0x7FC00000] * 2


def exact_fma(total: float, value: float, factor: float) -> float:
    exact = Fraction(total) + Fraction(value) * Fraction(factor)
    near = float(exact)
    if Fraction(near) == exact:
        return nearest_even(near, "F32")
    # Round to odd in float64, so that the second rounding is right.
    other = math.nextafter(near, math.inf if exact > Fraction(near) else -math.inf)
    odd = near if np.float64(near).view(np.int64) & 1 else other
    return nearest_even(float(odd), "F32")


floats32 = st.floats(width=32, min_value=-(2.0**60), max_value=2.0**60, allow_subnormal=False)


@pytest.mark.parametrize("fused", [True, False])
@given(floats32, floats32, floats32)
def test_fma_rounds_once_with_and_without_hardware(
    fused: bool, total: float, value: float, factor: float
) -> None:
    if fused and not rounding.addcmul_is_fused():
        pytest.skip("this CPU has no fused addcmul")
    original = rounding.addcmul_is_fused
    rounding.addcmul_is_fused = lambda: fused  # type: ignore[assignment]
    try:
        got = rounding.fma(torch.full((9,), total), torch.full((9,), value), factor)
    finally:
        rounding.addcmul_is_fused = original

    expected = exact_fma(total, value, factor)
    assert got.tolist() == [expected] * 9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_round_once_and_fma_have_the_same_bits_on_cuda() -> None:
    generator = torch.Generator().manual_seed(0)
    exact = torch.randn(1 << 20, dtype=torch.float64, generator=generator)
    for dtype in FORMATS:
        cpu, gpu = rounding.round_once(exact, dtype), rounding.round_once(exact.cuda(), dtype)
        assert torch.equal(rounding.bits(cpu), rounding.bits(gpu.cpu()))
    single = exact.to(torch.float32)
    cpu = rounding.fma(single.clone(), single.flip(0), 0.6000000238418579)
    gpu = rounding.fma(single.cuda(), single.flip(0).cuda(), 0.6000000238418579)
    assert torch.equal(cpu, gpu.cpu())


@given(st.binary(max_size=64), st.binary(max_size=64), st.sampled_from(list(rounding.DTYPES)))
def test_same_bits_is_equality_of_bytes(left: bytes, right: bytes, dtype: str) -> None:
    """NaN equals itself, 0.0 is not -0.0: equality of bytes, as Python sees it."""
    width = rounding.DTYPES[dtype].itemsize

    def tensor(data: bytes) -> torch.Tensor:
        whole = data[: len(data) // width * width]
        return torch.tensor(list(whole), dtype=torch.uint8).view(rounding.DTYPES[dtype])

    a, b = tensor(left), tensor(right)
    same = left[: a.numel() * width] == right[: b.numel() * width]

    assert rounding.same_bits(a, b) == same
    assert rounding.same_bits(a, a.clone())
    if a.numel() == b.numel():
        assert rounding.same_bits(a[::2], b[::2]) == rounding.same_bits(
            a[::2].clone(), b[::2].clone()
        )
