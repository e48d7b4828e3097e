"""Rung B: an engine whose reductions came out otherwise is found out; no witness hides a false claim."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError
from parentage.verify import witness
from parentage.verify.engine import bind
from parentage.verify.recompute import compare
from parentage.verify.values import Scratch
from parentage.verify.verdict import ENOUGH, Rung
from parentage.verify.witness import Bounds, Budget, nudged

CPU = torch.device("cpu")
NUSLERP = {
    "op": "nuslerp/v1",
    "inputs": ["a", "b"],
    "params": {"weights": ["0.6", "0.3"]},
    "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"},
}


def siblings(distance: float = 0.3, elements: int = 4096) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(elements, generator=generator)
    return {"a": a, "b": a + distance * torch.randn(elements, generator=generator)}


def made_by_an_engine_with(
    cosine_off: float, source: Any, step: Any, fields: dict[str, Any] = NUSLERP
) -> tuple[Any, Any]:
    """What mergekit stores where its reduction gives another cosine; by numpy, not by the method."""
    parts = siblings()
    a, b = parts["a"].numpy(), parts["b"].numpy()
    cosine = np.float32(a.astype(float) @ b / np.linalg.norm(a) / np.linalg.norm(b))
    theta = torch.acos(torch.tensor(cosine * np.float32(1 + cosine_off)))
    t = 0.3 / (0.6 + 0.3)
    mixed = torch.sin((1 - t) * theta) * parts["a"] + torch.sin(t * theta) * parts["b"]
    release = source({"w": mixed / torch.sin(theta)})
    inputs = {name: source({"w": part}) for name, part in parts.items()}
    return release, bind([step(**fields)], inputs)["s"]


@pytest.mark.parametrize("off", [0.0, 3e-7, -2e-6, 1e-4, -4e-3])
def test_another_reduction_is_witnessed_and_its_distance_told(
    engine: Any, source: Any, step: Any, off: float
) -> None:
    release, bound = made_by_an_engine_with(off, source, step)

    (found,) = compare(engine, release, bound)

    assert found.rung in ENOUGH["B"]
    if found.rung == Rung.WITNESSED:
        assert found.witness["cos"].deviation == pytest.approx(abs(off), abs=2e-7)


@pytest.mark.parametrize("off", [0.02, -0.05])
def test_a_scalar_beyond_its_bound_is_no_witness(
    engine: Any, source: Any, step: Any, off: float
) -> None:
    release, bound = made_by_an_engine_with(off, source, step)

    (found,) = compare(engine, release, bound)

    assert found.rung not in ENOUGH["C"]


@pytest.mark.parametrize("published", ["0x1.0p-1", "0x1.9p+0", "-0x1.0p-1"])
def test_a_published_scalar_beyond_its_bound_is_not_believed(
    engine: Any, source: Any, step: Any, published: str
) -> None:
    fields = NUSLERP | {"witness": {"w": {"cos": published}}}
    release, bound = made_by_an_engine_with(3e-7, source, step, fields)

    (found,) = compare(engine, release, bound)

    assert found.rung in ENOUGH["B"]
    assert not found.witness or found.witness["cos"].value != published


def test_one_other_element_is_never_witnessed(engine: Any, source: Any, step: Any) -> None:
    release, bound = made_by_an_engine_with(1e-6, source, step)
    values = release.read("w", 0, 4096, Scratch(CPU)).clone()
    values.view(torch.int32)[1234] += 1

    (found,) = compare(engine, source({"w": values}), bound)

    assert found.rung not in ENOUGH["C"]
    assert found.differing


@pytest.mark.parametrize("weights", [["0.6", "0.31"], ["0.3", "0.6"]])
def test_a_false_ratio_is_never_witnessed(
    engine: Any, source: Any, step: Any, weights: list[str]
) -> None:
    release, bound = made_by_an_engine_with(
        1e-6, source, step, NUSLERP | {"params": {"weights": weights}}
    )

    (found,) = compare(engine, release, bound)

    assert found.rung not in ENOUGH["C"]


def test_a_witness_for_nothing_is_refused(step: Any) -> None:
    with pytest.raises(RecipeError):
        step(**NUSLERP, witness={"w": {"cos": "NaN"}})


@given(
    st.floats(2.0**-100, 2.0**100, width=32),
    st.integers(-1000, 1000),
    st.sampled_from(["F32", "F64"]),
)
def test_nudged_walks_along_the_numbers_of_a_dtype(value: float, steps: int, dtype: str) -> None:
    kind = {"F32": np.float32, "F64": np.float64}[dtype]
    width = {"F32": np.uint32, "F64": np.uint64}[dtype]
    pattern = int(np.array(value, kind).view(width)) + steps

    assert nudged(value, steps, dtype) == float(np.array(pattern, width).view(kind))
    assert nudged(-value, steps, dtype) == -nudged(value, steps, dtype)


@given(
    st.floats(0.1, 10),
    st.floats(-0.009, 0.009),
    st.sampled_from(["BF16", "F32", "F64"]),
)
def test_the_search_finds_a_scalar_within_its_bound(exact: float, off: float, dtype: str) -> None:
    target = witness.nudged(exact * (1 + off), 0, dtype)
    bounds = Bounds({"x": witness.nudged(exact, 0, dtype)}, dtype)
    if not bounds.within("x", target):
        return

    found = witness.descend(bounds.exact, bounds, Budget(lambda s: abs(s["x"] - target), asks=4000))

    assert found["x"] == target


def test_the_search_ends() -> None:
    asked = 0

    def hopeless(_: dict[str, float]) -> float:
        nonlocal asked
        asked += 1
        return math.sin(asked) + 2

    bounds = Bounds({f"x.{i}": 1.0 + i for i in range(20)}, "F32")
    witness.descend(bounds.exact, bounds, Budget(hopeless, asks=500))

    assert asked <= 500


@pytest.mark.parametrize(
    ("key", "value", "inside"),
    [
        ("norm", 1.009, True),
        ("norm", 1.011, False),
        ("norm", math.nan, False),
        ("norm", math.inf, False),
        ("tangent.3", 0.009, True),
        ("tangent.3", 0.011, False),
        ("tangent.3", -0.009, True),
    ],
)
def test_bounds_are_relative_but_for_what_cancels(key: str, value: float, *, inside: bool) -> None:
    bounds = Bounds({"norm": 1.0, "tangent.3": 0.0}, "F32", {"tangent": 0.01})

    assert bounds.within(key, value) is inside


def test_unknown_scalars_are_outside() -> None:
    bounds = Bounds({"cos": 0.5}, "F32")

    assert witness.within({"cos": 0.5}, bounds)
    assert not witness.within({"sin": 0.5}, bounds)
    assert not witness.within({}, bounds)
