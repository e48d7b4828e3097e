"""INT8 and FP8 by round-to-nearest: against numpy and fractions, and every pinned choice matters."""

from __future__ import annotations

import itertools
import math
import sys
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from held import Held, one_step, output
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.tensor import TensorSpec
from parentage.verify.engine import bind

CPU = torch.device("cpu")
ML = {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}


def recipe_step(
    profile: str = "torch", compute: str | None = None, scale: str = "F32", **params: Any
) -> Any:
    arithmetic = {"profile": profile, "scale": scale} | ({"compute": compute} if compute else {})
    params = {"dtype": "I8", "limit": "127", **params}
    return one_step(op="quantise_rtn/v1", params=params, arithmetic=arithmetic)


def quantised(step: Any, tensor: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return values and scales as the engine computes them, chunk by chunk."""
    held = {"a": Held({"w": tensor})}
    specs = bind([step], held)["s"].specs
    q, s = (output(step, held, name).reshape(specs[name].shape) for name in ("w", "w_scale"))
    return q.numpy(), (s.float() if s.dtype == torch.bfloat16 else s).numpy()


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05).to(dtype)


def test_int8_per_row_is_what_numpy_gives() -> None:
    w = random(40, 33)
    x = w.numpy()

    q, s = quantised(recipe_step(axis=0), w)

    scale = np.abs(x).max(axis=1) / np.float32(127)
    assert np.array_equal(s, scale)
    assert np.array_equal(q, np.rint(x / scale[:, None]).astype(np.int8))


def test_int8_per_column_and_keeping_dimensions() -> None:
    w = random(40, 33)
    x = w.numpy()

    q, s = quantised(recipe_step(axis=-1, keepDimensions=True), w)

    scale = np.abs(x).max(axis=0, keepdims=True) / np.float32(127)
    assert s.shape == (1, 33)
    assert np.array_equal(s, scale)
    assert np.array_equal(q, np.rint(x / scale).astype(np.int8))


def test_int8_per_tensor_and_per_group() -> None:
    w = random(12, 64)
    x = w.numpy()

    q, s = quantised(recipe_step(), w)
    grouped, scales = quantised(recipe_step(group=16), w)

    scale = np.abs(x).max() / np.float32(127)
    assert s.shape == ()
    assert s == scale
    assert np.array_equal(q, np.rint(x / scale).astype(np.int8))
    blocks = x.reshape(12, 4, 16)
    expected = np.abs(blocks).max(axis=2) / np.float32(127)
    assert np.array_equal(scales, expected)
    assert np.array_equal(
        grouped.reshape(blocks.shape), np.rint(blocks / expected[..., None]).astype(np.int8)
    )


def test_the_middle_axis_of_three() -> None:
    w = random(5, 7, 3)
    x = w.numpy()

    q, s = quantised(recipe_step(axis=1), w)

    scale = np.abs(x).max(axis=(0, 2)) / np.float32(127)
    assert np.array_equal(s, scale)
    assert np.array_equal(q, np.rint(x / scale[None, :, None]).astype(np.int8))


def test_parentage_1_is_the_exact_quotient_rounded_once() -> None:
    w = random(8, 50, seed=3)

    q, s = quantised(recipe_step("parentage-1", axis=0), w)

    for row in range(8):
        largest = max(abs(Fraction(v)) for v in w[row].tolist())
        assert abs(Fraction(float(s[row])) - largest / 127) <= largest / 127 * Fraction(1, 2**24)
        for got, value in zip(q[row].tolist(), w[row].tolist(), strict=True):
            assert got == round(Fraction(value) / Fraction(float(s[row])))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("profile", ["parentage-1", "torch"])
def test_fp8_per_channel(dtype: str, profile: str) -> None:
    w = random(20, 40, seed=5)
    limit = {"F8_E4M3": 448, "F8_E5M2": 57344}[dtype]

    q, s = quantised(recipe_step(profile, dtype=dtype, limit=str(limit), axis=0), w)

    kind = np.float64 if profile == "parentage-1" else np.float32
    x = w.numpy().astype(kind)
    scale = (np.abs(x).max(axis=1) / kind(limit)).astype(np.float32)
    t = np.clip(x / scale[:, None].astype(kind), -limit, limit)
    assert np.array_equal(s, scale)
    # Quotients in float64 are never so near a tie that fp32 moves them here.
    assert np.array_equal(q, t.astype(np.float32).astype(ML[dtype]).view(np.uint8))


CHOICES: dict[str, list[dict[str, Any]]] = {
    "axis": [{"axis": 0}, {"axis": 1}, {}],
    "group": [{"group": 32}, {"group": 64}],
    "limit": [{"limit": "127"}, {"limit": "127.5"}],
    "scale_by": [{"scaleBy": "divide"}, {"scaleBy": "reciprocal"}],
    "quotient": [
        *({"quotient": q} for q in ("x/s", "x*(1/s)")),
        *({"quotient": q} for q in ("x*(limit/max)", "x*(limit*(1/max))")),
    ],
    "using": [{"using": "stored", "scale": "BF16"}, {"using": "computed", "scale": "BF16"}],
    "compute": [{"compute": "F32"}, {"compute": "BF16"}],
    "ties": [{"ties": "even", "limit": "2"}, {"ties": "away", "limit": "2"}],
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_wrong_choice_gives_other_bytes(choice: str) -> None:
    """Only what differs can be refuted: each choice that a recipe pins is one."""
    # On the bf16 grid ties are common: there the choices differ most.
    w = random(600, 512, seed=7, dtype=torch.bfloat16)
    if choice == "ties":
        w = torch.tensor([[4.0, 1.0, 3.0, -1.0]])

    found = []
    for params in CHOICES[choice]:
        given = {"axis": 0} if choice not in {"axis", "group"} else {}
        q, s = quantised(recipe_step(**{**given, **params}), w)
        found.append((q.tobytes(), s.tobytes()))

    for left, right in itertools.combinations(found, 2):
        assert left != right


@pytest.mark.parametrize(
    ("params", "scale", "values"),
    [
        ({}, 1.0, [0, 0]),
        ({"zero": "0"}, 0.0, [0, 0]),
        ({"zero": "0.5"}, 0.5, [0, 0]),
        ({"floor": "0.25"}, 0.25, [0, 0]),
    ],
)
def test_rows_of_zeros(params: dict[str, str], scale: float, values: list[int]) -> None:
    q, s = quantised(recipe_step(axis=0, **params), torch.zeros(1, 2))

    assert s.tolist() == [scale]
    assert q.tolist() == [values]


def test_clamp_and_minus_128() -> None:
    w = torch.tensor([[-1.0, 1.0]])

    plain, _ = quantised(recipe_step(limit="128", axis=0), w)
    narrow, _ = quantised(recipe_step(limit="128", axis=0, clamp=["-127", "127"]), w)

    assert plain.tolist() == [[-128, 127]]
    assert narrow.tolist() == [[-127, 127]]


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 3.4e38, math.inf, -math.inf, math.nan, 127.0, 0.5]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
    count = math.prod(shape)
    items = st.one_of(st.sampled_from(SPECIAL), st.floats(-2, 2, width=32))
    values = draw(st.lists(items, min_size=count, max_size=count))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    return torch.tensor(values, dtype=torch.float32).to(dtype).reshape(shape)


def straightforward(w: torch.Tensor, params: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The whole tensor at once in numpy fp32: another program for the same claim."""
    x = w.float().numpy()
    axis = params.get("axis")
    with np.errstate(all="ignore"):
        rest = None if axis is None else tuple(i for i in range(x.ndim) if i != axis % x.ndim)
        largest = np.max(np.abs(x), axis=rest, keepdims=True, initial=0)
        scale = largest / np.float32(127)
        scale = np.where(scale == 0, np.float32(params.get("zero", "1")), scale)
        t = x / scale if params["quotient"] == "x/s" else x * (np.float32(1) / scale)
        q = np.clip(np.rint(t), -128, 127)
        q = np.where(np.isnan(q), 0, q).astype(np.int8)
    return q, scale


@settings(max_examples=150)
@given(
    tensors(),
    st.sampled_from([None, 0, -1]),
    st.sampled_from(["x/s", "x*(1/s)"]),
    st.sampled_from(["0", "1"]),
)
def test_honest_output_of_another_program_is_never_refused(
    w: torch.Tensor, axis: int | None, quotient: str, zero: str
) -> None:
    """Any shape, dtype, infinities, NaN, subnormals, zero rows, empty tensors."""
    params = {"quotient": quotient, "zero": zero} | ({} if axis is None else {"axis": axis})

    q, s = quantised(recipe_step(keepDimensions=True, **params), w)

    expected, scale = straightforward(w, params)
    assert np.array_equal(q, expected)
    assert np.array_equal(s, scale, equal_nan=True)


def test_chunks_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    w = random(7, 26, seed=11)

    module = sys.modules["parentage.verify.methods.quantise_rtn"]
    for params in ({"axis": 0}, {"axis": 1}, {"group": 13}, {}):
        whole, _ = quantised(recipe_step(**params), w)
        for piece in (5, 1 << 20):
            monkeypatch.setattr(module, "PIECE", piece)
            for width in (1, 7, 26, 27):
                found = output(recipe_step(**params), {"a": Held({"w": w})}, "w", width=width)
                assert np.array_equal(found.reshape(w.shape).numpy(), whole)


def test_a_tensor_of_nothing_does_not_cost_memory() -> None:
    held = Held({"w": torch.zeros(0, 1)})
    held.specs["w"] = TensorSpec("w", "F32", (1 << 50, 0))

    with pytest.raises(ShapeMismatchError, match="can't be quantised"):
        bind([recipe_step(axis=0)], {"a": held})


def test_names_and_what_is_copied() -> None:
    held = Held({"w": random(4, 4), "norm": random(4), "ids": torch.arange(3)})
    step = recipe_step(include=["w"], values="{}_q", scales="{}.scale")

    bound = bind([step], {"a": held})["s"]

    assert {n: s.dtype for n, s in bound.specs.items()} == {
        "w_q": "I8",
        "w.scale": "F32",
        "norm": "F32",
        "ids": "I64",
    }
    assert bound.alias("norm") == (held, "norm")
    assert bound.alias("w_q") == (bound, "w_q")


@pytest.mark.parametrize(
    "params",
    [
        {"axis": 0, "group": 4},
        {"limit": "0"},
        {"limit": "-127"},
        {"floor": "-1"},
        {"clamp": ["-129", "127"]},
        {"clamp": ["1", "2"]},
        {"values": "x"},
        {"values": "{}{}"},
        {"dtype": "F8_E4M3", "ties": "away"},
        {"profile": "parentage-1", "compute": "BF16"},
    ],
)
def test_steps_that_are_none(params: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        recipe_step(**params)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"axis": 2}, ShapeMismatchError),
        ({"axis": -3}, ShapeMismatchError),
        ({"group": 3}, ShapeMismatchError),
        ({"include": ["absent"]}, ShapeMismatchError),
        ({"scales": "{}"}, RecipeError),
        ({"profile": "mk-0.1.5"}, RecipeError),
        ({"profile": "ggml"}, RecipeError),
    ],
)
def test_steps_that_do_not_fit(params: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        bind([recipe_step(**params)], {"a": Held({"w": random(4, 8)})})
