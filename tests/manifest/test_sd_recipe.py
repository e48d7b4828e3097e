"""Recipes in the headers of image models: hostile, incomplete and honest ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from named import value_or_named_error
from worlds import raw_safetensors

from parentage.manifest.errors import ParentageError, ParentMissingError, RecipeError
from parentage.manifest.recipe import Recipe
from parentage.manifest.sd_recipe import load_sd_recipe

NAMES = ("model.a.weight", "model.b.bias", "other")


def checkpoint(path: Path, metadata: dict[str, str], salt: int = 0) -> Path:
    header: dict[str, Any] = {"__metadata__": metadata}
    for at, name in enumerate(NAMES):
        header[name] = {"dtype": "F16", "shape": [2], "data_offsets": [4 * at, 4 * at + 4]}
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw_safetensors(header, bytes([salt]) * 4 * len(NAMES)))
    return path


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.parents = {
            name: checkpoint(root / f"{name}.safetensors", {}, salt)
            for salt, name in enumerate("abc", 1)
        }
        self.sha = {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in self.parents.items()
        }

    def recipe(self, **other: Any) -> dict[str, Any]:
        return {
            "type": "webui",
            "primary_model_hash": self.sha["a"],
            "secondary_model_hash": self.sha["b"],
            "tertiary_model_hash": None,
            "interp_method": "Weighted sum",
            "multiplier": 0.3,
        } | other

    def load(self, recipe: Any, models: Any = "{}", parents: str = "ab") -> Any:
        texts = [part if isinstance(part, str) else json.dumps(part) for part in (recipe, models)]
        metadata = dict(zip(("sd_merge_recipe", "sd_merge_models"), texts, strict=True))
        made = checkpoint(self.root / "made" / "model.safetensors", metadata)
        return load_sd_recipe(made.parent, parents={name: self.parents[name] for name in parents})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_recipe_is_kept_and_the_parents_files_are_pinned(world: World) -> None:
    text = json.dumps(world.recipe())
    found = world.load(text, {world.sha["a"]: {"name": "A.safetensors", "sd_merge_recipe": None}})

    assert found.source.text == text
    assert [(m.sha256, m.name) for m in found.source.materials] == [
        (world.sha["a"], "a: A.safetensors"),
        (world.sha["b"], "b: "),
    ]
    (step,) = found.steps
    assert step.arithmetic.profile == "webui"
    assert step.params.alpha == (0.3).hex()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "SDNext"}, "merger that is not imported"),
        ({"type": None}, "merger that is not imported"),
        ({"interp_method": "Geometric"}, "unknown interp_method"),
        ({"interp_method": ["Weighted sum"]}, "unknown interp_method"),
        ({"is_inpainting": True}, "other shapes"),
        ({"bake_in_vae": "vae.pt"}, "VAE"),
        ({"bake_in_vae": ["None"]}, "VAE"),
        ({"multiplier": "0.3"}, "not a number"),
        ({"multiplier": True}, "not a number"),
        ({"multiplier": 1e9}, "not a number"),
        ({"save_as_half": "yes"}, "not true or false"),
        ({"primary_model_hash": None}, "without a SHA-256"),
        ({"primary_model_hash": "A" * 64}, "without a SHA-256"),
        ({"primary_model_hash": {}}, "without a SHA-256"),
        ({"type": "sd-webui-supermerger", "mode": "Triple sum"}, "mode"),
        ({"type": "sd-webui-supermerger", "mode": "Weight sum", "calcmode": "cosineA"}, "calcmode"),
        (
            {"type": "sd-webui-supermerger", "mode": "Weight sum", "calcmode": "normal"}
            | {"elemental_merge": ["x"]},
            "elemental",
        ),
        (
            {"type": "sd-webui-supermerger", "mode": "Weight sum", "calcmode": "normal"}
            | {"Exclude": ["IN00"]},
            "chosen blocks",
        ),
    ],
)
def test_what_can_not_be_imported_is_refused_by_name(
    world: World, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        world.load(world.recipe(**change))


def test_block_weights_of_another_length_are_refused(world: World) -> None:
    recipe = {
        "type": "sd-webui-supermerger",
        "mode": "Weight sum",
        "calcmode": "normal",
        "mbw": True,
        "weights_alpha": [0.5] * 24,
        "base_alpha": 0.5,
        "model_a": world.sha["a"],
        "model_b": world.sha["b"],
    }

    with pytest.raises(RecipeError, match="another length"):
        world.load(recipe)


def test_a_parent_with_another_sha256_is_not_taken(world: World) -> None:
    with pytest.raises(ParentMissingError, match="no given file has the SHA-256") as caught:
        world.load(world.recipe(), parents="ac")
    assert caught.value.where == world.sha["b"]


def test_a_header_without_a_recipe(world: World) -> None:
    with pytest.raises(RecipeError, match="no sd_merge_recipe"):
        world.load("")


def test_a_merge_that_is_its_own_parent(world: World) -> None:
    ghost = "e" * 64
    models = {ghost: {"name": "loop", "sd_merge_recipe": world.recipe(primary_model_hash=ghost)}}

    with pytest.raises(RecipeError, match="its own parent"):
        world.load(world.recipe(primary_model_hash=ghost), models)


def test_a_chain_of_a_hundred_merges_stops(world: World) -> None:
    ghosts = [f"{n:064x}" for n in range(100)]
    models = {
        ghost: {"name": "x", "sd_merge_recipe": world.recipe(primary_model_hash=later)}
        for ghost, later in zip(ghosts, [*ghosts[1:], world.sha["a"]], strict=True)
    }

    with pytest.raises(RecipeError, match="nested too deeply"):
        world.load(world.recipe(primary_model_hash=ghosts[0]), models)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"type": "webui", "type": "webui"}',
        '"' + "x" * (10 << 20) + '"',
        '{"multiplier": NaN}',
        '{"multiplier": 1' + "0" * 5000 + "}",
        "\ud83d",
    ],
)
def test_hostile_json_is_a_named_error(world: World, text: str) -> None:
    with pytest.raises(ParentageError):
        world.load(text.encode("utf-8", "replace").decode())
    with pytest.raises(ParentageError):
        world.load(world.recipe(), text.encode("utf-8", "replace").decode())


values = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=2)
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(["webui", "sd-webui-supermerger"]),
    st.dictionaries(
        st.sampled_from(
            [
                "interp_method",
                "multiplier",
                "save_as_half",
                "bake_in_vae",
                "discard_weights",
                "mode",
                "calcmode",
                "mbw",
                "weights_alpha",
                "base_alpha",
                "model_a",
                "model_b",
                "Include",
            ]
        ),
        values,
    ),
)
def test_any_recipe_is_imported_or_refused_by_name(
    world: World, kind: str, change: dict[str, Any]
) -> None:
    recipe = world.recipe(
        type=kind,
        model_a=world.sha["a"],
        model_b=world.sha["b"],
        mode="Weight",
        calcmode="normal",
        base_alpha=0.5,
    )
    found = value_or_named_error(lambda: world.load(recipe | change))

    assert found is None or (isinstance(found, Recipe) and found.steps)
