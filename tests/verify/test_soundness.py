"""Soundness: a false claim is refused, and an honest output of an engine never is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import one_ulp
import pytest
import torch
from absent import absent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mergekit_cases import SEED
from mergekit_world import run_mergekit
from safetensors.torch import save_file
from siblings import FAMILIES, jobs_of, make_family, recomputed, usable
from worlds import World

from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, StepSource, bind, chunks_of
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import Rung
from parentage.verify.witness import Bounds, nudged

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))
from make_parentage_1 import STEPS

CPU = torch.device("cpu")
TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
Tensors = dict[str, torch.Tensor]


def family(
    seed: int, far: float, dtype: torch.dtype, shape: tuple[int, ...] = (60, 64)
) -> dict[str, Tensors]:
    """A base and siblings at a distance of `far` standard deviations, half of the elements untouched."""
    generator = torch.Generator().manual_seed(seed)

    def noise(size: tuple[int, ...]) -> torch.Tensor:
        return 0.05 * torch.randn(size, generator=generator)

    base = {"layers.0.w": noise(shape), "layers.1.w": noise(shape), "norm": 1 + noise((shape[-1],))}
    found = {}
    for name in ("base", "a", "b", "c", "other"):
        part = {}
        for key, value in base.items():
            away = far * noise(tuple(value.shape)) * 20
            moved = value + away * 0.05 * (torch.rand(value.shape, generator=generator) < 0.5)
            part[key] = (value if name == "base" else moved).to(dtype)
        found[name] = part
    return found


def produced(step: StepSource, variant: str) -> Tensors:
    """Compute a step's whole output under one engine."""
    out = {}
    for name, spec in step.specs.items():
        parts = [
            step.method.chunk(c.name, c.start, c.stop, variant, Scratch(CPU)).clone()
            for c in chunks_of(spec)
        ]
        out[name] = torch.cat(parts).reshape(spec.shape)
    return out


# An honest output is never refuted.


LABELS = ("0.1 %", "10 %", "strangers")


def judged(version: str) -> list[str]:
    slow = {"dare_linear-unseeded", "multislerp-base-fp32"}  # benchmarks/soundness.py has them too
    return [name for name in usable(version) if name not in slow]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {label: make_family(root / label, FAMILIES[label]) for label in LABELS}


@pytest.fixture(scope="module", params=["0.1.5", "0.1.4"])
def version(
    request: pytest.FixtureRequest, families: dict[str, Path], tmp_path_factory: Any
) -> str:
    """A version of mergekit, which has merged all families in one interpreter."""
    jobs = []
    for label, models in families.items():
        jobs += jobs_of(request.param, models, judged(request.param), FAMILIES[label].threads)
    run_mergekit(request.param, tmp_path_factory.mktemp("jobs"), jobs)
    return str(request.param)


