"""join_rows/v1 against torch: cut, joined, transposed, given another shape; and what does not fit."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from held import Held, one_step, output
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.verify.engine import bind


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def step(tensors: dict[str, Any], rest: Any = (), inputs: tuple[str, ...] = ("a",)) -> Any:
    params = {"tensors": tensors, "rest": list(rest)}
    return one_step(op="join_rows/v1", inputs=list(inputs), params=params)


def piece(tensor: str, start: int = 0, end: int | None = None, parent: str = "a") -> dict[str, Any]:
    return {"input": parent, "tensor": tensor, "start": start} | ({"end": end} if end else {})


def made(tensors: dict[str, torch.Tensor], how: Any, width: int = 0) -> torch.Tensor:
    return output(step({"out": how}), {"a": Held(tensors)}, "out", width=width)


def test_gru_gates_change_places() -> None:
    w = random(12, 5)

    got = made({"w": w}, {"pieces": [piece("w", 4, 8), piece("w", 0, 4), piece("w", 8, 12)]})

    r, z, n = w.chunk(3)
    assert torch.equal(got.reshape(12, 5), torch.cat([z, r, n]))


def test_biases_are_joined_and_get_another_shape() -> None:
    a, b = random(6), random(4, seed=2)
    how = {"pieces": [piece("a"), piece("b")], "shape": [1, 10]}

    bound = bind([step({"out": how})], {"a": Held({"a": a, "b": b})})["s"]

    assert bound.specs["out"].shape == (1, 10)
    assert torch.equal(made({"a": a, "b": b}, how), torch.cat([a, b]))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 90), st.booleans())
def test_any_transpose_in_any_chunks(rows: int, columns: int, width: int, wide: bool) -> None:
    w = random(rows, columns)
    how = {"pieces": [piece("w", 0, 1), piece("w", 1)] if rows > 1 else [piece("w")]}
    module = sys.modules["parentage.verify.methods.join_rows"]
    slab, long = module._SLAB, module._LONG
    try:
        module._SLAB, module._LONG = 1 + rows, 0 if wide else 4096
        got = made({"w": w}, {**how, "transpose": True}, width=width)
    finally:
        module._SLAB, module._LONG = slab, long

    assert torch.equal(got.reshape(columns, rows), w.T)


def test_long_rows_are_read_in_part() -> None:
    w = random(3, 100_000)

    got = made({"w": w}, {"pieces": [piece("w")], "transpose": True}, width=9000)

    assert torch.equal(got.reshape(100_000, 3), w.T)


def test_a_union_of_inputs() -> None:
    a, b = Held({"x": random(2), "both": random(3)}), Held({"y": random(4), "both": random(5)})
    rest = [{"tensors": "*", "input": i} for i in ("a", "b")]

    bound = bind([step({}, rest, ("a", "b"))], {"a": a, "b": b})["s"]

    assert {n: s.shape for n, s in bound.specs.items()} == {"x": (2,), "both": (3,), "y": (4,)}
    assert bound.alias("y") == (b, "y")


@pytest.mark.parametrize(
    "how",
    [
        {"pieces": [piece("absent")]},
        {"pieces": [piece("w", 0, 9)]},
        {"pieces": [piece("w", 3, 2)]},
        {"pieces": [piece("w"), piece("v")]},
        {"pieces": [piece("w"), piece("ids")]},
        {"pieces": [piece("scalar"), piece("scalar")]},
        {"pieces": [piece("w")], "shape": [5]},
        {"pieces": [piece("w")], "shape": [2**50, 2**50]},
        {"pieces": [piece("v")], "transpose": True},
    ],
)
def test_what_does_not_fit_is_refused(how: Any) -> None:
    held = Held(
        {
            "w": random(4, 3),
            "v": random(4),
            "ids": torch.zeros(4, 3, dtype=torch.int64),
            "scalar": torch.tensor(1.0),
        }
    )

    with pytest.raises(ShapeMismatchError):
        bind([step({"out": how})], {"a": held})


def test_it_reads_its_inputs_only() -> None:
    with pytest.raises(RecipeError, match="what is not an input"):
        step({"out": {"pieces": [piece("w", parent="b")]}})
