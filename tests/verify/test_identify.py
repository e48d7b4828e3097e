"""Whose weights: whole, renamed, reshaped, in part, across formats, and not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from worlds import command

from parentage.manifest.errors import UsageError
from parentage.verify.identify import Identification, identify, to_text


def weights(seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(8, 6, generator=generator),
        "b.weight": torch.randn(4, 4, generator=generator),
        "norm": torch.ones(16),
    }


def save(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    return path


def ask(tmp_path: Path, suspect: dict[str, torch.Tensor]) -> Identification:
    known = save(tmp_path / "known.safetensors", weights())
    other = save(tmp_path / "other.safetensors", {"z": torch.randn(5)})
    return identify(save(tmp_path / "suspect.safetensors", suspect), [other, known])


def test_the_same_weights(tmp_path: Path) -> None:
    found = ask(tmp_path, weights())

    assert found.identified
    assert found.overlaps[0].identical
    assert found.overlaps[0].known.endswith("known.safetensors")
    assert found.overlaps[1].tensors == 0
    assert to_text(found).startswith("IDENTIFIED")


def test_renamed_tensors_are_found(tmp_path: Path) -> None:
    found = ask(tmp_path, {f"model.{name}": t for name, t in weights().items()})

    assert found.identified
    assert not found.overlaps[0].identical
    assert {(m.tensor, m.known, m.how) for m in found.overlaps[0].matches} == {
        (f"model.{name}", name, "renamed") for name in weights()
    }


def test_reshaped_tensors_are_found(tmp_path: Path) -> None:
    found = ask(tmp_path, {"flat": weights()["a.weight"].reshape(-1), "own": torch.randn(3)})

    (match,) = found.overlaps[0].matches
    assert (match.how, match.known, match.bytes) == ("reshaped", "a.weight", 192)
    assert not found.identified
    assert to_text(found).startswith("PARTLY IDENTIFIED")


def test_one_bit_is_another_tensor(tmp_path: Path) -> None:
    changed = weights()
    changed["a.weight"].view(torch.int32)[3, 3] ^= 1

    found = ask(tmp_path, changed)

    assert not found.identified
    assert {m.tensor for m in found.overlaps[0].matches} == {"b.weight", "norm"}


def test_constants_prove_little(tmp_path: Path) -> None:
    found = ask(tmp_path, {"norm": torch.ones(16)})

    assert not found.identified
    assert found.overlaps[0].bytes == 64
    assert found.overlaps[0].telling_bytes == 0
    assert "proves little" in to_text(found)


def test_the_same_bytes_in_another_dtype_are_no_match(tmp_path: Path) -> None:
    found = ask(tmp_path, {"a.weight": weights()["a.weight"].view(torch.int32)})

    assert found.overlaps[0].tensors == 0
    assert to_text(found).startswith("NOT IDENTIFIED")


def test_across_formats(tmp_path: Path) -> None:
    known = save(tmp_path / "m.safetensors", weights())
    arrays = {name: t.numpy() for name, t in weights().items()}
    torch.save(weights(), tmp_path / "m.pt")
    writer = GGUFWriter(tmp_path / "m.gguf", "x")
    for name, value in arrays.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        info[:1],
        info[1:],
        initializer=[numpy_helper.from_array(np.asarray(v), n) for n, v in arrays.items()],
    )
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())

    for suffix in ("pt", "gguf", "onnx"):
        assert identify(tmp_path / f"m.{suffix}", [known]).overlaps[0].identical, suffix


def test_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        identify(save(tmp_path / "m.safetensors", weights()), [])


def test_the_command(tmp_path: Path) -> None:
    known = save(tmp_path / "known.safetensors", weights())
    part = save(tmp_path / "part.safetensors", {"x": torch.ones(2), **weights()})

    whole = command("identify", known, "--against", known)
    partly = command("identify", part, "--against", known, "--json")
    missing = command("identify", tmp_path / "no", "--against", known)

    assert (whole.returncode, partly.returncode, missing.returncode) == (0, 4, 2)
    assert "byte for byte" in whole.stdout
    document: Any = json.loads(partly.stdout)
    assert document["schema"] == "https://parentage.dev/identify/v0.1"
    assert document["overlaps"][0]["tensors"] == 3
    assert "no such file" in missing.stderr
