"""Directions taken out: by value against float64, real torch programs in their cells, false claims refuted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest import recipe
from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind, identities
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import TensorResult

CPU = torch.device("cpu")
RULES = [
    {"tensors": ["*.o_proj"], "direction": "r", "side": "left"},
    {"tensors": ["embed"], "direction": "r", "side": "right", "alpha": "0.75"},
]


def fields(profile: str = "parentage-1", **more: Any) -> dict[str, Any]:
    params = {"rules": RULES, **more}
    return {
        "id": "s", "op": "abliterate/v1", "inputs": ["m", "d"], "params": params,
        "arithmetic": {"profile": profile},
    }  # fmt: skip


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def model(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {
        "0.o_proj": random(96, 64, seed=1, dtype=dtype),
        "1.o_proj": random(5, 96, 7, seed=2, dtype=dtype),  # experts: a matrix each
        "embed": random(30, 96, seed=3, dtype=dtype),
        "norm": random(96, seed=4, dtype=dtype),
    }


def expected(
    weights: dict[str, torch.Tensor], r: torch.Tensor, *, normalize: bool
) -> dict[str, np.ndarray]:
    """NumPy's float64, by matrix products."""
    u = r.double().numpy()
    u = u / np.linalg.norm(u) if normalize else u
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}
    projector = np.outer(u, u)
    return {
        "0.o_proj": w["0.o_proj"] - projector @ w["0.o_proj"],
        "1.o_proj": w["1.o_proj"] - projector @ w["1.o_proj"],
        "embed": w["embed"] - 0.75 * (w["embed"] @ projector),
        "norm": w["norm"],
    }


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_projection_is_float64_rounded_once(
    source: Any, step: Any, dtype: torch.dtype, normalize: bool
) -> None:
    weights, r = model(dtype), random(96, seed=9) / (1 if normalize else 10)
    inputs = {"m": source(weights), "d": source({"r": r})}
    bound = bind([step(**fields(normalize=normalize))], inputs)["s"]

    for name, exact in expected(weights, r, normalize=normalize).items():
        spec = bound.specs[name]
        got = bound.read(name, 0, spec.elements, Scratch(CPU)).double().numpy().reshape(spec.shape)
        # The oracle's sums have another order, so it is off by some units of float64.
        unit = 2.0 ** (np.frexp(np.abs(exact))[1] - (8 if dtype == torch.bfloat16 else 24))
        assert (np.abs(got - exact) <= unit / 2 + 1e-13).all(), name
    assert bound.alias("norm") == (inputs["m"], "norm")


def test_nothing_is_left_along_the_direction(source: Any, step: Any) -> None:
    r = random(96, seed=9)
    inputs = {"m": source(model(torch.float32)), "d": source({"r": r})}
    made = fields() | {"arithmetic": {"profile": "parentage-1", "store": "F64"}}
    bound = bind([step(**made)], inputs)["s"]

    left = bound.read("0.o_proj", 0, 96 * 64, Scratch(CPU)).numpy().reshape(96, 64)

    assert np.abs(r.double().numpy() @ left).max() < 1e-12


def test_ranges_and_threads_change_nothing(source: Any, step: Any) -> None:
    inputs = {"m": source(model()), "d": source({"r": random(96, seed=9)})}
    bound = bind([step(**fields())], inputs)["s"]
    for name in bound.specs:
        count = bound.specs[name].elements
        whole = bound.read(name, 0, count, Scratch(CPU)).clone()
        for cut in (7, 64, 333):
            parts = [
                bound.read(name, at, min(at + cut, count), Scratch(CPU)).clone()
                for at in range(0, count, cut)
            ]
            assert torch.equal(torch.cat(parts), whole)
    found = [identities(Engine(CPU, n), bind([step(**fields())], inputs)["s"]) for n in (1, 2, 4)]
    assert found[0] == found[1] == found[2]


def compared(
    where: Path, weights: Any, r: torch.Tensor, result: Any, made: Any
) -> dict[str, TensorResult]:
    opened = []
    for name, tensors in (("m", weights), ("d", {"r": r}), ("out", result)):
        save_file(tensors, where / f"{name}.safetensors")
        opened.append(open_model(where / f"{name}.safetensors"))
    try:
        m, d, release = map(FileSource, opened)
        document = {"version": "0.1", "parents": [{"id": "m"}, {"id": "d"}], "steps": [made]}
        bound = bind(recipe.parse(document, where="t").steps, {"m": m, "d": d})["s"]
        return {found.name: found for found in compare(Engine(CPU, 2), release, bound)}
    finally:
        for each in opened:
            each.files.close()


