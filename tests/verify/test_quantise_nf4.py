"""NF4 against numpy, and against the bytes that bitsandbytes 0.50.2 itself made."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from held import Held, one_step, output
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError
from parentage.verify.engine import bind
from parentage.verify.methods.quantise_nf4 import LEVELS

VECTORS = Path(__file__).parent / "nf4-bitsandbytes-0.50.2.json"
PARTS = ("", ".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4")


def step(profile: str = "bnb-0.50", **params: Any) -> Any:
    return one_step(op="quantise_nf4/v1", arithmetic={"profile": profile}, params=params)


def quantised(values: torch.Tensor, profile: str = "bnb-0.50", **params: Any) -> list[np.ndarray]:
    held = {"a": Held({"w": values})}
    return [output(step(profile, **params), held, f"w{part}").numpy() for part in PARTS]


def codes(packed: np.ndarray, count: int) -> list[int]:
    return [int(b) >> 4 if half == 0 else int(b) & 15 for b in packed for half in (0, 1)][:count]


def weights(seed: int, count: int) -> np.ndarray:
    """The same numbers wherever this runs: integers times a power of two."""
    state = np.random.RandomState(seed)
    return (state.randint(-2000, 2001, count) * np.float32(2.0**-14)).astype(np.float32)


@pytest.mark.parametrize("case", json.loads(VECTORS.read_text()), ids=lambda c: c["name"])
def test_what_bitsandbytes_made(case: dict[str, Any]) -> None:
    values = torch.from_numpy(weights(case["seed"], math.prod(case["shape"])))
    values = values.reshape(case["shape"]).to(getattr(torch, case["dtype"]))
    if case["zeros"]:
        values.reshape(-1)[: case["zeros"]] = 0

    packed, absmax, levels, state = quantised(values, block=case["block"])

    assert packed.tobytes().hex() == case["packed"]
    assert absmax.tobytes().hex() == case["absmax"]
    assert levels.tobytes().hex() == case["levels"]
    assert state.tobytes().decode() == case["state"]


def test_parentage_1_is_the_nearest_level() -> None:
    values = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))

    packed, absmax, _, _ = quantised(values, "parentage-1")

    flat = values.reshape(-1).tolist()
    for index, (code, value) in enumerate(zip(codes(packed, 150), flat, strict=True)):
        block = flat[index // 64 * 64 : index // 64 * 64 + 64]
        largest = max(abs(Fraction(v)) for v in block)
        assert Fraction(float(absmax[index // 64])) == largest
        distances = [abs(Fraction(level) - Fraction(value) / largest) for level in LEVELS]
        assert distances[code] == min(distances)


SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 3e38, math.inf, math.nan]


@settings(max_examples=150)
@given(st.lists(st.one_of(st.sampled_from(SPECIAL), st.floats(-1, 1, width=32)), max_size=150))
def test_honest_output_of_another_program_is_never_refused(items: list[float]) -> None:
    """Odd lengths, short blocks, zeros, subnormals, infinities, NaN, nothing at all."""
    x = np.array(items, dtype=np.float32)

    packed, absmax, _, _ = quantised(torch.from_numpy(x))

    levels = np.array(LEVELS, dtype=np.float32)
    middles = (levels[:-1] + levels[1:]) / np.float32(2)
    expected: list[int] = []
    tiny = np.float32(1e-38)
    with np.errstate(all="ignore"):
        for at in range(0, len(x), 64):
            block = x[at : at + 64]
            largest = np.max(np.abs(block))
            if len(block) < 64:
                largest = np.maximum(largest, tiny)
                t = block / largest
            else:
                t = block * (np.float32(1) / np.maximum(largest, tiny))
            assert np.array_equal(absmax[at // 64], largest, equal_nan=True)
            t = np.clip(t, -1, 1)
            expected += [15 if np.isnan(v) else int((middles < v).sum()) for v in t]
    assert codes(packed, len(x)) == expected
    assert len(x) % 2 == 0 or int(packed[-1]) & 15 == 7


def test_any_byte_range() -> None:
    values = torch.randn(1, 333, generator=torch.Generator().manual_seed(3))
    held = {"a": Held({"w": values})}

    whole = output(step(), held, "w")

    for width in (1, 3, 31, 32, 33, 100):
        assert torch.equal(output(step(), held, "w", width=width), whole)


def test_another_block_gives_other_bytes() -> None:
    values = torch.randn(16, 64, generator=torch.Generator().manual_seed(4))

    assert quantised(values)[0].tobytes() != quantised(values, block=128)[0].tobytes()


def test_the_form_of_what_it_makes() -> None:
    specs = bind([step()], {"a": Held({"w": torch.ones(3, 43).bfloat16()})})["s"].specs

    assert {n: (s.dtype, s.shape) for n, s in specs.items()} == {
        "w": ("U8", (65, 1)),
        "w.absmax": ("F32", (3,)),
        "w.quant_map": ("F32", (16,)),
        "w.quant_state.bitsandbytes__nf4": ("U8", (77,)),
    }


@pytest.mark.parametrize("params", [{"block": 63}, {"nested": True}])
def test_what_has_no_exact_form_is_no_step(params: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        step(**params)
