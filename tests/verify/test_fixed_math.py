"""Elementary functions against mpmath: the errors that their docstring states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parentage.verify import fixed_math


def off(
    function: Callable[[torch.Tensor], torch.Tensor],
    exact: Callable[[Any], Any],
    x: float,
    unit: float | None = None,
) -> float:
    """Return an error in ulps of the exact result, or in `unit`."""
    with mpmath.workprec(200):
        right = exact(mpmath.mpf(x))
        wrong = mpmath.mpf(function(torch.tensor([x], dtype=torch.float64)).item()) - right
        return float(abs(wrong) / (unit or math.ulp(float(right))))


@given(st.floats(2.0**-1000, 2.0**1000))
def test_square_root(x: float) -> None:
    assert off(fixed_math.sqrt, mpmath.sqrt, x) <= 1.5


@given(st.floats(-740, 709))
def test_exponential(x: float) -> None:
    assert off(fixed_math.exp, mpmath.exp, x) <= 1.5


@given(st.floats(2.0**-1022, 1e308) | st.floats(0.99, 1.01))
def test_logarithm(x: float) -> None:
    assert off(fixed_math.log, mpmath.log, x) <= 3


@given(st.floats(-(2.0**19), 2.0**19) | st.floats(-7, 7))
def test_sine_and_cosine(x: float) -> None:
    assert off(fixed_math.sin, mpmath.sin, x, 2.0**-52) <= 1
    assert off(fixed_math.cos, mpmath.cos, x, 2.0**-52) <= 1


@given(st.floats(1e-9, 3.0))
def test_sine_of_an_angle_is_relatively_close(x: float) -> None:
    assert off(fixed_math.sin, mpmath.sin, x) <= 2


@given(st.floats(-1, 1) | st.floats(1 - 1e-9, 1))
def test_arc_cosine(x: float) -> None:
    assert off(fixed_math.acos, mpmath.acos, x) <= 6


@pytest.mark.parametrize(
    ("function", "given_", "expected"),
    [
        (fixed_math.sqrt, [0.0, math.inf, -1.0, math.nan], [0.0, math.inf, math.nan, math.nan]),
        (fixed_math.exp, [0.0, -math.inf, -800.0, math.nan], [1.0, 0.0, 0.0, math.nan]),
        (fixed_math.log, [1.0, 0.0, -1.0, math.inf, math.nan], [0.0] + [math.nan] * 4),
        (fixed_math.sin, [0.0, 1e6, math.inf, math.nan], [0.0] + [math.nan] * 3),
        (fixed_math.cos, [0.0, 1e6, -math.inf, math.nan], [1.0] + [math.nan] * 3),
        (fixed_math.acos, [1.0, -1.0, 1.5, math.nan], [0.0, math.pi, math.nan, math.nan]),
    ],
)
def test_ends(function: Any, given_: list[float], expected: list[float]) -> None:
    got = function(torch.tensor(given_, dtype=torch.float64))

    assert torch.equal(
        got.nan_to_num(nan=-7), torch.tensor(expected, dtype=torch.float64).nan_to_num(nan=-7)
    )
