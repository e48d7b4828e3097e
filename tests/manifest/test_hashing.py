"""One pass, any layout and number of threads, against hashlib and the second reading of PTD-1."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from parentage.manifest import digest
from parentage.manifest.hashing import hash_model, total_bytes
from parentage.manifest.model import open_model


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    random = np.random.default_rng(3)
    save_file(
        {
            "long": random.standard_normal((2_200_000,)).astype(np.float32),
            "edge": random.integers(0, 255, (2**20,)).astype(np.uint8),
            "short": np.arange(5, dtype=np.int64),
            "none": np.zeros((0, 3), np.float16),
            "scalar": np.array(-0.0),
        },
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text("{}")
    (folder / "empty.txt").write_text("")
    return folder


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("whole", [[], ["config.json", "empty.txt", "model.safetensors"]])
def test_files_and_tensors_in_one_pass(release: Path, threads: int, whole: list[str]) -> None:
    seen: list[int] = []
    with open_model(release) as model:
        found = hash_model(
            model, profiles=digest.PROFILES, files=whole, threads=threads, progress=seen.append
        )
        assert sum(seen) == total_bytes(model, whole)

    assert found.files == {
        name: hashlib.sha256((release / name).read_bytes()).hexdigest() for name in whole
    }
    names = {"float32": "F32", "uint8": "U8", "int64": "I64", "float16": "F16", "float64": "F64"}
    for name, array in load_file(release / "model.safetensors").items():
        for profile in digest.PROFILES:
            assert found.tensors[name].identity[profile] == digest.tensor_identity(
                profile, names[str(array.dtype)], array.shape, array.tobytes()
            )


def test_identities_and_root_survive_resharding(release: Path, tmp_path: Path) -> None:
    for number, (name, array) in enumerate(load_file(release / "model.safetensors").items()):
        save_file({name: array}, tmp_path / f"{9 - number}.safetensors")
    with open_model(release) as one, open_model(tmp_path) as many:
        assert hash_model(one, profiles=digest.PROFILES).roots == (
            hash_model(many, profiles=digest.PROFILES).roots
        )


def test_an_error_in_a_worker_reaches_the_caller(release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((release / "model.safetensors").read_bytes())
    with open_model(copy) as model:
        os.truncate(copy, 4 << 20)
        with pytest.raises(Exception, match="became shorter"):
            hash_model(model, threads=2)
        with pytest.raises(Exception, match="became shorter"):
            hash_model(model, files=["copy.safetensors"], threads=2)


def test_an_interrupt_ends_the_pass(release: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with open_model(release) as model, pytest.raises(KeyboardInterrupt):
        hash_model(model, threads=2, progress=interrupt)
