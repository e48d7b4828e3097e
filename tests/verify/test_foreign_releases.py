"""GGUF and ONNX as releases: declared, signed, verified; every false claim about them refuted."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, quants
from onnx import TensorProto, helper, numpy_helper
from worlds import World

import parentage
from parentage.manifest.errors import RecipeError

MATRICES = [f"layers.{i}.w" for i in range(4)]


def gguf(world: World, name: str, kind: str, edit: Any = None, label: str | None = None) -> Path:
    """Write the world's base as GGUF with the reference library: matrices quantised, the rest F32."""
    folder = world.root / name
    folder.mkdir()
    writer = GGUFWriter(folder / "m.gguf", "llama")
    writer.add_string("general.name", "child")
    for key, tensor in world.weights("base").items():
        value = tensor.numpy()
        if key in MATRICES:
            blocks = quants.quantize(value, Type[kind])
            if edit is not None:
                blocks = edit(blocks)
            writer.add_tensor(key, blocks, raw_dtype=Type[label or kind])
        else:
            writer.add_tensor(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def quantise(kind: str) -> dict[str, Any]:
    return {
        "id": "quantise",
        "op": "quantise_gguf/v1",
        "inputs": ["base"],
        "params": {"dtype": kind, "include": ["layers.*"]},
        "arithmetic": {"profile": "ggml"},
    }


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_gguf_child_is_verified_against_its_safetensors_parent(world: World, kind: str) -> None:
    gguf(world, "child", kind)
    world.declare("child", ["base"], [quantise(kind)])

    report = world.verify("child", ["base"], whole_files=True)

    assert report.verdict == "verified", report.findings
    assert report.reached == "A (exact)"
    assert any("metadata of m.gguf" in text for text in report.not_checked)


@pytest.mark.parametrize(("made", "claimed"), [("Q8_0", "Q4_0"), ("Q4_0", "Q8_0")])
def test_another_type_is_refuted(world: World, made: str, claimed: str) -> None:
    gguf(world, "child", made)
    world.declare("child", ["base"], [quantise(claimed)])

    report = world.verify("child", ["base"])

    assert report.verdict == "refuted"
    assert {f.code for f in report.findings} == {"tensor-form"}


def test_one_quantised_weight_moved_by_one_is_refuted(world: World) -> None:
    def edit(blocks: np.ndarray) -> np.ndarray:
        blocks = blocks.copy()
        blocks[5, 2 + 7] ^= 1
        return blocks

    gguf(world, "child", "Q8_0", edit)
    world.declare("child", ["base"], [quantise("Q8_0")])

    report = world.verify("child", ["base"])

    assert report.verdict == "refuted"
    found = [f for f in report.findings if f.code == "recipe-mismatch"]
    assert len(found) == 4
    assert "1 of 6,528" in found[0].message


@pytest.mark.parametrize("at", [10, -1])
def test_a_byte_changed_after_signing_is_noticed(world: World, at: int) -> None:
    """In the metadata as in the weights, without reading the file as a whole."""
    file = gguf(world, "child", "Q8_0") / "m.gguf"
    world.declare("child", ["base"], [quantise("Q8_0")])
    data = bytearray(file.read_bytes())
    place = data.index(b"child") if at == 10 else len(data) - 1
    data[place] ^= 1
    file.write_bytes(data)

    assert world.verify("child", ["base"], level="integrity").verdict == "refuted"


def onnx(world: World, name: str, tensors: dict[str, np.ndarray]) -> Path:
    folder = world.root / name
    folder.mkdir()
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        info[:1],
        info[1:],
        initializer=[numpy_helper.from_array(value, key) for key, value in tensors.items()],
    )
    (folder / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    return folder


def int8(world: World, axis: int = 0) -> dict[str, np.ndarray]:
    """Quantise as a numpy program would, one matrix at a time."""
    made: dict[str, np.ndarray] = {}
    for key, tensor in world.weights("base").items():
        x = tensor.numpy()
        if key not in MATRICES:
            made[key] = x
            continue
        scale = np.abs(x).max(axis=1 - axis, keepdims=True) / np.float32(127)
        made[f"{key}_q"] = np.rint(x / scale).astype(np.int8)
        made[f"{key}_scale"] = scale
    return made


def rtn(**params: Any) -> dict[str, Any]:
    params = {
        "dtype": "I8",
        "limit": "127",
        "axis": 0,
        "include": ["layers.*"],
        "values": "{}_q",
        "scales": "{}_scale",
        "keepDimensions": True,
        **params,
    }
    arithmetic = {"profile": "torch", "compute": params.pop("compute", "F32")}
    return {
        "id": "quantise",
        "op": "quantise_rtn/v1",
        "inputs": ["base"],
        "params": params,
        "arithmetic": arithmetic,
    }


def test_an_int8_onnx_is_verified(world: World) -> None:
    onnx(world, "child", int8(world))
    world.declare("child", ["base"], [rtn()])

    report = world.verify("child", ["base"])

    assert report.verdict == "verified", report.findings
    assert any("graph of model.onnx" in text for text in report.not_checked)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": "127.5"},
        {"limit": "128"},
        {"compute": "BF16"},
        {"scaleBy": "reciprocal"},
        {"axis": 1},
        {"axis": None, "group": 32},
        {"axis": None},
        {"clamp": ["-126", "126"]},
    ],
)
def test_an_int8_claim_with_one_wrong_choice_is_refuted(
    world: World, wrong: dict[str, Any]
) -> None:
    onnx(world, "child", int8(world))
    world.declare("child", ["base"], [rtn(**wrong)])

    assert world.verify("child", ["base"]).verdict == "refuted"


