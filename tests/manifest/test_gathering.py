"""Leaves of what came by and of what did not are together those of one pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from parentage.manifest import digest
from parentage.manifest.gathering import Gathering
from parentage.manifest.hashing import hash_model
from parentage.manifest.model import Model, open_model

SIZE = 3 * digest.CHUNK + 5
KIB = 1 << 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    random = np.random.default_rng(5)
    tensors = {
        "long": random.integers(0, 255, (SIZE,)).astype(np.uint8),
        "short": np.arange(5, dtype=np.int64),
        "none": np.zeros((0, 3), np.float16),
    }
    folder = tmp_path_factory.mktemp("model")
    save_file(tensors, folder / "model.safetensors")
    return open_model(folder)


def read(model: Model, name: str, start: int, stop: int) -> memoryview:
    tensor = model.tensors[name]
    return memoryview(model.file_of(tensor).read_at(tensor.start + start, stop - start))


ranges = st.tuples(st.integers(0, SIZE // KIB), st.integers(0, SIZE // KIB + 1)).map(
    lambda pair: (min(pair) * KIB, min(max(pair) * KIB, SIZE))
)


@settings(max_examples=60, deadline=None)
@given(came_by=st.lists(ranges, max_size=5), short=st.booleans())
def test_whatever_came_by(model: Model, came_by: list[tuple[int, int]], short: bool) -> None:
    seen: list[int] = []
    gathering = Gathering(model, digest.PROFILES, seen.append)
    for start, stop in came_by:
        gathering.take("long", start, read(model, "long", start, stop))
    if short:
        gathering.take("short", 0, read(model, "short", 0, 40))
    before = sum(seen)

    found = hash_model(
        model, profiles=digest.PROFILES, gathered=gathering, progress=seen.append, threads=1
    )

    assert found == hash_model(model, profiles=digest.PROFILES)
    # Each byte is digested once, by one or the other.
    assert sum(seen) == SIZE + 40
    whole = {
        (first, min(first + digest.CHUNK, SIZE))
        for first in range(0, SIZE, digest.CHUNK)
        for start, stop in came_by
        if start <= first and min(first + digest.CHUNK, SIZE) <= stop
    }
    assert before == 40 * short + sum(last - first for first, last in whole)


def test_what_came_by_is_what_is_digested(model: Model) -> None:
    """Whoever computed with other bytes than those on the disk has other digests."""
    gathering = Gathering(model, [digest.B3])
    gathering.take("long", digest.CHUNK, memoryview(bytes(digest.CHUNK)))

    found = hash_model(model, gathered=gathering)

    assert found.roots != hash_model(model).roots
    assert list(gathering.missing("long")) == [
        (0, digest.CHUNK),
        (2 * digest.CHUNK, SIZE),
    ]


def test_the_first_bytes_count(model: Model) -> None:
    gathering = Gathering(model, [digest.B3])
    for start in range(0, SIZE, digest.CHUNK):
        stop = min(start + digest.CHUNK, SIZE)
        gathering.take("long", start, read(model, "long", start, stop))
        gathering.take("long", start, memoryview(bytes(stop - start)))

    assert list(gathering.missing("long")) == []
    assert hash_model(model, gathered=gathering).roots == hash_model(model).roots
