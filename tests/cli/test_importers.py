"""Importers as a user meets them: declare, sign, verify, and the mistakes on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sd_world
import torch
from safetensors.torch import save_file
from worlds import command

from parentage.attest.keys import write_keypair


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return sd_world.make(tmp_path)


def signed(folder: Path, root: Path, parents: list[str]) -> str:
    """Sign what was declared, and return what `verify` prints."""
    key = root / "release.key"
    write_keypair(key, None)
    assert command("sign", folder, "--key", key).returncode == 0
    options = [part for path in parents for part in ("--parent", path)]
    done = command("verify", folder, "--key", root / "release.pub", "--device", "cpu", *options)
    return f"{done.returncode}\n{done.stdout}"


def test_a_webui_merge_from_its_own_header_to_verified(world: Path) -> None:
    a, b = (sd_world.load(world, name) for name in "ab")
    made = sd_world.webui(a, b, None, 0.3, half=True)
    recipe = sd_world.webui_recipe(world, "ab", "Weighted sum", 0.3, save_as_half=True)
    folder = sd_world.release(world, "mix", made, recipe)
    parents = [f"{name}={world / name}.safetensors" for name in "ab"]

    options = [part for parent in parents for part in ("--parent", parent)]
    declared = command("declare", folder, "--sd-recipe", *options)

    assert declared.returncode == 0, declared.stderr
    assert signed(folder, world, parents).startswith("0\nVERIFIED")


def test_a_header_without_a_recipe_says_so(world: Path) -> None:
    (world / "plain").mkdir()
    (world / "a.safetensors").rename(world / "plain" / "model.safetensors")
    done = command("declare", world / "plain", "--sd-recipe")

    assert done.returncode == 1
    assert "no sd_merge_recipe" in done.stderr


def test_an_mecha_file_to_verified(world: Path) -> None:
    c, d = (sd_world.load(world, name) for name in "cd")
    made = {key: torch.lerp(c[key].float(), d[key].float(), 0.25).half() for key in c}
    (world / "mix").mkdir()
    save_file(made, world / "mix" / "model.safetensors")
    recipe = world / "mix.mecha"
    recipe.write_text(
        'version 0.1.0\nmodel "c.safetensors"\nmodel "d.safetensors"\nmerge "weighted_sum" &0 &1 alpha=0.25'
    )
    parents = [f"{name}={world / name}.safetensors" for name in "cd"]
    options = [part for parent in parents for part in ("--parent", parent)]

    done = command("declare", world / "mix", "--mecha", recipe, *options)

    assert done.returncode == 0, done.stderr
    assert "names its models by path" in done.stderr
    assert signed(world / "mix", world, parents).startswith("0\nVERIFIED")


def test_an_adapter_to_a_verdict_that_is_no_refutation(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    w, a, b = (torch.randn(shape, generator=generator) for shape in ((6, 4), (2, 4), (6, 2)))
    for name in ("base", "tuned", "adapter"):
        (tmp_path / name).mkdir()
    save_file({"q.weight": w}, tmp_path / "base" / "model.safetensors")
    save_file({"q.weight": w + (b @ a) * 3.0}, tmp_path / "tuned" / "model.safetensors")
    pair = {"base_model.model.q.lora_A.weight": a, "base_model.model.q.lora_B.weight": b}
    save_file(pair, tmp_path / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))

    done = command(
        *("declare", tmp_path / "tuned", "--lora", tmp_path / "adapter"),
        *("--parent", f"base={tmp_path / 'base'}"),
    )

    assert done.returncode == 0, done.stderr
    parents = [f"base={tmp_path / 'base'}", f"adapter={tmp_path / 'adapter'}"]
    assert signed(tmp_path / "tuned", tmp_path, parents)[0] in "04"


def test_the_seed_of_a_run_reaches_the_recipe(tmp_path: Path) -> None:
    for name in ("a", "b", "made"):
        (tmp_path / name).mkdir()
        save_file(
            {"model.layers.0.q.weight": torch.zeros(2, 2)}, tmp_path / name / "model.safetensors"
        )
    config = tmp_path / "m.yml"
    config.write_text(
        "merge_method: dare_linear\nbase_model: a\n"
        "models: [{model: b, parameters: {weight: 1, density: 0.5}}]\n"
    )
    options = ["--parent", f"a={tmp_path / 'a'}", "--parent", f"b={tmp_path / 'b'}", "--json"]
    plain = command("declare", tmp_path / "made", "--mergekit", config, *options)
    seeded = command("declare", tmp_path / "made", "--mergekit", config, "--seed", 7, *options)

    assert "seed" not in json.loads(plain.stdout)["recipe"]["steps"][-1]["params"]
    assert json.loads(seeded.stdout)["recipe"]["steps"][-1]["params"]["seed"] == 7


@pytest.mark.parametrize(
    "arguments",
    [
        ["--observed", "--sd-recipe"],
        ["--observed", "--seed", "1"],
        ["--sd-recipe", "--lora-merge-dtype", "float16"],
        [],
    ],
)
def test_options_that_do_not_go_together(world: Path, arguments: list[str]) -> None:
    assert command("declare", world, *arguments).returncode == 2
