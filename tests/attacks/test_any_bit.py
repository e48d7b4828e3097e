"""Whatever single bit of a release changes, or byte is lost or added, it is no longer verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import World

FILES = [
    "model.safetensors",
    "model.sig",
    ".parentage/tensors.jsonl",
    ".parentage/leaves.bin",
    ".parentage/claims.jsonl",
]


@pytest.fixture(scope="module")
def copy(honest: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.__new__(World)
    world.root = tmp_path_factory.mktemp("any-bit")
    world.key, world.trust = honest.key, honest.trust
    shutil.copytree(honest.root / "merged", world.root / "merged")
    yield world
    assert world.verify("merged", [], level="integrity").verified, (
        "the test must put back what it spoilt"
    )


def spoilt(world: World, name: str, data: bytes) -> int:
    path: Path = world.root / "merged" / name
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return world.verify("merged", [], level="integrity").exit_code
    finally:
        path.write_bytes(before)


def same_json(left: bytes, right: bytes) -> bool:
    try:
        return bool(json.loads(left) == json.loads(right))
    except ValueError:
        return False


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_bit(copy: World, name: str, where: float, bit: int) -> None:
    data = bytearray((copy.root / "merged" / name).read_bytes())
    at = int(where * len(data))
    if name.endswith("claims.jsonl") and data[at : at + 1] == b"\n":
        return  # the end of the last line is not part of any claim
    data[at] ^= 1 << bit

    assert spoilt(copy, name, bytes(data)) in {1, 3}


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(FILES[:4]),
    where=st.floats(0, 1),
    extra=st.binary(max_size=3),
    cut=st.integers(0, 5),
)
def test_bytes_lost_or_added(copy: World, name: str, where: float, extra: bytes, cut: int) -> None:
    data = (copy.root / "merged" / name).read_bytes()
    at = int(where * len(data))
    changed = data[:at] + extra + data[at + cut :]
    if changed == data or (name == "model.sig" and same_json(changed, data)):
        return  # white space between the tokens of a JSON document carries nothing

    assert spoilt(copy, name, changed) in {1, 3}