def in_torch(weights: dict[str, torch.Tensor], r: torch.Tensor) -> dict[str, torch.Tensor]:
    """The usual program: normalise, matmul, outer product, subtract, in fp32."""
    u = nn_normalize(r)
    out = {"norm": weights["norm"]}
    for name in ("0.o_proj", "1.o_proj"):
        w = weights[name].float()
        out[name] = (w - u[:, None] * (u @ w).unsqueeze(-2)).to(weights[name].dtype)
    w = weights["embed"].float()
    out["embed"] = (w - 0.75 * torch.outer(w @ u, u)).to(weights["embed"].dtype)
    return out


def nn_normalize(r: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(r.float(), dim=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_torch_program_is_in_its_cells(tmp_path: Path, dtype: torch.dtype) -> None:
    weights, r = model(dtype), random(96, seed=9)

    found = compared(tmp_path, weights, r, in_torch(weights, r), fields("torch-fp32"))

    assert {result.rung.value for result in found.values()} <= {"A", "C"}
    assert found["norm"].rung.value == "A"
    share = sum(f.ambiguous for f in found.values()) / sum(f.elements for f in found.values())
    assert share < (0.06 if dtype == torch.bfloat16 else 1.01)


def test_other_orders_of_summing_are_in_their_cells(tmp_path: Path) -> None:
    """numpy fp32, one term after another from the end: the worst order there is."""
    weights, r = model(torch.bfloat16), random(96, seed=9)
    u = nn_normalize(r).numpy()
    w = weights["0.o_proj"].float().numpy()
    p = np.zeros(64, dtype=np.float32)
    for i in reversed(range(96)):
        p = p + u[i] * w[i]
    result = in_torch(weights, r)
    result["0.o_proj"] = torch.from_numpy(w - np.outer(u, p)).bfloat16()

    found = compared(tmp_path, weights, r, result, fields("torch-fp32"))

    assert found["0.o_proj"].rung.value in {"A", "C"}


@pytest.mark.parametrize("profile", ["parentage-1", "torch-fp32"])
def test_false_claims_are_refuted(tmp_path: Path, profile: str) -> None:
    weights, r = model(torch.bfloat16), random(96, seed=9)
    result = in_torch(weights, r)
    false = [
        {"rules": [RULES[0] | {"alpha": "0.99"}, RULES[1]]},
        {"rules": [RULES[0] | {"tensors": ["0.o_proj"]}, RULES[1]]},
        {"normalize": False},
    ]
    for n, params in enumerate(false):
        where = tmp_path / str(n)
        where.mkdir()
        found = compared(where, weights, r, result, fields(profile, **params))
        assert "refuted" in {f.rung.value for f in found.values()}
    where = tmp_path / "other"
    where.mkdir()
    found = compared(where, weights, random(96, seed=10), result, fields(profile))
    assert found["0.o_proj"].rung.value == found["embed"].rung.value == "refuted"


def test_one_flipped_element_is_refuted(tmp_path: Path) -> None:
    weights, r = model(torch.bfloat16), random(96, seed=9)
    result = in_torch(weights, r)
    result["0.o_proj"][5, 5] *= 1.05

    found = compared(tmp_path, weights, r, result, fields("torch-fp32"))

    assert (found["0.o_proj"].rung.value, found["0.o_proj"].outside) == ("refuted", 1)


@pytest.mark.parametrize(
    ("directions", "rule"),
    [
        ({"r": torch.ones(95)}, RULES[0]),
        ({"r": torch.ones(96, 1)}, RULES[0]),
        ({"r": torch.ones(96, dtype=torch.int64)}, RULES[0]),
        ({"q": torch.ones(96)}, RULES[0]),
        ({"r": torch.ones(96)}, RULES[0] | {"tensors": ["norm"]}),
        ({"r": torch.ones(96)}, RULES[0] | {"tensors": ["absent"]}),
        ({"r": torch.ones(64)}, RULES[0] | {"tensors": ["0.o_proj"]}),
    ],
)
def test_directions_that_do_not_fit(source: Any, step: Any, directions: Any, rule: Any) -> None:
    inputs = {"m": source(model()), "d": source(directions)}
    with pytest.raises(ShapeMismatchError):
        bind([step(**fields(rules=[rule]))], inputs)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_direction_without_length_is_refused(source: Any, step: Any, value: float) -> None:
    r = torch.zeros(96)
    r[3] = value
    inputs = {"m": source(model()), "d": source({"r": r})}
    bound = bind([step(**fields())], inputs)["s"]
    with pytest.raises(ShapeMismatchError, match="no length"):
        bound.read("embed", 0, 96, Scratch(CPU))
