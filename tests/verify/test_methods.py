"""Every method by value against numpy float64, fractions or decimal: never against itself."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.verify.engine import CHUNK_BYTES, bind
from parentage.verify.methods.slerp import coefficients
from parentage.verify.rounding import bits
from parentage.verify.values import Scratch

CPU = torch.device("cpu")


def compute(
    step: Any, inputs: dict[str, Any], name: str, variant: str | None = None
) -> torch.Tensor:
    bound = bind([step], inputs)[step.id]
    spec = bound.specs[name]
    out = bound.method.chunk(
        name, 0, spec.elements, variant or bound.method.variants[0], Scratch(CPU)
    )
    return out.clone().reshape(spec.shape)


def bf16_bits(exact: np.ndarray) -> np.ndarray:
    """Round float64 (normal range) to bf16 by integer arithmetic on the pattern."""
    pattern = exact.astype(np.float64).view(np.uint64)
    half = np.uint64((1 << 44) - 1) + ((pattern >> np.uint64(45)) & np.uint64(1))
    return ((pattern + half) >> np.uint64(45)) << np.uint64(45)


def random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def weighted(
    step: Any, weights: list[str], *, inputs: list[str], profile: str = "parentage-1", **more: Any
) -> Any:
    arithmetic = {"profile": profile, **more.pop("arithmetic", {})}
    params = {"weights": weights, "normalize": more.pop("normalize", True), **more}
    return step(op="weighted_sum/v1", inputs=inputs, params=params, arithmetic=arithmetic)


def test_linear_under_parentage_1_is_float64_rounded_once(source: Any, step: Any) -> None:
    a, b = random((64, 33), 1), random((64, 33), 2)
    inputs = {"a": source({"w": a}), "b": source({"w": b})}

    got = compute(
        weighted(step, ["0.6", "0.4"], inputs=["a", "b"], arithmetic={"store": "BF16"}), inputs, "w"
    )

    exact = a.double().numpy() * 0.6 + b.double().numpy() * 0.4
    assert got.dtype == torch.bfloat16
    assert np.array_equal(got.double().numpy().view(np.uint64), bf16_bits(exact))


def test_soup_divides_exactly(source: Any, step: Any) -> None:
    parts = [random((50,), seed) for seed in range(3)]
    inputs = {f"m{i}": source({"w": part}) for i, part in enumerate(parts)}

    got = compute(weighted(step, ["1", "1", "1"], inputs=list(inputs)), inputs, "w")

    third = 1 / 3
    exact = (parts[0].double() * third + parts[1].double() * third) + parts[2].double() * third
    assert torch.equal(got, exact.float())


def test_add_difference(source: Any, step: Any) -> None:
    a, b, c = (random((40,), seed) for seed in range(3))
    inputs = {"a": source({"w": a}), "b": source({"w": b}), "c": source({"w": c})}

    got = compute(
        weighted(step, ["1", "0.5", "-0.5"], inputs=["a", "b", "c"], normalize=False), inputs, "w"
    )

    assert torch.equal(got, ((a.double() + b.double() * 0.5) + c.double() * -0.5).float())


def test_task_arithmetic_coefficients_are_exact(source: Any, step: Any) -> None:
    x, base = random((40,), 1), random((40,), 2)
    inputs = {"x": source({"w": x}), "base": source({"w": base})}
    made = weighted(step, ["0.3"], inputs=["x", "base"], normalize=False, base="base", scale="0.7")

    got = compute(made, inputs, "w")

    c_x = float(Fraction(3, 10) * Fraction(7, 10))
    c_b = float(1 - Fraction(3, 10) * Fraction(7, 10))
    assert torch.equal(got, (x.double() * c_x + base.double() * c_b).float())


def test_overrides_apply_to_their_tensors_only(source: Any, step: Any) -> None:
    tensors = {"layers.0.w": random((8,), 1), "layers.1.w": random((8,), 2)}
    other = {name: random((8,), 9) for name in tensors}
    inputs = {"a": source(tensors), "b": source(other)}
    made = weighted(
        step,
        ["1", "0"],
        inputs=["a", "b"],
        overrides=[{"tensors": ["layers.1.*"], "weights": ["0", "1"]}],
    )

    assert torch.equal(compute(made, inputs, "layers.0.w"), tensors["layers.0.w"])
    assert torch.equal(compute(made, inputs, "layers.1.w"), other["layers.1.w"])


def test_mergekit_015_linear_is_a_chain_of_fused_steps(source: Any, step: Any) -> None:
    a, b = random((4000,), 1, torch.bfloat16), random((4000,), 2, torch.bfloat16)
    inputs = {"a": source({"w": a}), "b": source({"w": b})}
    made = weighted(
        step, ["0.6", "0.4"], inputs=["a", "b"], profile="mk-0.1.5", arithmetic={"compute": "BF16"}
    )

    fused = compute(made, inputs, "w", "mk-0.1.5/fma")
    unfused = compute(made, inputs, "w", "mk-0.1.5/unfused")

    x, y = a.float().numpy(), b.float().numpy()
    w, v = np.float32(0.6), np.float32(0.4)
    first = (x.astype(np.float64) * np.float64(w)).astype(np.float32)
    # bf16 x fp32 products have 32 bits: their sum with an fp32 number is exact or rounds once here.
    second = (first.astype(np.float64) + y.astype(np.float64) * np.float64(v)).astype(np.float32)
    total = np.float32(w + v)
    assert np.array_equal(
        fused.float().numpy(), torch.from_numpy(second / total).bfloat16().float().numpy()
    )
    plain = (x * w + y * v) / total
    assert np.array_equal(
        unfused.float().numpy(), torch.from_numpy(plain).bfloat16().float().numpy()
    )


def test_mergekit_014_linear_rounds_every_product(source: Any, step: Any) -> None:
    a, b = random((4000,), 1, torch.bfloat16), random((4000,), 2, torch.bfloat16)
    inputs = {"a": source({"w": a}), "b": source({"w": b})}
    made = weighted(
        step, ["0.6", "0.4"], inputs=["a", "b"], profile="mk-0.1.4", arithmetic={"compute": "BF16"}
    )

    got = compute(made, inputs, "w")

    stacked = torch.stack([a, b])
    weights = torch.tensor([0.6, 0.4], dtype=torch.bfloat16).unsqueeze(-1)
    expected = (weights * stacked).sum(dim=0) / weights.sum(dim=0)
    assert torch.equal(got, expected)


def test_mergekit_task_arithmetic(source: Any, step: Any) -> None:
    a, b, base = (random((4000,), seed, torch.bfloat16) for seed in range(3))
    inputs = {"a": source({"w": a}), "b": source({"w": b}), "base": source({"w": base})}
    made = weighted(
        step,
        ["0.6", "0.5"],
        inputs=["a", "b", "base"],
        profile="mk-0.1.5",
        normalize=True,
        base="base",
        scale="0.8",
        arithmetic={"compute": "BF16"},
    )

    got = compute(made, inputs, "w")

    deltas = torch.stack([a - base, b - base])
    weights = torch.tensor([0.6, 0.5], dtype=torch.bfloat16).unsqueeze(-1)
    mixed = (deltas * weights).sum(dim=0)
    mixed /= weights.sum(dim=0)
    mixed *= 0.8
    assert torch.equal(got, base + mixed)


def test_special_values_follow_ieee(source: Any, step: Any) -> None:
    inf, nan = math.inf, math.nan
    a = torch.tensor([-0.0, inf, inf, nan, 1e-45, 3e38])
    b = torch.tensor([-0.0, 1.0, -inf, 1.0, 0.0, 3e38])
    inputs = {"a": source({"w": a}), "b": source({"w": b})}

    got = compute(weighted(step, ["0.6", "0.6"], inputs=["a", "b"], normalize=False), inputs, "w")

    expected = torch.tensor([-0.0, inf, nan, nan, 1e-45, inf])
    assert bits(got).tolist() == bits(expected).tolist()


def test_whole_numbers_are_copied_and_must_agree(source: Any, step: Any) -> None:
    ids = torch.arange(8)
    same = {"a": source({"ids": ids}), "b": source({"ids": ids})}
    other = {"a": source({"ids": ids}), "b": source({"ids": ids + 1})}
    made = weighted(step, ["0.6", "0.4"], inputs=["a", "b"])

    assert torch.equal(compute(made, same, "ids"), ids)
    with pytest.raises(ShapeMismatchError, match="not floating-point"):
        compute(made, other, "ids")


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"w": torch.zeros(4)}, "different shapes"),
        ({"v": torch.zeros(3)}, "different tensors"),
        ({"w": torch.zeros(3), "v": torch.zeros(1)}, "different tensors"),
    ],
)
def test_another_architecture_is_refused(source: Any, step: Any, other: Any, problem: str) -> None:
    inputs = {"a": source({"w": torch.zeros(3)}), "b": source(other)}

    with pytest.raises(ShapeMismatchError, match=problem):
        bind([weighted(step, ["1", "1"], inputs=["a", "b"])], inputs)


@given(
    st.floats(-0.9994, 0.9994),
    st.fractions(0, 1, max_denominator=1000),
)
def test_slerp_coefficients_are_within_one_ulp_of_float64(cosine: float, t: Fraction) -> None:
    got = coefficients(4.0, 9.0, 6.0 * cosine, t)

    theta = math.acos(cosine)
    expected = math.sin((1 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta)
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_slerp_coefficients_are_correctly_rounded() -> None:
    # cos = 1/2, t = 1/2: both are sin(pi/6) / sin(pi/3) = 1 / sqrt(3).
    exact = float(1 / Decimal(3).sqrt())
    assert coefficients(1.0, 1.0, 0.5, Fraction(1, 2)) == (exact, exact)


@pytest.mark.parametrize("aa", [0.0, 1.0])
def test_slerp_falls_back_to_lerp(aa: float) -> None:
    assert coefficients(aa, 1.0, 0.9999, Fraction(1, 4)) == (0.75, 0.25)


def test_slerp_under_parentage_1(source: Any, step: Any) -> None:
    a, b = random((70, 100), 1), random((70, 100), 2)
    inputs = {"a": source({"w": a}), "b": source({"w": b})}
    made = step(
        op="slerp/v1",
        inputs=["a", "b"],
        params={"t": "0.35"},
        arithmetic={"profile": "parentage-1"},
    )

    got = compute(made, inputs, "w")

    x, y = a.double().numpy().ravel(), b.double().numpy().ravel()
    aa, bb, ab = (
        float(sum(map(Fraction, (p * q).tolist()), Fraction(0)))
        for p, q in ((x, x), (y, y), (x, y))
    )
    theta = math.acos(ab / math.sqrt(aa * bb))
    exact = (math.sin(0.65 * theta) * x + math.sin(0.35 * theta) * y) / math.sin(theta)
    difference = np.abs(got.numpy().ravel() - exact)
    assert np.all(difference <= np.spacing(np.abs(exact).astype(np.float32)) * 0.5000001)


def test_slerp_does_not_depend_on_chunks_or_threads(source: Any, step: Any) -> None:
    big = CHUNK_BYTES // 4 + 12345
    inputs = {"a": source({"w": random((big,), 1)}), "b": source({"w": random((big,), 2)})}
    made = step(
        op="slerp/v1", inputs=["a", "b"], params={"t": "0.5"}, arithmetic={"profile": "parentage-1"}
    )
    method = bind([made], inputs)["s"].method

    whole = method.chunk("w", 0, big, "parentage-1", Scratch(CPU)).clone()
    parts = [
        method.chunk("w", at, min(at + 100_000, big), "parentage-1", Scratch(CPU)).clone()
        for at in range(0, big, 100_000)
    ]

    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(("rs", "scale"), [(False, Fraction(32, 4)), (True, Fraction(32, 2))])
def test_lora_and_rslora(source: Any, step: Any, rs: bool, scale: Fraction) -> None:
    w, a, b = random((12, 20), 1, torch.bfloat16), random((4, 20), 2), random((12, 4), 3)
    inputs = {
        "base": source({"q.weight": w, "k.weight": w.clone()}),
        "adapter": source(
            {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.weight": b}
        ),
    }
    made = step(
        op="lora_merge/v1",
        inputs=["base", "adapter"],
        params={"alpha": "32", "rsLora": rs},
        arithmetic={"profile": "parentage-1"},
    )

    got = compute(made, inputs, "q.weight")

    for i in range(12):
        for j in range(20):
            delta = sum(
                (Fraction(float(b[i, k])) * Fraction(float(a[k, j])) for k in range(4)), Fraction(0)
            )
            exact = Fraction(float(w[i, j])) + scale * delta
            ulp = Fraction(2) ** (math.frexp(float(exact))[1] - 8)
            assert abs(Fraction(float(got[i, j])) - exact) <= ulp / 2 + Fraction(1, 2**40)
    assert torch.equal(compute(made, inputs, "k.weight"), w)


def test_lora_transposed(source: Any, step: Any) -> None:
    w, a, b = random((20, 12), 1), random((4, 20), 2), random((12, 4), 3)
    inputs = {
        "base": source({"q.weight": w}),
        "adapter": source(
            {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.weight": b}
        ),
    }
    made = step(
        op="lora_merge/v1",
        inputs=["base", "adapter"],
        params={"alpha": "4", "fanInFanOut": True},
        arithmetic={"profile": "parentage-1"},
    )

    got = compute(made, inputs, "q.weight")

    assert torch.allclose(
        got.double(), w.double() + (b.double() @ a.double()).T, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    "adapter",
    [
        {"base_model.model.z.lora_A.weight": (4, 20), "base_model.model.z.lora_B.weight": (12, 4)},
        {"base_model.model.q.lora_A.weight": (4, 20)},
        {"base_model.model.q.lora_A.weight": (4, 20), "base_model.model.q.lora_B.weight": (12, 5)},
        {"base_model.model.q.lora_magnitude": (12,)},
    ],
)
def test_adapter_that_does_not_fit_is_refused(source: Any, step: Any, adapter: Any) -> None:
    inputs = {
        "base": source({"q.weight": torch.zeros(12, 20)}),
        "adapter": source({name: torch.zeros(shape) for name, shape in adapter.items()}),
    }
    made = step(
        op="lora_merge/v1",
        inputs=["base", "adapter"],
        params={"alpha": "4"},
        arithmetic={"profile": "parentage-1"},
    )

    with pytest.raises(ShapeMismatchError):
        bind([made], inputs)


def test_cast_leaves_integers_alone(source: Any, step: Any) -> None:
    w, ids = random((100,), 1), torch.arange(5)
    inputs = {"a": source({"w": w, "ids": ids})}
    made = step(op="cast/v1", inputs=["a"], arithmetic={"profile": "parentage-1", "store": "BF16"})

    assert torch.equal(compute(made, inputs, "w"), w.bfloat16())
    assert torch.equal(compute(made, inputs, "ids"), ids)


def test_copy_rename_and_layers(source: Any, step: Any) -> None:
    tensors = {f"model.layers.{i}.w": torch.full((2,), float(i)) for i in range(4)} | {
        "head": torch.ones(1)
    }
    inputs = {"a": source(tensors)}
    kept = bind(
        [step(op="copy/v1", inputs=["a"], params={"exclude": ["model.layers.3.*"]})], inputs
    )["s"]
    renamed = bind(
        [step(op="rename/v1", inputs=["a"], params={"names": {"head": "lm_head"}})], inputs
    )["s"]
    params = {
        "prefix": "model.layers.",
        "slices": [{"input": "a", "start": 0, "end": 2}, {"input": "a", "start": 1, "end": 4}],
        "rest": [{"tensors": "*", "input": "a"}],
    }
    made = step(op="layer_select/v1", inputs=["a"], params=params)

    assert "model.layers.3.w" not in kept.specs
    assert "head" in kept.specs
    assert {"lm_head"} == renamed.specs.keys() - tensors.keys()
    values = [float(compute(made, inputs, f"model.layers.{i}.w")[0]) for i in range(5)]
    assert values == [0, 1, 1, 2, 3]
    assert bind([made], inputs)["s"].alias("head") == (inputs["a"], "head")


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "rename/v1", "params": {"names": {"absent": "x"}}},
        {"op": "rename/v1", "params": {"names": {"w": "v"}}},
        {"op": "copy/v1", "params": {"include": ["absent"]}},
        {
            "op": "layer_select/v1",
            "params": {"prefix": "l.", "slices": [{"input": "a", "start": 0, "end": 1}]},
        },
        {
            "op": "slerp/v1",
            "inputs": ["a", "b"],
            "params": {"t": "0.5"},
            "arithmetic": {"profile": "peft"},
        },
    ],
)
def test_steps_that_can_not_be_bound(source: Any, step: Any, fields: Any) -> None:
    inputs = {
        "a": source({"w": torch.zeros(1), "v": torch.zeros(1)}),
        "b": source({"w": torch.zeros(1), "v": torch.zeros(1)}),
    }

    with pytest.raises(RecipeError):
        bind([step(**{"inputs": ["a"], **fields})], inputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parentage_1_has_the_same_bits_on_cuda(source: Any, step: Any) -> None:
    inputs = {
        "a": source({"w": random((1000, 700), 1)}),
        "b": source({"w": random((1000, 700), 2)}),
    }
    for fields in (
        {"op": "weighted_sum/v1", "params": {"weights": ["0.6", "0.4"], "normalize": True}},
        {"op": "slerp/v1", "params": {"t": "0.35"}},
    ):
        made = step(
            inputs=["a", "b"], arithmetic={"profile": "parentage-1", "store": "BF16"}, **fields
        )
        method = bind([made], inputs)["s"].method
        cpu = method.chunk("w", 0, 700_000, "parentage-1", Scratch(CPU)).clone()
        gpu = method.chunk("w", 0, 700_000, "parentage-1", Scratch(torch.device("cuda"))).cpu()
        assert torch.equal(bits(cpu), bits(gpu))
