"""Which files a release may hold: links, special files, Hub cache snapshots, shards and indexes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from worlds import raw_safetensors

from parentage.manifest.errors import (
    FileSetError,
    HeaderError,
    JsonError,
    MalformedError,
    ParentageError,
    ShardIndexError,
    UsageError,
)
from parentage.manifest.files import open_files
from parentage.manifest.model import open_model


def weights(*names: str) -> bytes:
    header = {
        name: {"dtype": "U8", "shape": [4], "data_offsets": [4 * at, 4 * at + 4]}
        for at, name in enumerate(names)
    }
    return raw_safetensors(header, b"abcd" * len(names))


def index(folder: Path, weight_map: object, text: str | None = None) -> None:
    (folder / "model.safetensors.index.json").write_text(
        text or json.dumps({"metadata": {"total_size": 8.0}, "weight_map": weight_map})
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "release"
    made.mkdir()
    (made / "model.safetensors").write_bytes(weights("a"))
    return made


def test_a_link_out_is_refused_and_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "config.json").symlink_to("../secret")

    with pytest.raises(FileSetError, match="link leads out") as caught:
        open_files(folder)

    assert caught.value.where == "config.json"


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../release2/x", "../release/../x", "missing", "loop"]
)
def test_links_that_end_nowhere_inside(folder: Path, target: str) -> None:
    (folder / "loop").symlink_to(target)

    with pytest.raises(FileSetError):
        open_files(folder)


def test_a_sibling_whose_name_starts_the_same_is_outside(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "release-evil").mkdir()
    (tmp_path / "release-evil" / "x").write_text("x")
    (folder / "x").symlink_to("../release-evil/x")

    with pytest.raises(FileSetError, match="link leads out"):
        open_files(folder)


def test_a_link_to_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "again").symlink_to("sub")

    with pytest.raises(FileSetError):
        open_files(folder)


def test_a_link_inside_is_read(folder: Path) -> None:
    (folder / "copy.safetensors.txt").symlink_to("model.safetensors")

    with open_files(folder) as files:
        assert files.files["copy.safetensors.txt"].read_small() == weights("a")


def snapshot(tmp_path: Path, target: str) -> Path:
    entry = tmp_path / "models--org--name"
    (entry / "blobs").mkdir(parents=True)
    (entry / "blobs" / "abc").write_bytes(weights("a"))
    (tmp_path / "elsewhere").write_bytes(weights("b"))
    revision = entry / "snapshots" / ("0" * 40)
    revision.mkdir(parents=True)
    (revision / "model.safetensors").symlink_to(target)
    return revision


def test_a_hub_cache_snapshot_links_into_its_blobs(tmp_path: Path) -> None:
    with open_model(snapshot(tmp_path, "../../blobs/abc")) as model:
        assert list(model.tensors) == ["a"]


def test_a_hub_cache_snapshot_links_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(FileSetError, match="link leads out"):
        open_model(snapshot(tmp_path, "../../../elsewhere"))


def test_a_fifo_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "config.json")

    with pytest.raises(FileSetError, match="not a regular file"):
        open_files(folder)


def test_names_that_are_not_utf8(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/bad-\xff.json"))).write_text("{}")

    with pytest.raises(FileSetError, match="not UTF-8"):
        open_files(folder)


def test_a_file_that_shrinks_while_it_is_read(folder: Path) -> None:
    with open_model(folder) as model:
        os.truncate(folder / "model.safetensors", 20)
        with pytest.raises(FileSetError, match="became shorter"):
            model.files.files["model.safetensors"].read_at(0, 60)


def test_what_was_opened_is_what_is_read(folder: Path) -> None:
    """A file swapped under its name after opening does not matter: the descriptor stays."""
    with open_model(folder) as model:
        (folder / "other").write_bytes(weights("b"))
        (folder / "other").replace(folder / "model.safetensors")
        assert model.files.files["model.safetensors"].read_small() == weights("a")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        open_model(tmp_path / "nowhere")


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(FileSetError, match="no safetensors"):
        open_model(tmp_path)


def test_weights_without_a_tensor(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors({}))

    with pytest.raises(FileSetError, match="no tensor"):
        open_model(tmp_path)


def test_a_single_file(folder: Path) -> None:
    with open_model(folder / "model.safetensors") as model:
        assert model.nbytes == 4


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "1.safetensors").write_bytes(weights("a"))
    (folder / "2.safetensors").write_bytes(weights("b", "c"))


def test_shards_by_index(folder: Path) -> None:
    sharded(folder)
    (folder / "unused.safetensors").write_bytes(weights("d"))
    index(folder, {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"})

    with open_model(folder) as model:
        assert {name: t.file for name, t in model.tensors.items()} == {
            "a": "1.safetensors",
            "b": "2.safetensors",
            "c": "2.safetensors",
        }


@pytest.mark.parametrize(
    ("weight_map", "text", "error", "message"),
    [
        ({"a": "1.safetensors", "b": "2.safetensors"}, None, ShardIndexError, "disagree"),
        ({"a": "2.safetensors", "b": "1.safetensors"}, None, ShardIndexError, "disagree"),
        (
            {
                "a": "1.safetensors",
                "b": "2.safetensors",
                "c": "2.safetensors",
                "d": "2.safetensors",
            },
            None,
            ShardIndexError,
            "disagree",
        ),
        ({"a": "1.safetensors", "b": "3.safetensors"}, None, ShardIndexError, "missing"),
        ({"a": "../1.safetensors"}, None, ShardIndexError, "outside"),
        ({"a": "/etc/passwd"}, None, ShardIndexError, "outside"),
        ({"a": ".."}, None, ShardIndexError, "outside"),
        ({"a": 1}, None, ShardIndexError, "outside"),
        ({}, None, ShardIndexError, "no weight_map"),
        ([], None, ShardIndexError, "no weight_map"),
        (None, "[]", ShardIndexError, "no weight_map"),
        (None, "{", JsonError, "not valid JSON"),
        (
            None,
            '{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}',
            JsonError,
            "duplicate key",
        ),
        ({"a": "config.json"}, None, HeaderError, "safetensors"),
    ],
)
def test_indexes_that_lie(
    folder: Path, weight_map: Any, text: str | None, error: type[ParentageError], message: str
) -> None:
    sharded(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    index(folder, weight_map, text)

    with pytest.raises(error, match=message):
        open_model(folder)


def test_the_same_tensor_in_two_files(folder: Path) -> None:
    (folder / "extra.safetensors").write_bytes(weights("a"))

    with pytest.raises(MalformedError, match="two files"):
        open_model(folder)


def test_two_indexes(folder: Path) -> None:
    index(folder, {"a": "model.safetensors"})
    (folder / "other.safetensors.index.json").write_text("{}")

    with pytest.raises(ShardIndexError, match="more than one"):
        open_model(folder)
