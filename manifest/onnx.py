"""The initialisers of an ONNX file as byte ranges: the few protobuf fields that name and place them.

    ModelProto.graph (7) . initializer (5): TensorProto
        dims (1)  data_type (2)  float_data (4)  name (8)  raw_data (9)  double_data (10)  data_location (14)

Nothing else is parsed: the graph is digested as what lies outside the tensors. Values must lie in the
file as they are in memory: raw_data, or packed float_data and double_data. Other typed fields hold
varints, and external data is another file; both are refused. onnx.proto3, IR version 3 and later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from parentage.manifest.cursor import Cursor, ReadAt
from parentage.manifest.errors import OnnxError
from parentage.manifest.header import Header
from parentage.manifest.outside import outside_sha256
from parentage.manifest.tensor import Tensor, TensorSpec, nbytes_of

_MAX_FIELDS: Final = 1_000_000
_MAX_NAME: Final = 65_536
_MAX_NDIM: Final = 255
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: TensorProto.DataType by number, in safetensors' names.
_DTYPES: Final = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 24),
        "F32 U8 I8 U16 I16 I32 I64 BOOL F16 F64 U32 U64 C64 BF16 F8_E4M3 F8_E4M3FNUZ F8_E5M2 F8_E5M2FNUZ F8_E8M0".split(),
        strict=True,
    )
)
_GRAPH, _INITIALIZER, _SPARSE = 7, 5, 15
_DIMS, _TYPE, _SEGMENT, _FLOATS, _NAME, _RAW, _DOUBLES, _EXTERNAL, _LOCATION = (
    *(1, 2, 3, 4),
    *(8, 9, 10, 13, 14),
)
_SINGLE: Final = {_TYPE, _FLOATS, _NAME, _RAW, _DOUBLES, _LOCATION}
_TYPED: Final = {5: "int32_data", 6: "string_data", 7: "int64_data", 11: "uint64_data"}


class _Field(msgspec.Struct, frozen=True):
    """One field: a varint's value, or where its bytes lie."""

    number: int
    wire: int
    value: int
    start: int
    end: int


def read_onnx(read: ReadAt, file_size: int, file: str) -> Header:
    """Read and check the initialisers of an ONNX file.

    Raises:
        OnnxError: naming the first rule that is broken, or the initialiser that we can't read.
    """
    graph = _graph(read, file_size, file)
    found: dict[str, Tensor] = {}
    for field in _fields(read, graph.start, graph.end, file):
        if field.number == _SPARSE:
            raise OnnxError("sparse initialisers are not read", where=file)
        if field.number != _INITIALIZER or field.wire != _BYTES:
            continue
        tensor = _tensor(read, field, file)
        if tensor.spec.name in found:
            raise OnnxError("initialiser stands twice", where=file, found=tensor.spec.name)
        found[tensor.spec.name] = tensor
    if not found:
        raise OnnxError("the graph has no initialiser", where=file)
    tensors = sorted(found.values(), key=lambda tensor: (tensor.start, tensor.end))
    return Header(tuple(tensors), {}, tensors[0].start, outside_sha256(read, file_size, tensors))


def _graph(read: ReadAt, file_size: int, file: str) -> _Field:
    found: _Field | None = None
    for field in _fields(read, 0, file_size, file):
        if field.number == _GRAPH and (found is not None or field.wire != _BYTES):
            raise OnnxError("not an ONNX model: more than one graph", where=file)
        if field.number == _GRAPH:
            found = field
    if found is None:
        raise OnnxError("not an ONNX model: no graph", where=file)
    return found


