"""Whole or not at all: full disks, interrupts, places that can't be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from parentage.manifest import atomic, writer
from parentage.manifest.errors import UsageError, WriteFailedError
from parentage.manifest.tensor import TensorSpec


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; needs the right to mount."""
    where = tmp_path / "disk"
    where.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", where], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("can't mount a small tmpfs here")
    yield where
    subprocess.run(["umount", where], check=True)


def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    target = small_disk / "file"
    atomic.write_bytes(target, b"before")

    with pytest.raises(WriteFailedError, match="No space left") as caught:
        atomic.write_bytes(target, bytes(1 << 20))

    assert caught.value.exit_code == 4
    assert caught.value.where == str(target)
    assert target.read_bytes() == b"before"
    assert list(small_disk.iterdir()) == [target]


def test_dev_full_is_named_too() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(WriteFailedError):
        atomic.write_bytes(Path("/dev/full/x"), b"x")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_whatever_ends_the_block_nothing_stays(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"before")

    def interrupted() -> None:
        with atomic.replacing(target) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        interrupted()

    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WriteFailedError, match="No such file"):
        atomic.write_bytes(tmp_path / "no" / "file", b"x")


def test_a_private_file_is_private_from_the_start(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "key", mode=0o600) as stream:
        assert os.fstat(stream.fileno()).st_mode & 0o777 == 0o600


def test_the_writer_stops_where_the_pieces_stop(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"1234"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write_file(tmp_path / "m.safetensors", [TensorSpec("a", "U8", (8,))], pieces(), {})

    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.dictionaries(
        st.text("abé\U00010000", min_size=1, max_size=4), st.integers(0, 40), min_size=1, max_size=6
    ),
    limit=st.integers(1, 60),
)
def test_shards_hold_everything_once_and_fit(
    sizes: dict[str, int], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    specs = [TensorSpec(name, "U8", (size,)) for name, size in sizes.items()]
    shards = writer.plan_shards(specs, limit)
    for name, held in shards.items():
        writer.write_file(
            folder / name, held, [b"x" * spec.nbytes for spec in held], {"format": "pt"}
        )
        assert len(held) == 1 or sum(spec.nbytes for spec in held) <= limit

    found: dict[str, int] = {}
    for name in shards:
        with safe_open(folder / name, "np") as file:
            found |= {key: file.get_slice(key).get_shape()[0] for key in file.keys()}  # noqa: SIM118
    assert found == sizes
    assert sum(map(len, shards.values())) == len(sizes)


def test_a_shard_of_no_bytes() -> None:
    with pytest.raises(UsageError):
        writer.plan_shards([], 0)
