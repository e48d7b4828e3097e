"""The lineage predicate: its schema, and roots that must not contradict each other."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch
from worlds import MERGE, World

import parentage
from parentage.manifest import lineage
from parentage.manifest.errors import (
    FileSetError,
    LineageError,
    MalformedError,
    ParentMissingError,
    RecipeError,
    UsageError,
)

ROOT, OTHER = {"ptd1-b3": "1" * 64}, {"ptd1-b3": "2" * 64}
GOOD: dict[str, Any] = {
    "weights": {"root": ROOT, "tensors": 1, "bytes": "8"},
    "parents": [{"id": "a", "weights": OTHER}, {"id": "b", "weights": {"ptd1-b3": "3" * 64}}],
    "recipe": {"steps": [{**MERGE, "output": ROOT}]},
    "created": "2026-06-14T09:00:00Z",
}


def test_the_good_one() -> None:
    assert lineage.to_document(lineage.parse(GOOD, where="t"))["weights"]["bytes"] == "8"


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (("weights", "root"), {}, LineageError),
        (("weights", "root"), {"md5": "1" * 64}, LineageError),
        (("weights", "root", "ptd1-b3"), "1" * 63, LineageError),
        (("weights", "root", "ptd1-b3"), "1" * 64 + "\n", LineageError),
        (("weights", "tensors"), 0, LineageError),
        (("weights", "tensors"), True, LineageError),
        (("weights", "bytes"), 8, LineageError),
        (("weights", "bytes"), "08", LineageError),
        (("weights", "bytes"), "1e3", LineageError),
        (("parents", 0, "weights"), {}, LineageError),
        (("parents", 0, "name"), "x", LineageError),
        (("parents", 1, "id"), "a", RecipeError),
        (("parents", 1, "id"), "c", RecipeError),
        (("created",), "2026-06-14", LineageError),
        (("created",), "2026-06-14T09:00:00Z\n", LineageError),
        (("recipe", "steps", 0, "output"), OTHER, LineageError),
        (("comment",), "hi", LineageError),
    ],
)
def test_broken_predicates(path: tuple[Any, ...], value: Any, error: type[MalformedError]) -> None:
    document = copy.deepcopy(GOOD)
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value

    with pytest.raises(error):
        lineage.parse(document, where="lineage")


def test_declare_needs_every_parent(world: World) -> None:
    world.save("out", world.weights("a"))
    recipe = world.recipe(["a", "b"], [MERGE])

    with pytest.raises(ParentMissingError) as caught:
        parentage.declare(world.root / "out", recipe, parents={"a": world.root / "a"})

    assert caught.value.where == "b"
    assert "--parent b=" in caught.value.hint


@pytest.mark.parametrize("root", ["1" * 63, "Z" * 64, "1" * 64 + "\n"])
def test_a_root_that_is_none(world: World, root: str) -> None:
    world.save("out", world.weights("a"))
    with pytest.raises(UsageError, match="not a weights root"):
        parentage.declare(
            world.root / "out", world.recipe(["a", "b"], [MERGE]), parents={"a": root, "b": root}
        )


def test_a_parent_may_be_given_by_its_root(world: World) -> None:
    world.merge()
    given = {p.id: p.weights["ptd1-b3"] for p in world.lineage("merged").parents}
    shutil.rmtree(world.root / "merged" / ".parentage")
    (world.root / "merged" / "model.sig").unlink()
    parentage.declare(world.root / "merged", world.recipe(["a", "b"], [MERGE]), parents=given)
    world.sign("merged")

    assert world.verify("merged", ["a", "b"]).verified


def test_declare_refuses_an_id_that_the_recipe_lacks(world: World) -> None:
    with pytest.raises(UsageError, match="not in the recipe"):
        parentage.declare(
            world.root / "a",
            world.recipe(["a", "b"], [MERGE]),
            parents={"a": world.root / "a", "b": world.root / "b", "c": world.root / "a"},
        )


def test_declare_takes_folders(world: World) -> None:
    with pytest.raises(UsageError, match="a release is a folder"):
        parentage.declare(world.root / "a" / "model.safetensors", world.recipe([], []), parents={})


def test_what_changes_between_declare_and_sign_is_refused(world: World) -> None:
    parentage.declare(world.root / "a", world.recipe([], []), parents={})
    world.save("a", {"x": torch.zeros(3)})

    with pytest.raises(FileSetError, match="changed since they were declared"):
        world.sign("a")


def test_sign_needs_a_draft(world: World) -> None:
    with pytest.raises(UsageError, match="nothing declared here"):
        world.sign("a")


def test_sign_refuses_links(world: World) -> None:
    world.save("out", world.weights("a"))
    (world.root / "out" / "copy.json").symlink_to("model.safetensors")
    parentage.declare(world.root / "out", world.recipe([], []), parents={})

    with pytest.raises(FileSetError, match="no links"):
        world.sign("out")


def test_a_draft_about_other_weights_is_not_signed(world: World) -> None:
    draft = world.root / "a" / ".parentage" / "draft.json"
    parentage.declare(world.root / "a", world.recipe([], []), parents={})
    other = draft.read_bytes()
    parentage.declare(world.root / "b", world.recipe([], []), parents={})
    (world.root / "b" / ".parentage" / "draft.json").write_bytes(other)

    with pytest.raises(MalformedError, match="draft and tensor table differ"):
        world.sign("b")
