"""Recipes that need no op of their own: soups, task vectors, layers dropped, doubled and picked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import World

import parentage
from parentage.manifest import recipe

ARITHMETIC = {"profile": "parentage-1"}


def made(world: World, parents: list[str], steps: list[Any], name: str = "out") -> Path:
    """Merge and sign a recipe, and see that it verifies."""
    paths = {i: world.root / i for i in parents}
    parentage.merge(world.recipe(parents, steps), world.root / name, parents=paths)
    world.sign(name)
    assert world.verify(name, parents).verified
    return world.root / name


def test_a_soup_is_a_weighted_sum(world: World) -> None:
    """Ten bf16 checkpoints, averaged by torch in fp32: what mergekit's linear computes, bit for bit."""
    names = [f"c{n}" for n in range(10)]
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(50, 40, generator=generator)
    for name in names:
        noise = 0.01 * torch.randn(50, 40, generator=generator)
        world.save(name, {"w": (start + noise).bfloat16()})
    params = {"weights": ["1"] * 10, "normalize": True}
    step = {
        "id": "soup",
        "op": "weighted_sum/v1",
        "inputs": names,
        "params": params,
        "arithmetic": {"profile": "mk-0.1.5", "compute": "F32", "store": "BF16"},
    }
    stack = torch.stack([world.weights(name)["w"].float() for name in names])
    world.save("soup", {"w": stack.mean(dim=0).bfloat16()})
    world.declare("soup", names, [step])

    assert world.verify("soup", names).verified

    mean = {"id": "mean", "op": "running_mean/v1", "inputs": names, "arithmetic": ARITHMETIC}
    world.declare("soup", names, [mean])
    assert world.verify("soup", names).verified

    world.save("greedy", {"w": stack[:9].mean(dim=0).bfloat16()})
    world.declare("greedy", names, [step])
    assert world.verify("greedy", names).verdict == "refuted"


def test_a_task_vector_is_taken_and_applied(world: World) -> None:
    """d = tuned - base as weights of their own; base + s d from them, or other + s d."""
    take = {
        "id": "vector", "op": "weighted_sum/v1", "inputs": ["a", "base"],
        "params": {"weights": ["1", "-1"], "normalize": False}, "arithmetic": ARITHMETIC,
    }  # fmt: skip
    apply = {
        "id": "applied", "op": "weighted_sum/v1", "inputs": ["b", "vector"],
        "params": {"weights": ["1", "0.5"], "normalize": False}, "arithmetic": ARITHMETIC,
    }  # fmt: skip
    made(world, ["a", "base"], [take], "vector")
    a, b, base, vector = (world.weights(name) for name in ("a", "b", "base", "vector"))
    for name in a:
        # What torch gives: one subtraction in fp32 is the exact difference rounded once.
        assert torch.equal(vector[name], a[name] - base[name])

    made(world, ["b", "vector"], [apply], "from-file")
    made(world, ["a", "base", "b"], [take, apply], "in-one")

    one, two = world.weights("from-file"), world.weights("in-one")
    for name in a:
        exact = b[name].double() + vector[name].double() * 0.5
        assert torch.equal(one[name], exact.float())
        assert torch.equal(one[name], two[name])
    world.save("false", {name: b[name] + vector[name] * 0.51 for name in b})
    world.declare("false", ["b", "vector"], [apply])
    assert world.verify("false", ["b", "vector"]).verdict == "refuted"


LAYERS = """
version: "0.1"
parents: [{{id: a}}, {{id: b}}]
steps:
  - id: stacked
    op: layer_select/v1
    inputs: [a, b]
    params:
      prefix: "layers."
      slices: {slices}
      rest: [{{tensors: "*", input: a}}, {{tensors: "*", input: b}}]
"""


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([("a", 0, 3), ("a", 1, 4), ("b", 3, 4)], ["a0", "a1", "a2", "a1", "a2", "a3", "b3"]),
        ([("a", 0, 1), ("b", 3, 4)], ["a0", "b3"]),
        ([("a", 3, 4), ("b", 2, 3), ("a", 1, 2), ("a", 1, 2)], ["a3", "b2", "a1", "a1"]),
        ([("b", 0, 4), ("a", 0, 0)], ["b0", "b1", "b2", "b3"]),
    ],
    ids=["depth-up-scaling", "pruned", "not-contiguous", "all-of-one"],
)
def test_layers_are_doubled_dropped_and_picked(
    world: World, slices: list[tuple[str, int, int]], expected: list[str]
) -> None:
    rows = [{"input": i, "start": start, "end": end} for i, start, end in slices]
    path = world.root / "recipe.yaml"
    path.write_text(LAYERS.format(slices=str(rows).replace("'", '"')))
    parents = {i: world.root / i for i in ("a", "b")}
    parentage.merge(recipe.load(path), world.root / "out", parents=parents)
    world.sign("out")

    assert world.verify("out", ["a", "b"]).verified
    weights = world.weights("out")
    assert weights.keys() == {"norm", *(f"layers.{n}.w" for n in range(len(expected)))}
    for n, layer in enumerate(expected):
        source = world.weights(layer[0])[f"layers.{layer[1]}.w"]
        assert torch.equal(weights[f"layers.{n}.w"], source)
    assert torch.equal(weights["norm"], world.weights("a")["norm"])

    weights["layers.0.w"], weights["layers.1.w"] = weights["layers.1.w"], weights["layers.0.w"]
    world.save("false", weights)
    world.declare("false", ["a", "b"], [recipe.msgspec.to_builtins(recipe.load(path).steps[0])])
    assert world.verify("false", ["a", "b"]).verdict == "refuted"


def test_layers_that_are_not_there_are_refused(world: World) -> None:
    rows = '[{"input": "a", "start": 2, "end": 5}, {"input": "b", "start": 0, "end": 1}]'
    path = world.root / "recipe.yaml"
    path.write_text(LAYERS.format(slices=rows))
    parents = {i: world.root / i for i in ("a", "b")}
    with pytest.raises(parentage.ParentageError, match="no such layer"):
        parentage.merge(recipe.load(path), world.root / "out", parents=parents)
