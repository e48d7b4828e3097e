"""`merge`: what it copies, what it writes, and that shards and threads do not change a bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from worlds import MERGE, World

import parentage
from parentage.manifest.errors import ParentMissingError, RecipeError, UsageError


def merge(world: World, name: str, **options: object) -> Path:
    parents = {i: world.root / i for i in ("a", "b")}
    recipe = world.recipe(["a", "b"], [MERGE])
    parentage.merge(recipe, world.root / name, parents=parents, **options)  # type: ignore[arg-type]
    return world.root / name


def test_the_weights_are_those_of_numpy(world: World) -> None:
    """float64 by another library: 0.6 a + 0.4 b with exact ratios, rounded once."""
    made = load_file(merge(world, "out") / "model.safetensors")
    a, b = world.weights("a"), world.weights("b")

    for name, tensor in made.items():
        exact = a[name].numpy().astype("float64") * 0.6 + b[name].numpy().astype("float64") * 0.4
        assert (tensor.numpy() == exact.astype("float32")).all()


def test_shards_and_threads_do_not_change_a_bit(world: World) -> None:
    one = merge(world, "one", threads=1)
    many = merge(world, "many", threads=2, shard_bytes=30_000)

    assert len(list(many.glob("*.safetensors"))) > 1
    assert (many / "model.safetensors.index.json").exists()
    whole = load_file(one / "model.safetensors")
    parts: dict[str, torch.Tensor] = {}
    for path in many.glob("*.safetensors"):
        parts |= load_file(path)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    world.sign("many")
    assert world.verify("many", ["a", "b"]).verified


def test_companions_come_from_one_parent_without_its_card(world: World) -> None:
    for name in ("a", "b"):
        (world.root / name / "sub").mkdir()
        for file in ("config.json", "README.md", "pytorch_model.bin", "sub/vocab.txt", ".hidden"):
            (world.root / name / file).write_text(f"{file} of {name}")

    out = merge(world, "out", companions="b")

    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {
        "config.json", "sub/vocab.txt", "model.safetensors",
        ".parentage/draft.json", ".parentage/tensors.jsonl", ".parentage/leaves.bin",
    }  # fmt: skip
    assert (out / "config.json").read_text() == "config.json of b"


def test_what_merge_refuses(world: World) -> None:
    recipe = world.recipe(["a", "b"], [MERGE])
    paths = {i: world.root / i for i in ("a", "b")}
    with pytest.raises(UsageError, match="exists already"):
        parentage.merge(recipe, world.root / "a", parents=paths)
    with pytest.raises(ParentMissingError, match="parent not given"):
        parentage.merge(recipe, world.root / "out", parents={"a": paths["a"]})
    with pytest.raises(RecipeError, match="computable steps only"):
        parentage.merge(world.recipe([], []), world.root / "out", parents={})
    with pytest.raises(UsageError, match="companions"):
        parentage.merge(recipe, world.root / "out", parents=paths, companions="c")
    assert not (world.root / "out").exists()
