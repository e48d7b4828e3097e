"""FP8 casts against fractions and ml_dtypes: every pattern, every tie, one rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError
from parentage.verify.engine import bind
from parentage.verify.fp8 import LARGEST, round_fp8, widen
from parentage.verify.values import Scratch

ML = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}
NAN = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7E}
BOTH = pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])


def finite(dtype: str) -> list[tuple[Fraction, int]]:
    """Every finite magnitude and its pattern, from the format's definition."""
    mantissa, bias = {"F8_E4M3": (3, 7), "F8_E5M2": (2, 15)}[dtype]
    found = []
    for pattern in range(0x7F if dtype == "F8_E4M3" else 0x7C):
        exponent, fraction = pattern >> mantissa, pattern & ((1 << mantissa) - 1)
        lead = Fraction(fraction, 1 << mantissa) + (1 if exponent else 0)
        found.append((lead * Fraction(2) ** (max(exponent, 1) - bias), pattern))
    return found


TABLES = {dtype: finite(dtype) for dtype in ML}


def nearest(value: Fraction, dtype: str, *, saturate: bool) -> int:
    """Round by searching the table: to nearest, ties to the even pattern."""
    table = TABLES[dtype]
    sign = 0x80 if value < 0 else 0
    size = abs(value)
    step = table[-1][0] - table[-2][0]
    if size >= table[-1][0] + step / 2 and not saturate:
        # The pattern after the last finite one is odd in neither format: E4M3 ties to 448.
        tie = size == table[-1][0] + step / 2
        if not (tie and table[-1][1] % 2 == 0):
            return NAN[dtype] if dtype == "F8_E4M3" else sign | 0x7C
    best = min(table, key=lambda row: (abs(row[0] - size), row[1] % 2))
    return sign | best[1]


@BOTH
def test_widening_every_pattern(dtype: str) -> None:
    patterns = torch.arange(256, dtype=torch.uint8)

    got = widen(patterns, dtype).numpy()

    expected = patterns.numpy().view(ML[dtype]).astype(np.float32)
    assert np.array_equal(got, expected, equal_nan=True)
    for value, pattern in TABLES[dtype]:
        assert Fraction(float(got[pattern])) == value


@BOTH
@pytest.mark.parametrize("saturate", [False, True])
def test_every_number_every_tie_and_their_neighbours(dtype: str, saturate: bool) -> None:
    points = [value for value, _ in TABLES[dtype]]
    points.append(points[-1] + (points[-1] - points[-2]))
    middles = [(a + b) / 2 for a, b in itertools.pairwise(points)]
    exact: list[float] = []
    for point in points + middles:
        at = float(point)
        exact += [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf), -at]
    exact = [value for value in exact if value != 0]

    got = round_fp8(torch.tensor(exact, dtype=torch.float64), dtype, saturate=saturate).tolist()

    assert got == [nearest(Fraction(v), dtype, saturate=saturate) for v in exact]


@BOTH
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_rounds_once(dtype: str, value: float) -> None:
    for saturate in (False, True):
        got = int(round_fp8(torch.tensor([value], dtype=torch.float64), dtype, saturate=saturate))
        expected = nearest(Fraction(value), dtype, saturate=saturate)
        assert got == (0x80 if value == 0 and np.signbit(value) else expected)


@BOTH
def test_special_values(dtype: str) -> None:
    exact = torch.tensor([np.inf, -np.inf, np.nan, -0.0], dtype=torch.float64)

    plain = round_fp8(exact, dtype).tolist()
    saturated = round_fp8(exact, dtype, saturate=True).tolist()

    largest = TABLES[dtype][-1][1]
    none = [0x7F, 0x7F] if dtype == "F8_E4M3" else [0x7C, 0xFC]
    assert plain == [*none, NAN[dtype], 0x80]
    assert saturated == [largest, 0x80 | largest, NAN[dtype], 0x80]


def cast(
    step: Any, source: Any, values: torch.Tensor, profile: str, store: str, **params: Any
) -> Any:
    made = step(
        op="cast/v1",
        inputs=["a"],
        arithmetic={"profile": profile, "store": store},
        params=params,
    )
    bound = bind([made], {"a": source({"w": values})})["s"]
    assert bound.specs["w"].dtype == store
    method = bound.method
    scratch = Scratch(torch.device("cpu"))
    return method.chunk("w", 0, values.numel(), method.variants[0], scratch).clone()


@BOTH
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_cast_agrees_with_ml_dtypes(source: Any, step: Any, dtype: str, kind: torch.dtype) -> None:
    values = (torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 100).to(kind)

    got = cast(step, source, values, "parentage-1", dtype).numpy()

    expected = values.float().numpy().astype(ML[dtype])
    same = got == expected.view(np.uint8)
    assert same[np.isfinite(expected.astype(np.float32))].all()


@BOTH
def test_torch_profile_is_torch(source: Any, step: Any, dtype: str) -> None:
    """Versions of torch differ beyond the largest number: each is one of the two claims."""
    values = torch.randn(4000, generator=torch.Generator().manual_seed(2)) * 300
    values[:6] = torch.tensor([np.inf, -np.inf, -1e9, 464.0, 480.0, np.nan])
    kind = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[dtype]

    plain = cast(step, source, values, "torch", dtype)
    clamped = cast(step, source, values, "torch", dtype, overflow="saturate")

    real = values.to(kind).view(torch.uint8)
    assert torch.equal(real, plain) or torch.equal(real, clamped)
    largest = LARGEST[dtype]
    assert torch.equal(clamped, values.clamp(-largest, largest).to(kind).view(torch.uint8))
    inside = values.abs() <= largest
    assert torch.equal(plain[inside], real[inside])


def test_float64_is_rounded_once_by_ours_and_twice_by_torch(source: Any, step: Any) -> None:
    # Just above the middle of 1 and 1.125, by less than fp32 can hold.
    values = torch.tensor([1.0625 + 2.0**-40], dtype=torch.float64)

    assert widen(cast(step, source, values, "parentage-1", "F8_E4M3"), "F8_E4M3").item() == 1.125
    assert widen(cast(step, source, values, "torch", "F8_E4M3"), "F8_E4M3").item() == 1.0


@BOTH
def test_overflow_is_part_of_the_claim(source: Any, step: Any, dtype: str) -> None:
    values = torch.tensor([1e6, -1e6, 1.0])

    plain = cast(step, source, values, "parentage-1", dtype)
    saturated = cast(step, source, values, "parentage-1", dtype, overflow="saturate")

    assert plain[2] == saturated[2]
    assert (plain[:2] != saturated[:2]).all()


def test_fp8_is_widened_exactly(source: Any, step: Callable[..., Any]) -> None:
    values = torch.randn(300).to(torch.float8_e4m3fn)

    got = cast(step, source, values, "parentage-1", "BF16")

    assert torch.equal(got, values.to(torch.bfloat16))


def test_other_ops_store_no_fp8(step: Any) -> None:
    with pytest.raises(RecipeError, match="not a recipe"):
        step(
            op="weighted_sum/v1",
            inputs=["a", "b"],
            params={"weights": ["1", "1"], "normalize": True},
            arithmetic={"profile": "parentage-1", "store": "F8_E4M3"},
        )
