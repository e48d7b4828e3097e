"""What only rung A needs is not done where less is asked for, and the verdict is right all the same."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest.recipe import Recipe
from parentage.manifest.recipe import parse as recipe_of
from parentage.verify import native
from parentage.verify.engine import bind
from parentage.verify.methods.cosines import Curve, Sampled, bisected
from parentage.verify.methods.products import Products
from parentage.verify.recompute import compare
from parentage.verify.sums import RunningSum
from parentage.verify.verdict import ENOUGH, Rung
from parentage.verify.witnessing import with_witness

T = 0.35
SLERP: dict[str, Any] = {
    "op": "slerp/v1",
    "inputs": ["a", "b"],
    "params": {"t": str(T)},
    "arithmetic": {"profile": "mk-0.1.5", "compute": "BF16"},
}
TIES: dict[str, Any] = {
    "op": "task_arithmetic/v1",
    "inputs": ["a", "b", "base"],
    "params": {
        "base": "base",
        "weights": ["0.6", "0.5"],
        "sparsify": "magnitude",
        "densities": ["0.5", "0.3"],
        "elect": True,
        "normalize": True,
    },
    "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"},
}
SIZES = {"small": 77, "middle": 50_000, "large": 3_000_001}


def siblings(distance: float = 0.5) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    a = {name: torch.randn(size, generator=generator) for name, size in SIZES.items()}
    b = {n: x + distance * torch.randn(x.shape, generator=generator) for n, x in a.items()}
    return {
        name: {n: (0.02 * x).to(torch.bfloat16) for n, x in part.items()}
        for name, part in (("a", a), ("b", b))
    }


def slerped(a: torch.Tensor, b: torch.Tensor, off: float) -> torch.Tensor:
    """What mergekit stores where its reductions give another cosine; by numpy, not by the method."""
    x, y = a.double().numpy(), b.double().numpy()
    cosine = np.float32(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) * np.float32(1 + off)
    theta = torch.acos(torch.tensor(cosine))
    sine = torch.sin(theta)
    c_a = torch.sin((1 - torch.tensor(T)) * theta) / sine
    c_b = torch.sin(torch.tensor(T) * theta) / sine
    return (c_a * a.float() + c_b * b.float()).to(a.dtype)


def no_replay(*_: Any) -> Any:
    raise AssertionError("tensors were reduced as torch reduces them")


@pytest.mark.parametrize("off", [0.0, 3e-7, -2e-6, 8e-5, -3e-4])
def test_the_cosine_is_read_off_without_reducing_as_torch_does(
    engine: Any, source: Any, step: Any, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = siblings()
    made = {name: slerped(parts["a"][name], parts["b"][name], off) for name in SIZES}
    inputs = {name: source(part) for name, part in parts.items()}
    bound = bind([step(**SLERP)], inputs)["s"]
    monkeypatch.setattr(type(bound.method), "replay", no_replay)

    results = compare(engine, source(made), bound, rung="B")

    assert {result.rung for result in results} == {Rung.WITNESSED}
    for result in results:
        if result.name != "small":  # 77 elements of bf16 tell little of it
            assert result.witness["dot"].deviation == pytest.approx(abs(off), abs=2e-6)


@pytest.mark.parametrize("t", ["0.3499", "0.36"])
def test_another_t_is_not_read_into_the_cosine(engine: Any, source: Any, step: Any, t: str) -> None:
    parts = siblings()
    made = {name: slerped(parts["a"][name], parts["b"][name], 0.0) for name in SIZES}
    inputs = {name: source(part) for name, part in parts.items()}
    bound = bind([step(**SLERP | {"params": {"t": t}})], inputs)["s"]

    results = {r.name: r for r in compare(engine, source(made), bound, rung="B")}

    assert results["large"].rung not in ENOUGH["B"]
    assert results["middle"].rung not in ENOUGH["B"]


def test_one_other_element_is_not_read_into_the_cosine(engine: Any, source: Any, step: Any) -> None:
    parts = siblings()
    made = {name: slerped(parts["a"][name], parts["b"][name], 1e-6) for name in SIZES}
    made["large"].view(torch.int16)[2_345_678] ^= 1
    inputs = {name: source(part) for name, part in parts.items()}
    bound = bind([step(**SLERP)], inputs)["s"]

    results = {r.name: r for r in compare(engine, source(made), bound, rung="B")}

    assert results["large"].rung not in ENOUGH["B"]
    assert results["middle"].rung == Rung.WITNESSED


def test_what_is_no_float_is_compared_whatever_rung_is_asked_for(
    engine: Any, source: Any, step: Any
) -> None:
    """Copies are copies: an honest merge with positions in it is not left open."""
    places = {"position_ids": torch.arange(512)}
    generator = torch.Generator().manual_seed(5)
    parts = {
        name: source(places | {"w": torch.randn(4096, generator=generator)})
        for name in ("a", "b", "base")
    }
    for fields, rung in ((TIES, "C"), (SLERP, "B")):
        bound = bind([step(**fields)], {name: parts[name] for name in fields["inputs"]})["s"]
        values = bound.method.chunk("w", 0, 4096, bound.variant, engine._scratch(engine.device))
        honest = source(places | {"w": values.clone()})
        moved = source({"position_ids": torch.arange(512) + 1, "w": values.clone()})

        found = {r.name: r.rung for r in compare(engine, honest, bound, rung=rung)}
        assert found["position_ids"] == Rung.EXACT
        assert found["w"] in ENOUGH[rung]
        (ids,) = (r for r in compare(engine, moved, bound, rung=rung) if r.name == "position_ids")
        assert ids.rung == Rung.REFUTED
        assert ids.differing == 512


def test_scalars_of_rung_a_are_published_too(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is content with rung B then looks for nothing."""
    parts = siblings()
    for name, part in parts.items():
        save_file(part, tmp_path / f"{name}.safetensors")
    given = {name: tmp_path / f"{name}.safetensors" for name in parts}
    recipe: Recipe = recipe_of(
        {
            "version": "0.1",
            "parents": [{"id": name} for name in parts],
            "steps": [{"id": "s", **SLERP}],
        },
        where="test",
    )
    from parentage.manifest.model import open_model
    from parentage.verify.values import FileSource

    inputs = {name: FileSource(open_model(path)) for name, path in given.items()}
    bound = bind(recipe.steps, inputs)["s"]
    made = {
        name: bound.method.chunk(
            name, 0, size, bound.variant, engine._scratch(engine.device)
        ).clone()
        for name, size in SIZES.items()
    }
    made["large"] = slerped(parts["a"]["large"], parts["b"]["large"], 5e-5)
    save_file(made, tmp_path / "merged.safetensors")

    found, results = with_witness(recipe, tmp_path / "merged.safetensors", parents=given)

    assert {r.name: r.rung for r in results} == {
        "small": Rung.EXACT,
        "middle": Rung.EXACT,
        "large": Rung.WITNESSED,
    }
    again = bind(found.steps, inputs)["s"]
    assert set(again.method.witness) == set(SIZES)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(again.method), "replay", no_replay)
    monkeypatch.setattr(type(again.method), "suggest", no_replay)
    release = FileSource(open_model(tmp_path / "merged.safetensors"))
    assert {r.rung for r in compare(engine, release, again, rung="B")} == {Rung.WITNESSED}