def test_another_parent_is_refuted(world: World) -> None:
    onnx(world, "child", int8(world))
    step = {**rtn(), "inputs": ["a"]}
    world.declare("child", ["a"], [step])

    assert world.verify("child", ["a"]).verdict == "refuted"


def test_an_initialiser_that_no_step_makes_is_refuted(world: World) -> None:
    onnx(world, "child", {**int8(world), "trigger": np.ones(3, "f4")})
    world.declare("child", ["base"], [rtn()])

    assert {f.code for f in world.verify("child", ["base"]).findings} == {"tensor-from-nowhere"}


def test_a_pickled_parent_is_read_and_labelled(world: World) -> None:
    torch.save(world.weights("base"), world.root / "base.pt")
    copy = {"id": "convert", "op": "copy/v1", "inputs": ["base.pt"]}
    recipe = world.recipe(["base.pt"], [copy])
    parentage.merge(recipe, world.root / "made", parents={"base.pt": world.root / "base.pt"})
    world.sign("made")

    report = world.verify("made", ["base.pt"])

    assert report.verdict == "verified", report.findings
    assert [f.code for f in report.findings] == ["read-from-pickle"]
    assert world.verify("made", ["base"]).verdict == "verified"


def test_merge_writes_fp8_and_refuses_gguf_blocks(world: World) -> None:
    cast = {"id": "cast", "op": "cast/v1", "inputs": ["base"]}
    cast["arithmetic"] = {"profile": "parentage-1", "store": "F8_E4M3"}  # type: ignore[assignment]
    world.merge("fp8", cast)
    assert world.verify("fp8", ["base"]).verdict == "verified"

    with pytest.raises(RecipeError, match="no such dtype"):
        world.merge("blocks", quantise("Q8_0"))


@pytest.mark.parametrize("op", ["rtn", "nf4"])
def test_merge_writes_what_it_declares(world: World, op: str) -> None:
    step = rtn()
    if op == "nf4":
        step = {"id": "quantise", "op": "quantise_nf4/v1", "inputs": ["base"]}
        step |= {"params": {"include": ["layers.*"]}, "arithmetic": {"profile": "parentage-1"}}
    world.merge("made", step)

    assert world.verify("made", ["base"]).verdict == "verified"


def test_other_weights_in_the_folder_are_named(world: World) -> None:
    """A loader may take the other file: the verdict says that no recipe is about it."""
    world.save("made", world.weights("base"))
    torch.save({"w": torch.ones(1)}, world.root / "made" / "pytorch_model.bin")
    world.declare("made", ["base"], [{"id": "copy", "op": "copy/v1", "inputs": ["base"]}])

    report = world.verify("made", ["base"])

    assert report.verdict == "verified"
    assert any("other weights in this release: pytorch_model.bin" in t for t in report.not_checked)


def test_quantised_suspects_do_not_break_the_search_for_merges(world: World) -> None:
    gguf(world, "blocks", "Q4_0")
    world.merge("made", {"id": "copy", "op": "copy/v1", "inputs": ["base"]})
    world.declare("made", [], [])

    report = world.verify("made", [], against=["blocks", "a", "b"])

    assert report.verdict == "unproven"


def test_sub_byte_tensors_are_copied_whole(world: World) -> None:
    """Two elements share a byte: a source counts bytes there."""
    from worlds import raw_safetensors

    (world.root / "tiny").mkdir()
    header = {"w": {"dtype": "F4", "shape": [6, 4], "data_offsets": [0, 12]}}
    data = raw_safetensors(header, bytes(range(12)))
    (world.root / "tiny" / "model.safetensors").write_bytes(data)
    world.merge("made", {"id": "copy", "op": "copy/v1", "inputs": ["tiny"]})

    assert world.verify("made", ["tiny"]).verdict == "verified"
    with warnings.catch_warnings():
        made = (world.root / "made" / "model.safetensors").read_bytes()
    assert made.endswith(bytes(range(12)))