def _fields(read: ReadAt, start: int, end: int, file: str) -> Iterator[_Field]:
    cursor = Cursor(read, start, end, file, OnnxError)
    count = 0
    while cursor.at < end:
        count += 1
        if count > _MAX_FIELDS:
            raise cursor.fail("too many fields", expected=f"at most {_MAX_FIELDS}")
        tag = _varint(cursor)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise cursor.fail("not an ONNX model: field number 0")
        value = 0
        if wire == _VARINT:
            value, size = _varint(cursor), 0
        elif wire == _BYTES:
            size = _varint(cursor)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
        else:
            raise cursor.fail("not an ONNX model: unknown wire type", found=str(wire))
        at = cursor.skip(size)
        yield _Field(number, wire, value, at, cursor.at)


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = cursor.integer(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and value < 2**64:
            return value
        if byte < 0x80:
            break
    raise cursor.fail("number too long")


def _tensor(read: ReadAt, whole: _Field, file: str) -> Tensor:
    once: dict[int, _Field] = {}
    dims: list[int] = []
    for field in _fields(read, whole.start, whole.end, file):
        if field.number == _DIMS:
            dims += _dims(read, field, file)
            if len(dims) > _MAX_NDIM:
                raise OnnxError("too many dimensions", where=file, found=str(len(dims)))
        elif field.number in once and field.number in _SINGLE:
            # protobuf would take the last one, or join them: no two readers need agree.
            raise OnnxError(
                "field stands twice in an initialiser", where=file, found=str(field.number)
            )
        elif field.number <= _LOCATION:
            once[field.number] = field
    name = _name(read, once.get(_NAME), file)
    where = f"{file}: {name}"
    if _EXTERNAL in once or (_LOCATION in once and once[_LOCATION].value):
        raise OnnxError(
            "initialiser lies in another file (external data)",
            where=where,
            hint="save the model with its weights inside",
        )
    kind = once[_TYPE].value if _TYPE in once else 0
    dtype = _DTYPES.get(kind)
    if dtype is None or _SEGMENT in once:
        raise OnnxError(
            "initialiser of a kind that we don't read", where=where, found=f"type {kind}"
        )
    nbytes = nbytes_of(dtype, tuple(dims))
    if nbytes is None:
        raise OnnxError("shape overflows", where=where, found=str(dims))
    start, end = _values(once, dtype, whole.end, where)
    if end - start != nbytes:
        raise OnnxError(
            "initialiser's values do not fit its type and shape",
            where=where,
            expected=f"{nbytes} bytes",
            found=f"{end - start} bytes",
        )
    return Tensor(TensorSpec(name, dtype, tuple(dims)), file, start, end)


def _values(once: dict[int, _Field], dtype: str, empty: int, where: str) -> tuple[int, int]:
    """Return where an initialiser's values lie."""
    for number, name in _TYPED.items():
        if number in once and once[number].start < once[number].end:
            raise OnnxError(
                f"initialiser's values are varints ({name}), not bytes",
                where=where,
                expected="raw_data",
                hint="rewrite it with onnx.numpy_helper.from_array",
            )
    kinds = {_RAW: dtype, _FLOATS: "F32", _DOUBLES: "F64"}
    given = [(number, once[number]) for number in kinds if number in once]
    if not given:
        return empty, empty
    number, field = given[0]
    if len(given) > 1 or field.wire != _BYTES or kinds[number] != dtype:
        raise OnnxError("initialiser's values are not one run of bytes", where=where, found=dtype)
    return field.start, field.end


def _dims(read: ReadAt, field: _Field, file: str) -> list[int]:
    if field.wire == _VARINT:
        return [field.value]
    if field.wire != _BYTES or field.end - field.start > 10 * _MAX_NDIM:
        raise OnnxError("bad dimensions of an initialiser", where=file)
    cursor = Cursor(read, field.start, field.end, file, OnnxError)
    found = []
    while cursor.at < cursor.end:
        found.append(_varint(cursor))
    return found


def _name(read: ReadAt, field: _Field | None, file: str) -> str:
    if field is None or field.wire != _BYTES or not 0 < field.end - field.start <= _MAX_NAME:
        raise OnnxError("initialiser without a name", where=file)
    raw = read(field.start, field.end - field.start)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OnnxError("initialiser's name is not UTF-8", where=file, found=repr(raw)) from error