@pytest.mark.parametrize(("off", "enough"), [(5e-3, True), (0.02, False)])
def test_a_published_cosine_is_held_to_float64(
    engine: Any, source: Any, step: Any, off: float, enough: bool
) -> None:
    """What it is held to is found while elements are compared with what it gives."""
    parts = siblings()
    a, b = parts["a"]["large"], parts["b"]["large"]
    x, y = a.double().numpy(), b.double().numpy()
    cosine = np.float32(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) * np.float32(1 - off)
    inputs = {name: source({"large": part["large"]}) for name, part in parts.items()}
    published = {"large": {"dot": float(cosine).hex()}}
    bound = bind([step(**SLERP, witness=published)], inputs)["s"]

    (found,) = compare(engine, source({"large": slerped(a, b, -off)}), bound, rung="B")

    assert (found.rung in ENOUGH["B"]) == enough
    if enough:
        assert found.witness["dot"].value == float(cosine).hex()
        assert found.witness["dot"].deviation == pytest.approx(off, abs=1e-6)


def test_products_come_from_pieces_in_any_order() -> None:
    generator = torch.Generator().manual_seed(1)
    size = 7 * 4096 + 11
    a, b = (torch.randn(size, generator=generator).to(torch.bfloat16) for _ in range(2))
    cuts = [0, 2 * 4096, 3 * 4096, 7 * 4096, size]
    products = Products(size)
    for start, stop in reversed(list(pairwise(cuts))):
        assert products.totals() is None
        products.add(start, a[start:stop], b[start:stop])
    products.add(0, a[: cuts[1]], b[: cuts[1]])  # what comes twice counts once
    found = products.totals()

    assert found is not None
    for key, (left, right) in {"aa": (a, a), "bb": (b, b), "ab": (a, b)}.items():
        sums = RunningSum()
        sums.add(left, right)
        assert found[key] == sums.total()
        terms = left.double().numpy() * right.double().numpy()
        assert found[key] == pytest.approx(math.fsum(terms), rel=1e-12)
    for start, stop in ((5, 4096), (0, 100)):
        with pytest.raises(ValueError, match="inside a block"):
            products.add(start, a[start:stop], b[start:stop])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("target", [0.2, 0.6, 0.93])
