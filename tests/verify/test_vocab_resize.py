"""Vocabulary resize: old rows by range or index, new rows from data, filled rows by their mean."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from worlds import World

import parentage
from parentage.manifest.errors import RecipeError
from parentage.verify.engine import Engine, bind, identities
from parentage.verify.values import Scratch

CPU = torch.device("cpu")
NAMES = ["embed", "head"]


def random(*shape: int, seed: int = 1, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def resize(rows: list[dict[str, Any]], inputs: list[str]) -> dict[str, Any]:
    params = {"tensors": NAMES, "rows": rows}
    return {"id": "s", "op": "vocab_resize/v1", "inputs": inputs, "params": params}


def read(step: Any, sources: Any, name: str, cuts: int) -> np.ndarray:
    bound = bind([step], sources)["s"]
    spec = bound.specs[name]
    edges = np.linspace(0, spec.elements, cuts + 1).astype(int).tolist()
    parts = []
    for start, stop in pairwise(edges):
        parts.append(bound.read(name, start, stop, Scratch(CPU)).float().clone())
    return torch.cat(parts).numpy().reshape(spec.shape)


@pytest.mark.parametrize("cuts", [1, 5])
def test_rows_are_cut_added_and_put_in_order(source: Any, step: Any, cuts: int) -> None:
    old = {"embed": random(30, 8), "head": random(30, 8, seed=2), "norm": random(8)}
    added = {"embed": random(3, 8, seed=3), "head": random(3, 8, seed=4)}
    index = torch.tensor([29, 0, 0, 7, 8, 9], dtype=torch.int32)
    sources = {"m": source(old), "new": source(added | {"order": index})}
    rows = [
        {"rows": "range", "input": "m", "end": 20},
        {"rows": "range", "input": "new"},
        {"rows": "index", "input": "m", "index": "new", "tensor": "order"},
        {"rows": "range", "input": "new", "start": 1, "end": 2},
    ]
    made = step(**resize(rows, ["m", "new"]))

    for name in NAMES:
        w, extra = old[name].float().numpy(), added[name].float().numpy()
        expected = np.concatenate([w[:20], extra, w[index.numpy()], extra[1:2]])
        assert np.array_equal(read(made, sources, name, cuts), expected)
    assert bind([made], sources)["s"].alias("norm") == (sources["m"], "norm")


@pytest.mark.parametrize("cuts", [1, 4])
def test_padding_is_the_mean_rounded_once(source: Any, step: Any, cuts: int) -> None:
    """The exact mean of bf16 numbers of one size is a float64 here, so the oracle is a fraction."""
    w = torch.randint(-120, 120, (64, 6), generator=torch.Generator().manual_seed(1)).bfloat16()
    rows = [{"rows": "range", "input": "m"}, {"rows": "mean", "input": "m", "count": 4}]
    made = step(**resize(rows, ["m"]))

    got = read(made, {"m": source({"embed": w})}, "embed", cuts)

    mean = [sum(map(Fraction, column), Fraction(0)) / 64 for column in w.T.tolist()]
    assert np.array_equal(got[:64], w.float().numpy())
    for row in got[64:]:
        assert row.tolist() == torch.tensor([float(x) for x in mean]).bfloat16().tolist()


def test_threads_change_nothing(source: Any, step: Any) -> None:
    w = random(3000, 700)
    index = torch.randperm(3000, generator=torch.Generator().manual_seed(5))
    sources = {"m": source({"embed": w}), "o": source({"order": index})}
    rows = [
        {"rows": "index", "input": "m", "index": "o", "tensor": "order"},
        {"rows": "mean", "input": "m", "count": 7},
    ]
    made = step(**resize(rows, ["m", "o"]))

    found = [identities(Engine(CPU, n), bind([made], sources)["s"]) for n in (1, 2, 4)]

    assert found[0] == found[1] == found[2]
    assert np.array_equal(read(made, sources, "embed", 3)[:3000], w[index].float().numpy())


def test_a_resize_is_merged_declared_and_verified(world: World) -> None:
    old, new = random(30, 8), random(2, 8, seed=3)
    world.save("m", {"embed": old, "norm": random(8)})
    world.save("rows", {"embed": new})
    rows = [{"rows": "range", "input": "m"}, {"rows": "range", "input": "rows"}]
    made = resize(rows, ["m", "rows"])
    parents = {i: world.root / i for i in ("m", "rows")}
    parentage.merge(world.recipe(["m", "rows"], [made]), world.root / "big", parents=parents)
    world.sign("big")

    assert world.verify("big", ["m", "rows"]).verified
    weights = load_file(world.root / "big" / "model.safetensors")
    assert torch.equal(weights["embed"], torch.cat([old, new]))

    weights["embed"][30, 0] += 1  # a new row that is not the one that was shipped
    world.save("false", weights)
    world.declare("false", ["m", "rows"], [made])
    report = world.verify("false", ["m", "rows"])
    assert [f.where for f in report.findings if f.refutes] == ["embed[240]"]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"rows": "range", "input": "m", "end": 31}], "no such row"),
        ([{"rows": "range", "input": "m", "start": 5, "end": 4}], "no such row"),
        ([{"rows": "range", "input": "o"}], "rows do not fit"),
        ([{"rows": "index", "input": "m", "index": "o", "tensor": "far"}], "no such row"),
        ([{"rows": "index", "input": "m", "index": "o", "tensor": "negative"}], "no such row"),
        ([{"rows": "index", "input": "m", "index": "o", "tensor": "floats"}], "no such index"),
        ([{"rows": "index", "input": "m", "index": "o", "tensor": "absent"}], "no such index"),
        ([{"rows": "mean", "input": "m", "count": 1 << 50}], "too large"),
    ],
)
def test_rows_that_are_not_there(source: Any, step: Any, rows: Any, problem: str) -> None:
    other = {
        "embed": random(30, 9),
        "far": torch.tensor([30]),
        "negative": torch.tensor([-1]),
        "floats": torch.zeros(2),
    }
    used = [*rows, {"rows": "index", "input": "m", "index": "o", "tensor": "far"}]
    reads_o = any("o" in (r["input"], r.get("index")) for r in rows)
    made = resize(rows if reads_o else [*rows, used[-1]], ["m", "o"])
    if not reads_o:
        other["far"] = torch.tensor([0])
    sources = {"m": source({"embed": random(30, 8)}), "o": source(other)}

    with pytest.raises(RecipeError, match=problem):
        bind([step(**made)], sources)


def test_an_input_that_nothing_reads_is_refused(step: Any) -> None:
    with pytest.raises(RecipeError, match="nothing uses an input"):
        step(**resize([{"rows": "range", "input": "m"}], ["m", "o"]))
