"""Pickles: real ones of torch.save, and hostile ones; nothing runs, nothing grows."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest.errors import FileSetError, ParentageError, PickleError
from parentage.manifest.hashing import hash_model
from parentage.verify.pickles import open_pickled
from parentage.verify.weights import is_pickled, open_weights, with_roots


def save(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(6, 8, generator=generator)
    return {
        "w": base,
        "half": base.half(),
        "brain": base.bfloat16(),
        "fp8": base.to(torch.float8_e4m3fn),
        "ids": torch.arange(5),
        "flags": base > 0,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }


def root(path: Path) -> Any:
    with open_weights(path) as model:
        return hash_model(model).roots


def test_a_pickle_has_the_root_of_its_safetensors(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "m.safetensors")

    found = root(save(tmp_path / "m.pt", OrderedDict(weights())))

    assert found == root(tmp_path / "m.safetensors")


def test_a_checkpoint_names_tensors_from_where_they_part(tmp_path: Path) -> None:
    state = {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in weights().items()}
    document = {"state_dict": state, "epoch": 3, "note": "x", "lr": [0.1, None, True]}

    assert root(save(tmp_path / "m.ckpt", document)) == root(save(tmp_path / "m.pt", weights()))


def test_two_states_keep_their_paths(tmp_path: Path) -> None:
    adam = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    path = save(tmp_path / "m.pt", {"model": {"a.b": torch.ones(3)}, "optimizer": adam})

    with open_pickled(path) as model:
        assert sorted(model.tensors) == ["model.a.b", "optimizer.state.0.exp_avg"]


def test_views_transposes_and_ties_are_written_out(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    views = {"t": base.T, "part": base[1:3, ::2], "tied": base, "again": base}

    found = root(save(tmp_path / "m.pt", views))

    save_file({k: v.contiguous().clone() for k, v in views.items()}, tmp_path / "m.safetensors")
    assert found == root(tmp_path / "m.safetensors")


def test_shards_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    parts = list(weights().items())
    save(folder / "pytorch_model-00001-of-00002.bin", dict(parts[:3]))
    save(folder / "pytorch_model-00002-of-00002.bin", dict(parts[3:]))
    save(folder / "training_args.bin", {"x": torch.ones(1)})

    assert is_pickled(folder)
    assert root(folder) == root(save(tmp_path / "m.pt", weights()))


def test_a_folder_of_several_is_ambiguous(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        save(tmp_path / name, weights())

    with pytest.raises(FileSetError, match="which of these"):
        open_pickled(tmp_path)


class Evil:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_code_does_not_run(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt", {"w": torch.ones(2), "x": Evil(tmp_path / "was-here")})

    with pytest.raises(PickleError, match="wants code to run") as refused:
        open_pickled(path)

    assert "mkdir" in refused.value.found
    assert not (tmp_path / "was-here").exists()


def rewritten(tmp_path: Path, old: bytes, new: bytes) -> Path:
    """Save one tensor of 16 floats, and change its pickle."""
    source = save(tmp_path / "source.pt", {"w": torch.arange(16.0)})
    target = tmp_path / "changed.pt"
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for entry in before.infolist():
            data = before.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert data.count(old) == 1
                data = data.replace(old, new)
            after.writestr(entry.filename, data)
    return target


SIZE, STRIDE, STORAGE = b"QK\x00K\x10\x85", b"K\x01\x85q\x09", b"cpuq\x06K\x10"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SIZE, b"QK\x00J\x00\x00\x00\x10\x85"),
        (SIZE, b"QJ\xff\xff\xff\x0fK\x10\x85"),
        (SIZE, b"QJ\xff\xff\xff\xffK\x10\x85"),
        (STRIDE, b"J\xff\xff\xff\xff\x85q\x09"),
        (STRIDE, b"J\x00\x00\x00\x01\x85q\x09"),
        (b"FloatStorage", b"NoSuchThing!"),
        (b"_rebuild_tensor_v2", b"_rebuild_nothing__"),
    ],
)
def test_a_pickle_that_lies_is_a_named_error(tmp_path: Path, old: bytes, new: bytes) -> None:
    with pytest.raises(PickleError):
        open_pickled(rewritten(tmp_path, old, new))


def test_a_tensor_larger_than_its_storage_is_not_written_out(tmp_path: Path) -> None:
    """Stride 0: four bytes that stand for gigabytes."""
    path = save(tmp_path / "m.pt", {"w": torch.ones(1).expand(1 << 31)})

    with pytest.raises(PickleError, match="larger than what is stored"):
        open_pickled(path)


def test_one_storage_under_many_names_is_not_written_out(tmp_path: Path) -> None:
    base = torch.ones(10_000)
    path = save(tmp_path / "m.pt", {str(i): base for i in range(100)})

    with pytest.raises(PickleError, match="share their bytes"):
        open_pickled(path)


def test_a_knot_of_lists_is_bounded(tmp_path: Path) -> None:
    knot: Any = torch.ones(1)
    for _ in range(30):
        knot = [knot, knot]
    path = save(tmp_path / "m.pt", knot)

    with pytest.raises(PickleError, match="too many values"):
        open_pickled(path)


def test_a_snake_that_bites_its_tail(tmp_path: Path) -> None:
    snake: dict[str, Any] = {"w": torch.ones(1)}
    snake["snake"] = snake

    with pytest.raises(PickleError, match="nested too deeply"):
        open_pickled(save(tmp_path / "m.pt", snake))


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "m.pt", {"w": torch.zeros(100_000)})
    with (
        zipfile.ZipFile(source) as before,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for entry in before.infolist():
            after.writestr(entry.filename, before.read(entry))

    with pytest.raises(PickleError, match="compressed"):
        open_pickled(tmp_path / "z.pt")


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip", pickle.dumps({"w": 1}), bytes(1000)])
def test_garbage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.bin").write_bytes(data)

    with pytest.raises(PickleError, match="not an archive"):
        open_pickled(tmp_path / "m.bin")


def test_the_format_before_torch_1_6(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt", weights(), _use_new_zipfile_serialization=False)

    with pytest.raises(PickleError, match="not an archive") as refused:
        open_pickled(path)

    assert "torch.save(torch.load(" in refused.value.hint


@pytest.mark.parametrize("value", [{}, [1, 2], "text", {"a": None}])
def test_no_tensors(tmp_path: Path, value: Any) -> None:
    with pytest.raises(PickleError, match="no tensor"):
        open_pickled(save(tmp_path / "m.pt", value))


@pytest.mark.parametrize(
    "value",
    [
        {"w": torch.ones(3).to_sparse()},
        {"w": torch.ones(3, dtype=torch.complex128)},
        {"a": {"b": torch.ones(1)}, "a.b": torch.ones(2)},
        {1.5: torch.ones(1)},
    ],
)
def test_what_is_no_plain_tensor(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ParentageError):
        open_pickled(save(tmp_path / "m.pt", value))


def test_parents_that_are_pickles_are_declared_by_their_root(tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt", weights())

    other = tmp_path / "other.safetensors"
    save_file(weights(), other)

    assert with_roots({"a": path, "b": other}) == {"a": dict(root(path)), "b": other}
