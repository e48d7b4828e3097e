"""GGUF headers: what the reference library wrote is read alike; everything that lies is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFWriter, quants
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import GgufError, ParentageError
from parentage.manifest.gguf import read_gguf
from parentage.manifest.header import Header
from parentage.manifest.model import open_model


def read(data: bytes) -> Header:
    return read_gguf(lambda at, size: data[at : at + size], len(data), "m.gguf")


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: bytes, dims: list[int], kind: int, offset: int) -> bytes:
    return (
        text(name)
        + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", kind, offset)
    )


def build(
    infos: list[bytes], payload: bytes, pairs: list[bytes] | None = None, **counts: Any
) -> bytes:
    pairs = pairs or []
    head = b"GGUF" + struct.pack(
        "<IQQ",
        counts.get("version", 3),
        counts.get("tensors", len(infos)),
        counts.get("keys", len(pairs)),
    )
    head += b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32) + payload


GOOD = build([info(b"a", [3, 2], 0, 0), info(b"b", [32], 8, 32)], bytes(24 + 8 + 34))


def test_a_file_made_by_hand() -> None:
    header = read(GOOD)

    a, b = header.tensors
    assert (a.spec.name, a.spec.dtype, a.spec.shape) == ("a", "F32", (2, 3))
    assert (b.spec.dtype, b.spec.shape, b.end - b.start) == ("Q8_0", (32,), 34)
    assert b.end == len(GOOD)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "not-gguf": (b"GGML" + bytes(60), "not a GGUF"),
    "version-1": (build([], b"", version=1), "GGUF version"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "GGUF version"),
    "tensors-huge": (build([], b"", tensors=2**60), "too many"),
    "pairs-huge": (build([], b"", keys=2**60), "too many"),
    "tensors-missing": (build([], b"", tensors=1000), "truncated"),
    "key-huge": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "too long"),
    "string-huge": (build([], b"", [pair(b"k", 8, struct.pack("<Q", 2**62))]), "truncated"),
    "array-huge": (build([], b"", [pair(b"k", 9, struct.pack("<IQ", 4, 2**62))]), "truncated"),
    "strings-huge": (build([], b"", [pair(b"k", 9, struct.pack("<IQ", 8, 2**62))]), "past the end"),
    "array-of-arrays": (
        build([], b"", [pair(b"k", 9, struct.pack("<IQ", 9, 1) * 40)]),
        "unknown type",
    ),
    "kind-unknown": (build([], b"", [pair(b"k", 99, b"")]), "unknown type"),
    "key-twice": (build([], b"", [pair(b"k", 4, bytes(4))] * 2), "twice"),
    "alignment-0": (build([], b"", [pair(b"general.alignment", 4, bytes(4))]), "alignment"),
    "alignment-odd": (
        build([], b"", [pair(b"general.alignment", 4, struct.pack("<I", 24))]),
        "alignment",
    ),
    "alignment-text": (build([], b"", [pair(b"general.alignment", 8, text(b"32"))]), "alignment"),
    "name-not-utf8": (build([info(b"\xff", [4], 0, 0)], bytes(16)), "UTF-8"),
    "name-twice": (build([info(b"a", [8], 0, 0), info(b"a", [8], 0, 32)], bytes(64)), "twice"),
    "no-dimension": (build([info(b"a", [], 0, 0)], bytes(4)), "dimensions"),
    "five-dimensions": (build([info(b"a", [1] * 5, 0, 0)], bytes(4)), "dimensions"),
    "overflow": (build([info(b"a", [2**40, 2**40], 0, 0)], b""), "impossible shape"),
    "half-a-block": (build([info(b"a", [33], 8, 0)], bytes(68)), "impossible shape"),
    "k-quant": (build([info(b"a", [256], 12, 0)], bytes(144)), "type that we don't read"),
    "iq4-as-large-as-q4": (build([info(b"a", [32], 20, 0)], bytes(18)), "type that we don't read"),
    "gap": (build([info(b"a", [8], 0, 0), info(b"b", [8], 0, 64)], bytes(96)), "gap"),
    "overlap": (build([info(b"a", [8], 0, 0), info(b"b", [8], 0, 0)], bytes(64)), "overlap"),
    "offset-first": (build([info(b"a", [8], 0, 32)], bytes(64)), "gap"),
    "short": (build([info(b"a", [8], 0, 0)], bytes(31)), "truncated GGUF"),
    "long": (build([info(b"a", [8], 0, 0)], bytes(33)), "after the last"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_lies_is_refused(case: str) -> None:
    data, problem = HOSTILE[case]

    with pytest.raises(GgufError, match=problem):
        read(data)


def test_k_quants_are_refused_by_name() -> None:
    with pytest.raises(GgufError) as refused:
        read(HOSTILE["k-quant"][0])

    assert refused.value.found == "Q4_K"
    assert "K-quants" in refused.value.hint


@given(st.binary(max_size=400))
def test_garbage_is_a_named_error(data: bytes) -> None:
    for garbage in (data, b"GGUF\x03\0\0\0" + data):
        with pytest.raises(GgufError):
            read(garbage)


@given(st.data())
def test_any_changed_byte_of_the_header_is_noticed(data: st.DataObject) -> None:
    """Refused, or another header digest, or other tensors: never the same reading."""
    good = read(GOOD)
    at = data.draw(st.integers(0, good.tensors[0].start - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != GOOD[at]))

    try:
        found = read(GOOD[:at] + bytes([value]) + GOOD[at + 1 :])
    except GgufError:
        return
    assert found.sha256 != good.sha256 or found.tensors != good.tensors


@pytest.mark.parametrize("end", range(0, len(GOOD), 5))
def test_every_truncation_is_refused(end: int) -> None:
    with pytest.raises(GgufError):
        read(GOOD[:end])


def test_what_the_reference_library_wrote(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    values = {
        "blk.0.attn_q.weight": generator.standard_normal((6, 64), dtype=np.float32),
        "output_norm.weight": generator.standard_normal(5, dtype=np.float32),
        "half": generator.standard_normal((3, 7)).astype(np.float16),
        "ids": np.arange(11, dtype=np.int32),
    }
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_string("general.name", "größe")
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "a", "ü"] * 50)
    writer.add_array("tokenizer.ggml.scores", [0.5] * 150)
    writer.add_custom_alignment(64)
    for name, value in values.items():
        writer.add_tensor(name, value)
    for kind in (Type.Q8_0, Type.Q4_0):
        blocks = quants.quantize(values["blk.0.attn_q.weight"], kind)
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    expected = {t.name: t for t in GGUFReader(tmp_path / "m.gguf").tensors}
    with open_model(tmp_path / "m.gguf") as model:
        assert set(model.tensors) == set(expected)
        for name, tensor in model.tensors.items():
            there = expected[name]
            assert tensor.spec.shape == tuple(int(n) for n in reversed(there.shape))
            assert tensor.spec.dtype == there.tensor_type.name
            found = model.file_of(tensor).read_at(tensor.start, tensor.end - tensor.start)
            assert found == there.data.tobytes()


def test_a_gguf_and_its_safetensors_have_the_same_identities(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from parentage.manifest.hashing import hash_model

    value = np.random.default_rng(4).standard_normal((8, 32), dtype=np.float32)
    save_file({"w": value}, tmp_path / "m.safetensors")
    writer = GGUFWriter(tmp_path / "m.gguf", "x")
    writer.add_tensor("w", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    roots = []
    for name in ("m.safetensors", "m.gguf"):
        with open_model(tmp_path / name) as model:
            roots.append(hash_model(model).roots)
    assert roots[0] == roots[1]


def test_several_gguf_files_of_one_model_are_ambiguous(tmp_path: Path) -> None:
    for name in ("q8.gguf", "q4.gguf"):
        (tmp_path / name).write_bytes(GOOD)

    with pytest.raises(ParentageError, match="the same tensor in two files"):
        open_model(tmp_path)
