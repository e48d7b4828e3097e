"""The tensor table: canonical by line, sorted, consistent, and led to by its leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import raw_safetensors

from parentage.manifest import digest, table
from parentage.manifest.errors import TensorTableError
from parentage.manifest.hashing import hash_model
from parentage.manifest.model import open_model

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__"
)


def make(folder: Path, names: list[str], profiles: Any = digest.PROFILES) -> tuple[bytes, bytes]:
    header = {
        name: {
            "dtype": "U8",
            "shape": [at + 1],
            "data_offsets": [at * (at + 1) // 2, (at + 1) * (at + 2) // 2],
        }
        for at, name in enumerate(names)
    }
    total = len(names) * (len(names) + 1) // 2
    (folder / "model.safetensors").write_bytes(raw_safetensors(header, bytes(range(total))))
    with open_model(folder) as model:
        return table.build(model, hash_model(model, profiles=profiles, files=model.headers))


@settings(max_examples=80, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_round_trip_and_rfc8785_line_by_line(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, leaves = make(tmp_path_factory.mktemp("t"), names)
    parsed = table.parse(data)
    table.check_leaves(parsed, leaves)

    assert list(parsed.tensors) == sorted(names, key=str.encode)
    for line in data[:-1].split(b"\n"):
        assert rfc8785.dumps(json.loads(line)) == line


def test_the_root_of_the_lines_is_the_root_of_the_weights(tmp_path: Path) -> None:
    data, _ = make(tmp_path, ["b", "a"])
    with open_model(tmp_path) as model:
        assert table.parse(data).roots == hash_model(model, profiles=digest.PROFILES).roots


def edited(tmp_path: Path, change: Any) -> bytes:
    data, _ = make(tmp_path, ["a", "b"], (digest.B3,))
    lines = [json.loads(line) for line in data.splitlines()]
    changed = change(lines)
    lines = lines if changed is None else changed
    return b"".join(rfc8785.dumps(line) + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[::-1], "after a file line|not sorted"),
        (lambda lines: [lines[1], lines[0], lines[2]], "not sorted"),
        (lambda lines: [lines[0], lines[0], lines[1], lines[2]], "stands twice"),
        (lambda lines: lines[:2], "empty"),
        (lambda lines: lines[2:], "empty"),
        (lambda lines: lines[0].update(dtype="F99"), "unknown dtype"),
        (lambda lines: lines[0].update(shape=[2]), "do not fit"),
        (lambda lines: lines[0].update(shape=[2**40, 2**40]), "overflows"),
        (lambda lines: lines[0].update(shape=[1] * 256), "too many dimensions"),
        (lambda lines: lines[0].update(offsets=[8, 7]), "do not fit"),
        (lambda lines: lines[0].update(offsets=[-1, 0]), "bad line"),
        (lambda lines: lines[0].update(offsets=[10**6, 10**6 + 1]), "outside its file"),
        (lambda lines: lines[0].update(file="other"), "outside its file"),
        (lambda lines: lines[0].update(identity={}), "digest profile"),
        (lambda lines: lines[0].update(identity={"md5": "0" * 64}), "digest profile"),
        (lambda lines: lines[0].update(identity={"ptd1-sha256": "0" * 64}), "different digest"),
        (lambda lines: lines[0]["identity"].update({"ptd1-b3": "0" * 63}), "bad line"),
        (lambda lines: lines[0]["identity"].update({"ptd1-b3": "A" * 64}), "bad line"),
        (lambda lines: lines[0].update(more=1), "bad line"),
        (lambda lines: lines[0].pop("shape") and None, "bad line"),
        (lambda lines: lines[2].update(size=-1), "bad line"),
    ],
)
def test_tables_that_lie(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(TensorTableError, match=message):
        table.parse(edited(tmp_path, change))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data.replace(b'":', b'": ', 1),
        lambda data: data.replace(b'"a"', b'"\\u0061"', 1),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"",
        lambda data: b"[" * 100_000 + b"\n",
    ],
)
def test_one_spelling_only(tmp_path: Path, spoil: Any) -> None:
    data, _ = make(tmp_path, ["a", "b"])
    with pytest.raises(TensorTableError):
        table.parse(spoil(data))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda leaves: leaves[1:],
        lambda leaves: leaves + bytes(32),
        lambda leaves: b"",
        lambda leaves: leaves[32:] + leaves[:32],
    ],
)
def test_leaves_that_lead_elsewhere(tmp_path: Path, spoil: Any) -> None:
    data, leaves = make(tmp_path, ["a", "b"])
    with pytest.raises(TensorTableError, match="leaves"):
        table.check_leaves(table.parse(data), spoil(leaves))
