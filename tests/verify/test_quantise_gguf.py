"""Q8_0 and Q4_0 against gguf-py, byte by byte, and Q4_0's fused form against fractions."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import quants
from held import Held, one_step, output
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.verify import rounding
from parentage.verify.engine import bind
from parentage.verify.methods.quantising import halves_away

BOTH = pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0"])


def step(dtype: str, **fields: Any) -> Any:
    return one_step(
        op="quantise_gguf/v1",
        params={"dtype": dtype},
        **{"arithmetic": {"profile": "ggml"}, **fields},
    )


def reference(values: torch.Tensor, dtype: str) -> np.ndarray:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return quants.quantize(values.float().numpy(), Type[dtype]).reshape(-1)


def ours(values: torch.Tensor, dtype: str, variant: str = "", width: int = 0) -> np.ndarray:
    return output(step(dtype), {"a": Held({"w": values})}, "w", variant, width).numpy()


@BOTH
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_random_weights(dtype: str, kind: torch.dtype) -> None:
    values = torch.randn(700, 96, generator=torch.Generator().manual_seed(1)).to(kind) * 0.05

    assert np.array_equal(ours(values, dtype), reference(values, dtype))


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -8.0, 1e-45, 1e-38, 3e38, math.inf, -math.inf, math.nan]


@BOTH
@settings(max_examples=100)
@given(data=st.data())
def test_any_block_is_as_in_gguf_py(dtype: str, data: st.DataObject) -> None:
    """Zeros, ties of magnitude with both signs, subnormals, infinities, NaN."""
    items = st.one_of(st.sampled_from(SPECIAL), st.floats(-1, 1, width=32))
    values = torch.tensor(data.draw(st.lists(items, min_size=64, max_size=64))).reshape(1, 64)

    # The payload of the NaN that a scale becomes is the processor's.
    got, expected = ours(values, dtype).reshape(2, -1), reference(values, dtype).reshape(2, -1)
    for a, b in zip(got, expected, strict=True):
        scale_a, scale_b = a[:2].copy().view(np.float16), b[:2].copy().view(np.float16)
        assert np.array_equal(scale_a, scale_b, equal_nan=True)
        assert np.array_equal(a[2:], b[2:])


@BOTH
def test_any_byte_range(dtype: str) -> None:
    values = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))
    whole = reference(values, dtype)

    for width in (1, 5, 17, 34, 100):
        assert np.array_equal(ours(values, dtype, width=width), whole)


@pytest.mark.parametrize("fused", [True, False])
def test_q4_0_with_fused_multiply_add(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    """Found by search: rounding x id first moves these elements across a whole number."""
    real = rounding.addcmul_is_fused()
    monkeypatch.setattr(rounding, "addcmul_is_fused", lambda: fused and real)
    generator = np.random.default_rng(5)
    largest = generator.uniform(0.01, 1, 4000).astype(np.float32)
    d = (largest / np.float32(-8)).astype(np.float32)
    inverse = (np.float32(1) / d).astype(np.float32)
    aimed = generator.integers(-7, 8, (4000, 31)) + np.float32(0.5)
    x = np.concatenate([largest[:, None], (aimed / inverse[:, None]).astype(np.float32)], axis=1)
    x = np.clip(x, -largest[:, None], largest[:, None]).astype(np.float32)

    plain, contracted = (
        ours(torch.from_numpy(x), "Q4_0", f"ggml/{v}").reshape(-1, 18) for v in ("unfused", "fma")
    )

    different = np.nonzero((plain != contracted).any(axis=1))[0]
    assert len(different)
    for row in different[:20]:
        for j in range(32):
            exact = Fraction(float(x[row, j])) * Fraction(float(inverse[row])) + Fraction(17, 2)
            once = float(np.float32(float(exact))) if _safe(exact) else None
            byte = int(contracted[row, 2 + j % 16])
            code = byte & 15 if j < 16 else byte >> 4
            if once is not None:
                assert code == min(15, int(once))


def _safe(exact: Fraction) -> bool:
    """Say whether rounding through float64 is no second rounding."""
    through = float(exact)
    return abs(Fraction(through) - exact) < Fraction(1, 2**50) and through != 0


@given(st.floats(-1e9, 1e9, width=32))
def test_halves_go_away_from_zero(value: float) -> None:
    got = halves_away(torch.tensor([value])).item()

    exact = Fraction(value)
    expected = math.floor(abs(exact) + Fraction(1, 2)) * (-1 if exact < 0 else 1)
    assert got == expected


def test_other_tensors_are_copied() -> None:
    held = Held({"w": torch.ones(2, 32), "ids": torch.arange(5)})

    bound = bind([step("Q8_0")], {"a": held})["s"]

    assert {n: (s.dtype, s.shape) for n, s in bound.specs.items()} == {
        "w": ("Q8_0", (2, 32)),
        "ids": ("I64", (5,)),
    }


@pytest.mark.parametrize("shape", [(2, 33), (31,), ()])
def test_half_a_block_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError, match="no whole blocks"):
        bind([step("Q8_0")], {"a": Held({"w": torch.ones(shape)})})


def test_only_ggml_has_these_blocks() -> None:
    with pytest.raises(RecipeError, match="profile does not know"):
        bind(
            [step("Q8_0", arithmetic={"profile": "parentage-1"})],
            {"a": Held({"w": torch.ones(1, 32)})},
        )
