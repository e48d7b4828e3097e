"""Weights compared while they stream: every byte, however the stream is cut."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from parentage.manifest import table
from parentage.manifest.errors import HubContentError
from parentage.manifest.hashing import hash_model
from parentage.manifest.model import open_model
from parentage.manifest.table import Table
from parentage.verify.streaming import StreamCheck

NAME = "model.safetensors"
MIB = 1 << 20


@functools.cache
def published() -> tuple[bytes, Table, bytes, dict[str, dict[str, str]]]:
    """Return a file of some tensors, two of them empty; its table, leaves and identities."""
    import tempfile

    generator = np.random.default_rng(5)
    sizes = {"a": 3, "b": 0, "c": MIB + 7, "d": 0, "e": 2 * MIB, "f": 1}
    data = save({n: generator.integers(0, 255, s, np.uint8) for n, s in sizes.items()})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(data)
        with open_model(Path(folder)) as model:
            found = hash_model(model, profiles=("ptd1-b3", "ptd1-sha256"), files=[NAME])
            lines, leaves = table.build(model, found)
    identities = {name: dict(one.identity) for name, one in found.tensors.items()}
    return data, table.parse(lines), leaves, identities


def run(data: bytes, cuts: list[int]) -> StreamCheck:
    _, claimed, leaves, _ = published()
    check = StreamCheck(claimed, leaves)
    proof = check.proof(NAME)
    assert proof is not None
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, stop in itertools.pairwise(edges):
        assert start == 0 or not proof.is_whole
        proof(memoryview(data)[start:stop])
    assert proof.is_whole
    return check


@given(st.lists(st.integers(0, 4 * MIB), max_size=6))
def test_however_a_stream_is_cut_the_identities_are_those_of_the_file(cuts: list[int]) -> None:
    data, _, _, identities = published()
    check = run(data, [cut for cut in cuts if cut % (len(data) + 1) != len(data)])
    assert {name: found.identity for name, found in check._found.items()} == identities


@given(st.integers(0, 10**8), st.integers(0, 7), st.lists(st.integers(0, 4 * MIB), max_size=3))
def test_one_flipped_bit_is_refused_wherever_it_is(at: int, bit: int, cuts: list[int]) -> None:
    data = bytearray(published()[0])
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(HubContentError, match="other bytes than were signed"):
        run(bytes(data), cuts)


def test_bytes_after_the_end_are_refused_and_fewer_are_not_whole() -> None:
    data, claimed, leaves, _ = published()
    with pytest.raises(HubContentError):
        run(data + b"\0", [])
    proof = StreamCheck(claimed, leaves).proof(NAME)
    assert proof is not None
    proof(memoryview(data)[:-1])
    assert not proof.is_whole


def test_a_mib_is_refused_as_soon_as_it_came() -> None:
    data, claimed, leaves, _ = published()
    proof = StreamCheck(claimed, leaves).proof(NAME)
    assert proof is not None
    start = claimed.tensors["e"].offsets[0]
    proof(memoryview(data)[:start])
    spoilt = bytearray(data[start : start + MIB])
    spoilt[0] ^= 1
    with pytest.raises(HubContentError, match=f"{NAME}: e, MiB 0"):
        proof(memoryview(spoilt))


def test_what_is_no_safetensors_or_has_a_gap_is_left_to_its_sha256() -> None:
    _, claimed, leaves, _ = published()
    assert StreamCheck(claimed, leaves).proof("config.json") is None
    without = {name: line for name, line in claimed.tensors.items() if name != "c"}
    gap = Table(without, claimed.files, claimed.roots)
    assert StreamCheck(gap, leaves).proof(NAME) is None


def test_what_passed_by_counts_only_where_the_file_says_the_same(tmp_path: Path) -> None:
    data, claimed, leaves, identities = published()
    (tmp_path / NAME).write_bytes(data)
    other = msgspec.structs.replace(claimed.tensors["c"], dtype="I8")
    check = StreamCheck(Table({**claimed.tensors, "c": other}, claimed.files, {}), leaves)
    proof = check.proof(NAME)
    assert proof is not None
    proof(memoryview(data))
    with open_model(tmp_path) as model:
        found = check.digests(model)
    assert {name: one.identity for name, one in found.items()} == {
        name: identity for name, identity in identities.items() if name != "c"
    }
