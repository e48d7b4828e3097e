"""Merges of image models by the formulas that their mergers document, recomputed from their headers."""

from __future__ import annotations

from pathlib import Path

import pytest
import sd_world
import torch

from parentage.manifest.sd_recipe import load_sd_recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sd_world.make(tmp_path_factory.mktemp("checkpoints"))


def rungs(world: Path, folder: Path, names: str) -> set[str]:
    return {str(result.rung) for result in sd_world.recomputed(world, folder, names)}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("multiplier", [0.3, 0.0, 1.0, 0.65])
@pytest.mark.parametrize("names", ["ab", "cd", "ac", "ca"])
def test_webui_weighted_sum(world: Path, names: str, multiplier: float, half: bool) -> None:
    a, b = (sd_world.load(world, name) for name in names)
    made = sd_world.webui(a, b, None, multiplier, half=half)
    recipe = sd_world.webui_recipe(world, names, "Weighted sum", multiplier, save_as_half=half)
    folder = sd_world.release(world, f"ws-{names}-{multiplier}-{half}", made, recipe)

    assert rungs(world, folder, names) == {"A"}


@pytest.mark.parametrize("names", ["abc", "cdb", "dca", "aab"])
def test_webui_add_difference(world: Path, names: str) -> None:
    a, b, c = (sd_world.load(world, name) for name in names)
    made = sd_world.webui(a, b, c, 0.85, half=True)
    recipe = sd_world.webui_recipe(world, names, "Add difference", 0.85, save_as_half=True)
    folder = sd_world.release(world, f"ad-{names}", made, recipe)

    assert rungs(world, folder, names) == {"A"}


def test_webui_no_interpolation_halves(world: Path) -> None:
    made = {
        key: value.half() if value.dtype == torch.float32 else value
        for key, value in sd_world.load(world, "c").items()
    }
    recipe = sd_world.webui_recipe(world, "c", "No interpolation", 0.3, save_as_half=True)

    assert rungs(world, sd_world.release(world, "no", made, recipe), "c") == {"A"}


def test_webui_discarded_weights_are_those_that_the_release_lacks(world: Path) -> None:
    a, b = (sd_world.load(world, name) for name in "ab")
    made = sd_world.webui(a, b, None, 0.4, half=False)
    made = {key: value for key, value in made.items() if "model_ema" not in key}
    recipe = sd_world.webui_recipe(world, "ab", "Weighted sum", 0.4, discard_weights="model_ema")

    assert rungs(world, sd_world.release(world, "discarded", made, recipe), "ab") == {"A"}


def test_a_parent_that_was_merged_is_recomputed_from_its_own_recipe(world: Path) -> None:
    a, b, d = (sd_world.load(world, name) for name in "abd")
    inner = sd_world.webui(a, b, None, 0.3, half=True)
    first = sd_world.webui_recipe(world, "ab", "Weighted sum", 0.3, save_as_half=True)
    sd_world.save(world / "inner.safetensors", inner, {"format": "pt"})
    made = sd_world.webui(inner, d, None, 0.2, half=True)
    second = sd_world.webui_recipe(world, "dd", "Weighted sum", 0.2, save_as_half=True)
    second["primary_model_hash"] = sd_world.sha256(world / "inner.safetensors")
    models = {second["primary_model_hash"]: {"name": "inner", "sd_merge_recipe": first}}
    folder = sd_world.release(world, "nested", made, second, models)

    assert rungs(world, folder, "abd") == {"A"}


@pytest.mark.parametrize("lerp", [True, False])
@pytest.mark.parametrize("names", ["ab", "cd"])
def test_supermerger_block_weights(world: Path, names: str, lerp: bool) -> None:
    a, b = (sd_world.load(world, name) for name in names)
    weights = [0.3] * 25
    weights[3], weights[12], weights[24] = 0.7, 0.0, 1.0
    # OUT11 is the last of the output blocks and what stands behind it.
    blocks = {"input_blocks.3.": 0.7, "middle_block": 0.0, ".out.": 1.0, "output_blocks.11.": 1.0}
    blocks |= {"_blocks.": 0.3, "time_embed": 0.3}
    made = sd_world.supermerger(a, b, None, 0.55, blocks, lerp=lerp)
    recipe = sd_world.supermerger_recipe(
        world, names, "Weight sum:A*(1-alpha)+B*alpha", 0.55, mbw=True, weights_alpha=weights
    )
    folder = sd_world.release(world, f"sm-{names}-{lerp}", made, recipe)

    assert rungs(world, folder, names) == {"A"}


@pytest.mark.parametrize("names", ["abc", "cdb"])
def test_supermerger_add_difference_saved_as_fp16(world: Path, names: str) -> None:
    a, b, c = (sd_world.load(world, name) for name in names)
    made = sd_world.supermerger(a, b, c, 0.5, {}, lerp=True)
    made = {
        k: v.half() if "model" in k and v.dtype == torch.float32 else v for k, v in made.items()
    }
    recipe = sd_world.supermerger_recipe(world, names, "Add difference:A+(B-C)*alpha", 0.5)
    folder = sd_world.release(world, f"sma-{names}", made, recipe)

    assert rungs(world, folder, names) == {"A"}


@pytest.mark.parametrize("claimed", [0.301, 0.3000001])
def test_a_false_multiplier_is_refuted(world: Path, claimed: float) -> None:
    a, b = (sd_world.load(world, name) for name in "cd")
    made = sd_world.webui(a, b, None, 0.3, half=False)
    recipe = sd_world.webui_recipe(world, "cd", "Weighted sum", claimed)

    assert "refuted" in rungs(
        world, sd_world.release(world, f"false-{claimed}", made, recipe), "cd"
    )


def test_one_flipped_bit_is_refuted_under_supermerger(world: Path) -> None:
    a, b = (sd_world.load(world, name) for name in "cd")
    made = sd_world.supermerger(a, b, None, 0.4, {}, lerp=True)
    key = sd_world.NAMES[4]
    made[key] = made[key].clone()
    made[key].view(torch.int32)[3, 3] ^= 1 << 12
    recipe = sd_world.supermerger_recipe(world, "cd", "Weight sum:A*(1-alpha)+B*alpha", 0.4)
    results = sd_world.recomputed(world, sd_world.release(world, "flipped", made, recipe), "cd")

    assert [r.name for r in results if r.rung == "refuted"] == [key]


def test_parents_are_told_by_their_sha256_whatever_their_ids(world: Path) -> None:
    a, b = (sd_world.load(world, name) for name in "ab")
    made = sd_world.webui(a, b, None, 0.3, half=False)
    recipe = sd_world.webui_recipe(world, "ab", "Weighted sum", 0.3)
    folder = sd_world.release(world, "ids", made, recipe)

    imported = load_sd_recipe(
        folder, parents={"x": world / "b.safetensors", "y": world / "a.safetensors"}
    )

    assert [hint.id for hint in imported.parents] == ["y", "x"]