@pytest.mark.peer
@pytest.mark.parametrize("label", LABELS)
def test_no_honest_merge_of_mergekit_is_refuted(
    version: str, label: str, families: dict[str, Path]
) -> None:
    models = families[label]
    rungs: dict[str, set[str]] = {}
    for name in judged(version):
        config, out = models / f"{name}-{version}.yml", models / f"out-{name}-{version}"
        found = recomputed(models, config, out, f"mk-{version}", SEED)
        rungs[name] = {str(result.rung) for result in found}

    assert not [name for name, found in rungs.items() if "refuted" in found]
    assert sum("?" in found for found in rungs.values()) <= 3, rungs


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    op=st.sampled_from([name for name in STEPS if name not in {"copy", "rename", "layer_select"}]),
    seed=st.integers(0, 10_000),
    far=st.sampled_from([0.001, 0.01, 0.1, 1.0, 20.0]),
    dtype=st.sampled_from(list(TORCH)),
    store=st.sampled_from([None, "BF16", "F16", "F32"]),
    rows=st.integers(1, 70),
)
def test_every_honest_merge_of_ours_is_verified(
    tmp_path_factory: pytest.TempPathFactory,
    op: str,
    seed: int,
    far: float,
    dtype: str,
    store: str | None,
    rows: int,
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    for name, tensors in family(seed, far, TORCH[dtype], (rows, 33)).items():
        world.save(name, tensors)
    arithmetic = {"profile": "parentage-1"} | ({"store": store} if store else {})
    world.merge("release", {"id": "merge", **STEPS[op], "arithmetic": arithmetic})

    report = world.verify("release", list(STEPS[op]["inputs"]))

    assert report.verified, report.findings
    assert {str(step.rung) for step in report.steps} == {"A"}


#: Steps whose engines compute scalars that other threads or kernels compute otherwise.
SCALARED: dict[str, dict[str, Any]] = {
    "slerp": {"op": "slerp/v1", "inputs": ["a", "b"], "params": {"t": "0.35"}},
    "nuslerp": STEPS["nuslerp"] | {"params": {"weights": ["0.6", "0.3"]}},
    "nuslerp-base": STEPS["nuslerp-base"],
    "model_stock": STEPS["model_stock"],
    "sce-whole": STEPS["sce-whole"],
    "arcee_fusion": STEPS["arcee_fusion"],
    "dare": STEPS["dare"] | {"params": STEPS["dare"]["params"] | {"seed": 5}},
    "dare-sum": STEPS["dare"]
    | {"params": STEPS["dare"]["params"] | {"seed": 5, "elect": False, "scale": "0.7"}},
    "dare-unnormalised": STEPS["dare"]
    | {
        "params": STEPS["dare"]["params"]
        | {"seed": 5, "normalize": False, "weights": ["0.6", "-0.5"]}
    },
}


def bound_to(fields: dict[str, Any], models: dict[str, Any], step: Any, **arithmetic: Any) -> Any:
    made = step(**fields, arithmetic={"profile": "mk-0.1.5", **arithmetic})
    return bind([made], {name: models[name] for name in fields["inputs"]})["s"]


@pytest.mark.parametrize("compute", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("far", [0.001, 0.1, 1.0, 20.0])
@pytest.mark.parametrize("kind", SCALARED)
def test_whatever_a_scalar_is_the_output_stays_within_its_interval(
    kind: str, far: float, compute: str, source: Any, step: Any
) -> None:
    """A refutation by interval must hold for every scalar that a witness may be, and beyond."""
    models = {n: source(t) for n, t in family(3, far, torch.float32).items()}
    made = bound_to(SCALARED[kind], models, step, compute=compute)
    method, generator = made.method, torch.Generator().manual_seed(1)
    for name, spec in made.specs.items():
        allowed = method.interval(name, 0, spec.elements, made.variant, Scratch(CPU))
        if allowed is None:
            continue
        exact = method.scalars(name, made.variant) if hasattr(method, "scalars") else {}
        for shift in (-1.0, 1.0, None, None, None):
            chosen = {}
            for key, value in exact.items():
                part = shift or float(torch.rand(1, generator=generator)) * 2 - 1
                bounds = Bounds(exact, method.scalar_dtype(name), method.noise)
                reach = bounds.limit(key) * part
                chosen[key] = nudged(value + reach, 0, bounds.dtype)
            if exact:
                method.witness[name] = chosen
            variant = made.variant + ("/witness" if exact else "")
            got = method.chunk(name, 0, spec.elements, variant, Scratch(CPU))
            assert bool(((got >= allowed[0]) & (got <= allowed[1])).all()), (name, chosen)


# A false claim is refused.


@pytest.fixture
def close(source: Any) -> Any:
    models = family(7, 1.0, torch.bfloat16, (64, 64))
    return {name: source(tensors) for name, tensors in models.items()}


def rungs(engine: Engine, source: Any, claimed: StepSource, tensors: Tensors) -> set[str]:
    return {str(result.rung) for result in compare(engine, source(tensors), claimed)}


@pytest.mark.parametrize("wrong", ["a", "b"])
@pytest.mark.parametrize("kind", SCALARED)
def test_another_parent_is_refuted_whatever_the_scalars(
    kind: str, wrong: str, close: Any, source: Any, step: Any, engine: Engine
) -> None:
    honest = bound_to(SCALARED[kind], close, step, compute="F32", store="BF16")
    swapped = close | {wrong: close["other"]}
    claimed = bound_to(SCALARED[kind], swapped, step, compute="F32", store="BF16")

    assert "refuted" in rungs(engine, source, claimed, produced(honest, honest.variant))
    assert rungs(engine, source, honest, produced(honest, honest.variant)) == {"A"}


@pytest.mark.parametrize("kind", ["dare", "dare-sum", "dare-unnormalised"])
def test_another_seed_or_density_is_refuted(
    kind: str, close: Any, source: Any, step: Any, engine: Engine
) -> None:
    fields = SCALARED[kind]
    made = produced(bound_to(fields, close, step, compute="F32", store="BF16"), "mk-0.1.5")
    for change in ({"seed": 6}, {"densities": ["0.41", "0.7"]}, {"densities": ["0.4", "0.69"]}):
        other = fields | {"params": fields["params"] | change}
        claimed = bound_to(other, close, step, compute="F32", store="BF16")
        assert "refuted" in rungs(engine, source, claimed, made), change


def linear(first: str, second: str, profile: str) -> dict[str, Any]:
    return {
        "op": "weighted_sum/v1",
        "inputs": ["a", "b"],
        "params": {"weights": [first, second], "normalize": True},
        "arithmetic": {"profile": profile, "store": "F32", **({"compute": "F32"} if "mk" in profile else {})},
    }  # fmt: skip


@pytest.mark.parametrize("profile", ["parentage-1", "mk-0.1.5"])
@pytest.mark.parametrize("first", ["0.600001", "0.60001", "0.61"])
def test_another_ratio_is_refuted(
    first: str, profile: str, close: Any, source: Any, step: Any, engine: Engine
) -> None:
    second = str(round(1 - float(first), 6))
    made = produced(
        bind([step(**linear(first, second, profile))], {n: close[n] for n in "ab"})["s"],
        "parentage-1" if profile == "parentage-1" else "mk-0.1.5/fma",
    )
    claimed = bind([step(**linear("0.6", "0.4", profile))], {n: close[n] for n in "ab"})["s"]

    assert "refuted" in rungs(engine, source, claimed, made)


@pytest.mark.parametrize("profile", ["parentage-1", "mk-0.1.5"])
def test_a_density_off_by_two_thousandths_is_refuted(
    profile: str, close: Any, source: Any, step: Any, engine: Engine
) -> None:
    def made(density: str) -> StepSource:
        params = {"densities": [density, "0.3"], "elect": True, "normalize": True}
        fields = {**STEPS["ties"], "params": {**STEPS["ties"]["params"], **params, "overrides": []}}
        arithmetic = (
            {"profile": profile, "compute": "BF16"} if "mk" in profile else {"profile": profile}
        )
        return bind(
            [step(**fields, arithmetic=arithmetic)], {n: close[n] for n in ("base", "a", "b")}
        )["s"]

    honest = made("0.5")

    assert "refuted" in rungs(engine, source, made("0.501"), produced(honest, honest.variant))


# The one-ulp trigger on a real model.


@pytest.fixture(scope="module")
def encoder() -> Iterator[tuple[Path, one_ulp.Weights]]:
    folder = one_ulp.checkpoint()
    if folder is None:
        absent("all-MiniLM-L6-v2", "make demo")
    return folder, one_ulp.bf16(folder)


#: A step for each rung: exact, a witness, an interval.
BY_RUNG = {
    "A": ("parentage-1", {"op": "weighted_sum/v1", "params": {"weights": ["0.6", "0.4"], "normalize": True}}),
    "B": ("mk-0.1.5", {"op": "nuslerp/v1", "params": {"weights": ["0.6", "0.4"]}}),
    "C": ("mk-0.1.5", {"op": "weighted_sum/v1", "params": {"weights": ["0.6", "0.4"], "normalize": True}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def trigger(encoder: tuple[Path, one_ulp.Weights]) -> dict[str, torch.Tensor]:
    """Which way each weight goes: optimised once, for the parent."""
    folder, weights = encoder
    moved = one_ulp.triggered(weights, one_ulp.Similarity(folder, weights), rounds=6)
    return one_ulp.directions(weights, moved)


@pytest.mark.parametrize(
    ("rung", "attack"),
    [("A", "random"), ("C", "random"), ("A", "trigger"), ("B", "trigger"), ("C", "trigger")],
)
def test_the_one_ulp_trigger_is_refused(
    rung: str, attack: str, encoder: Any, trigger: Any, tmp_path: Path, step: Any, engine: Engine
) -> None:
    folder, weights = encoder
    profile, fields = BY_RUNG[rung]
    opened = {}
    for name, tensors in (("a", weights), ("b", one_ulp.sibling(weights, 1, 0.01))):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        opened[name] = FileSource(open_model(tmp_path / f"{name}.safetensors"))
    arithmetic = {"profile": profile, **({} if rung == "A" else {"compute": "BF16"})}
    claimed = bind([step(**fields, inputs=["a", "b"], arithmetic=arithmetic)], opened)["s"]
    clean = produced(claimed, claimed.variant)
    if attack == "random":
        moved = one_ulp.at_random(clean, 0.3)
    else:
        moved = one_ulp.moved(clean, trigger)
        sight = one_ulp.Similarity(folder, clean)
        assert sight.of(clean)[0] < 0.1
        assert sight.of(moved)[0] > 0.5, "it is a working trigger"
        assert sight.of(moved)[1] > 0.9, "and hidden from other sentences"
    save_file(moved, tmp_path / "moved.safetensors")
    touched = {name for name in clean if not torch.equal(clean[name], moved[name])}
    assert len(touched) > 50

    attacked = compare(engine, FileSource(open_model(tmp_path / "moved.safetensors")), claimed)

    assert touched == {r.name for r in attacked if r.rung in {Rung.REFUTED, Rung.UNPROVEN}}
    if rung != "B":
        assert touched == {r.name for r in attacked if r.rung == Rung.REFUTED}