def test_bisection_finds_the_cosine_of_its_elements(dtype: torch.dtype, target: float) -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(200_000, generator=generator).to(dtype) for _ in range(2))

    def pair(cosine: float) -> tuple[float, float]:
        theta = np.arccos(np.float32(cosine))
        return float(np.sin((1 - T) * theta) / np.sin(theta)), float(
            np.sin(T * theta) / np.sin(theta)
        )

    def made(x: torch.Tensor, y: torch.Tensor, factors: tuple[float, float]) -> torch.Tensor:
        return (x.float() * factors[0] + y.float() * factors[1]).to(dtype)

    sampled = Sampled(left, right, made(left, right, pair(target)), made)
    curve = Curve(T, lambda cosines: [pair(cosine) for cosine in cosines], "F32", 0.9995)

    found, missed = bisected(sampled, curve, target * (1 + 4e-3), 1e-2)

    assert missed == 0
    assert found[len(found) // 2] == pytest.approx(target, abs=3e-6)


@pytest.mark.parametrize("missing", [False, True])
def test_the_same_cosine_is_found_with_and_without_compiled_kernels(
    engine: Any, source: Any, step: Any, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report names the scalar: it may not depend on whether there was a compiler."""
    parts = siblings(0.05)  # so near that a sample leaves many cosines
    a, b = parts["a"]["large"], parts["b"]["large"]
    made = slerped(a, b, 8e-5)
    if missing:
        for part in (a, made):
            part[700_001] = float("nan")
    inputs = {name: source({"large": part["large"]}) for name, part in parts.items()}
    release = source({"large": made})
    suggested = []
    for asked in ("1", "0"):
        monkeypatch.setenv("PARENTAGE_NATIVE", asked)
        native.library.cache_clear()
        method = bind([step(**SLERP)], inputs)["s"].method
        suggested.append(method.suggest("large", "mk-0.1.5", release))
    monkeypatch.undo()
    native.library.cache_clear()

    assert suggested[0] == suggested[1]
    assert suggested[0]["dot"] > 0
