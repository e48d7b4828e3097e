"""ONNX initialisers: read as the onnx package reads them, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from parentage.manifest.errors import FileSetError, OnnxError
from parentage.manifest.hashing import hash_model
from parentage.manifest.header import Header
from parentage.manifest.model import open_model
from parentage.manifest.onnx import read_onnx


def read(data: bytes) -> Header:
    return read_onnx(lambda at, size: data[at : at + size], len(data), "m.onnx")


def model(*tensors: TensorProto, **more: Any) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([node], "g", value[:1], value[1:], initializer=list(tensors), **more)
    return bytes(helper.make_model(graph).SerializeToString())


def tensor(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(value, name)


def values() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    x = generator.standard_normal((3, 5))
    plain = {t: x.astype(t) for t in ("float64", "float32", "float16", "int8", "uint16", "int64")}
    small = {
        t: x.astype(getattr(ml_dtypes, t)) for t in ("bfloat16", "float8_e4m3fn", "float8_e5m2")
    }
    return plain | small | {"bool": x > 0, "scalar": np.float32(3), "empty": np.zeros((0, 4), "f4")}


def test_every_dtype_has_the_bytes_that_onnx_reads() -> None:
    data = model(*(tensor(name, np.asarray(value)) for name, value in values().items()))

    header = read(data)

    parsed = {t.name: t for t in onnx.load_from_string(data).graph.initializer}
    assert {t.spec.name for t in header.tensors} == set(parsed)
    for found in header.tensors:
        expected = numpy_helper.to_array(parsed[found.spec.name])
        assert data[found.start : found.end] == expected.tobytes()
        assert found.spec.shape == expected.shape
    names = {t.spec.name: t.spec.dtype for t in header.tensors}
    assert names["float8_e4m3fn"] == "F8_E4M3"
    assert names["bfloat16"] == "BF16"


def test_packed_floats_are_bytes_as_well() -> None:
    data = model(
        helper.make_tensor("f", TensorProto.FLOAT, [2], [1.5, -2.0]),
        helper.make_tensor("d", TensorProto.DOUBLE, [1], [0.1]),
    )

    found = {t.spec.name: data[t.start : t.end] for t in read(data).tensors}

    assert found == {"f": np.array([1.5, -2], "f4").tobytes(), "d": np.array([0.1]).tobytes()}


def external() -> TensorProto:
    made = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="/etc/passwd")
    return made


def raw(**fields: Any) -> bytes:
    return model(TensorProto(**{"name": "w", "data_type": 1, "dims": [1], **fields}))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an ONNX model"),
    "no-graph": (b"\x08\x0a", "no graph"),
    "no-initialiser": (model(), "no initialiser"),
    "two-graphs": (model(tensor("w", np.ones(1, "f4"))) * 2, "more than one graph"),
    "dimensions": (raw(dims=[1] * 300, raw_data=bytes(4)), "too many dimensions"),
    "fields": (b"\x08\x01" * 1_000_001, "too many fields"),
    "external": (model(external()), "another file"),
    "name-twice": (model(*[tensor("w", np.ones(1, "f4"))] * 2), "twice"),
    "no-name": (raw(name="", raw_data=bytes(4)), "without a name"),
    "no-values": (raw(), "do not fit"),
    "too-few": (raw(raw_data=bytes(3)), "do not fit"),
    "too-many": (raw(raw_data=bytes(8)), "do not fit"),
    "both-kinds": (raw(raw_data=bytes(4), float_data=[1.0]), "one run of bytes"),
    "floats-called-ints": (raw(data_type=6, float_data=[1.0]), "one run of bytes"),
    "varints": (raw(data_type=7, int64_data=[5]), "varints"),
    "zero-point": (raw(data_type=3, int32_data=[5]), "varints"),
    "text": (raw(data_type=8, string_data=[b"x"]), "kind that we don't read"),
    "type-unknown": (raw(data_type=77, raw_data=bytes(4)), "kind that we don't read"),
    "int4": (raw(data_type=22, raw_data=bytes(4)), "kind that we don't read"),
    "negative": (raw(dims=[-1], raw_data=bytes(4)), "overflows"),
    "overflow": (raw(dims=[2**62, 2**62, 0]), "overflows"),
    "segment": (
        raw(raw_data=bytes(4), segment=TensorProto.Segment(begin=0, end=1)),
        "kind that we don't read",
    ),
    "sparse": (
        model(
            tensor("w", np.ones(1, "f4")),
            sparse_initializer=[
                helper.make_sparse_tensor(
                    tensor("s", np.ones(1, "f4")), tensor("i", np.zeros(1, "i8")), [3]
                )
            ],
        ),
        "sparse",
    ),
    "length-past-end": (b"\x3a\xff\xff\xff\xff\x7f", "truncated"),
    "varint-endless": (b"\xff" * 20, "too long"),
    "group": (b"\x3b", "wire type"),
    "field-zero": (b"\x00\x01", "field number 0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_can_not_be_read_is_refused(case: str) -> None:
    data, problem = HOSTILE[case]

    with pytest.raises(OnnxError, match=problem):
        read(data)


def test_a_field_that_stands_twice_is_refused() -> None:
    """protobuf takes the last: two readers could see two tensors."""
    one = tensor("w", np.ones(2, "f4")).SerializeToString()
    other = TensorProto(raw_data=bytes(8)).SerializeToString()
    inner = one + other
    graph = b"\x2a" + bytes([len(inner)]) + inner
    data = b"\x3a" + bytes([len(graph)]) + graph
    assert len(onnx.load_from_string(data).graph.initializer[0].raw_data) == 8

    with pytest.raises(OnnxError, match="stands twice in an initialiser"):
        read(data)


@given(st.binary(max_size=300))
def test_garbage_is_a_named_error(data: bytes) -> None:
    with pytest.raises(OnnxError):
        read(data)


GOOD = model(tensor("a", np.arange(6, dtype="f4").reshape(2, 3)), tensor("b", np.ones(3, "i1")))


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    """Refused, or another digest of what is outside, or another tensor, or other values."""
    data = bytearray(GOOD)
    data[at] ^= change

    def view(data: bytes) -> Any:
        header = read(data)
        return header.sha256, [(t, data[t.start : t.end]) for t in header.tensors]

    try:
        found = view(bytes(data))
    except OnnxError:
        return
    assert found != view(GOOD)


@pytest.mark.parametrize("end", range(len(GOOD)))
def test_every_truncation_is_noticed(end: int) -> None:
    """A model may end after its graph, but then it is another model."""
    try:
        found = read(GOOD[:end])
    except OnnxError:
        return
    assert found.sha256 != read(GOOD).sha256


def test_a_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(GOOD)

    roots = []
    for path in (tmp_path, tmp_path / "model.onnx"):
        with open_model(path) as opened:
            roots.append(hash_model(opened, files=opened.headers).roots)

    assert roots[0] == roots[1]


def test_safetensors_come_first(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "model.onnx").write_bytes(GOOD)
    save_file({"w": np.ones(3, "f4")}, tmp_path / "model.safetensors")

    with open_model(tmp_path) as opened:
        assert list(opened.tensors) == ["w"]


def test_a_pickle_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")

    with pytest.raises(FileSetError, match="a pickle is read as a parent only"):
        open_model(tmp_path)
