"""A GGUF header read strictly: tensors as byte ranges, everything else skipped and digested.

    "GGUF" || u32 version (2, 3) || u64 tensors || u64 pairs
    || pairs: (string key, u32 type, value) || tensors: (string name, u32 ndim, ndim x u64, u32 type, u64 offset)
    || padding || tensors, each padded to general.alignment

Strings are u64 length and UTF-8. Dimensions stand innermost first; we give them row-major. What
ggml's reader refuses (gguf.cpp), we refuse, and also padding that is not there or too long.
"""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.manifest.cursor import Cursor, ReadAt
from parentage.manifest.errors import GgufError
from parentage.manifest.header import Header
from parentage.manifest.outside import outside_sha256
from parentage.manifest.tensor import BLOCKS, Tensor, TensorSpec, nbytes_of

MAX_HEADER: Final = 64 << 20
_MAX_TENSORS: Final = 1_000_000
_MAX_PAIRS: Final = 100_000
_MAX_KEY: Final = 65_535
_MAX_NDIM: Final = 4
_MAX_ALIGNMENT: Final = 1 << 20
_MAX_DEPTH: Final = 4

#: Bytes of the scalar types of a value (GGUF specification, gguf_metadata_value_type).
_SCALARS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9

#: ggml types that we read, by number (ggml.h); the other numbers only for the message.
_TYPES: Final = dict(
    zip(
        (0, 1, 30, 28, 2, 8, 24, 25, 26, 27),
        "F32 F16 BF16 F64 Q4_0 Q8_0 I8 I16 I32 I64".split(),
        strict=True,
    )
)
_OTHERS: Final = dict(
    zip(
        (3, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 29, 34, 35, 39),
        "Q4_1 Q5_0 Q5_1 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS IQ1_M TQ1_0 TQ2_0 MXFP4".split(),
        strict=True,
    )
)


class _Info(msgspec.Struct, frozen=True):
    """A tensor as the header has it: its offset counts from the end of the header."""

    spec: TensorSpec
    offset: int
    nbytes: int


def read_gguf(read: ReadAt, file_size: int, file: str) -> Header:
    """Read and check the header of a GGUF file.

    Raises:
        GgufError: naming the first rule that is broken, or the type of tensor that we don't read.
    """
    cursor = Cursor(read, 0, min(file_size, MAX_HEADER), file, GgufError)
    if cursor.take(4) != b"GGUF":
        raise cursor.fail("not a GGUF file", expected="GGUF at its start")
    version = cursor.integer(4)
    if version not in {2, 3}:
        raise cursor.fail("GGUF version", expected="2 or 3, little-endian", found=str(version))
    tensors, pairs = cursor.integer(8), cursor.integer(8)
    if tensors > _MAX_TENSORS or pairs > _MAX_PAIRS:
        raise cursor.fail("too many tensors or metadata", found=f"{tensors} tensors, {pairs} keys")
    alignment = _skip_metadata(cursor, pairs)
    infos = [_info(cursor) for _ in range(tensors)]
    base = cursor.at + -cursor.at % alignment
    found = _place(infos, base, alignment, file_size, file)
    return Header(tuple(found), {}, base, outside_sha256(read, file_size, found))


def _skip_metadata(cursor: Cursor, pairs: int) -> int:
    """Pass over the key-value pairs and return the alignment."""
    alignment = 32
    seen: set[bytes] = set()
    for _ in range(pairs):
        key = _string(cursor, _MAX_KEY)
        if key in seen:
            raise cursor.fail("metadata key stands twice", found=key.decode("utf-8", "replace"))
        seen.add(key)
        kind = cursor.integer(4)
        if key != b"general.alignment":
            _skip_value(cursor, kind, 0)
            continue
        alignment = cursor.integer(4) if kind == _UINT32 else 0
        if alignment & (alignment - 1) or not 0 < alignment <= _MAX_ALIGNMENT:
            raise cursor.fail("bad alignment", expected="a power of two, u32", found=str(alignment))
    return alignment


def _skip_value(cursor: Cursor, kind: int, depth: int) -> None:
    if kind in _SCALARS:
        cursor.skip(_SCALARS[kind])
    elif kind == _STRING:
        cursor.skip(cursor.integer(8))
    elif kind == _ARRAY and depth < _MAX_DEPTH:
        inner, count = cursor.integer(4), cursor.integer(8)
        if inner in _SCALARS:
            cursor.skip(_SCALARS[inner] * count)
            return
        if 8 * count > cursor.end - cursor.at:  # each begins with its length
            raise cursor.fail("array reaches past the end of the header", found=f"{count} items")
        for _ in range(count):
            _skip_value(cursor, inner, depth + 1)
    else:
        raise cursor.fail("unknown type of metadata value", found=str(kind))


def _string(cursor: Cursor, limit: int) -> bytes:
    length = cursor.integer(8)
    if length > limit:
        raise cursor.fail("string too long", expected=f"at most {limit} bytes", found=str(length))
    return cursor.take(length)


def _info(cursor: Cursor) -> _Info:
    raw = _string(cursor, _MAX_KEY)
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise cursor.fail("tensor name is not UTF-8", found=repr(raw)) from error
    ndim = cursor.integer(4)
    if not 0 < ndim <= _MAX_NDIM:
        raise cursor.fail("number of dimensions", expected=f"1 to {_MAX_NDIM}", found=str(ndim))
    shape = tuple(reversed([cursor.integer(8) for _ in range(ndim)]))
    kind, offset = cursor.integer(4), cursor.integer(8)
    dtype = _TYPES.get(kind)
    if dtype is None:
        raise cursor.fail(
            f"tensor {name!r} has a type that we don't read",
            expected=", ".join(_TYPES.values()),
            found=_OTHERS.get(kind, f"ggml type {kind}"),
            hint="K-quants and IQ types are searched for, not computed: no recompute is exact",
        )
    nbytes = nbytes_of(dtype, shape)
    if nbytes is None:
        rule = f"a multiple of {BLOCKS[dtype][0]} columns" if dtype in BLOCKS else "no overflow"
        raise cursor.fail(
            f"tensor {name!r} has an impossible shape", expected=rule, found=str(shape)
        )
    return _Info(TensorSpec(name, dtype, shape), offset, nbytes)


def _place(
    infos: list[_Info], base: int, alignment: int, file_size: int, file: str
) -> list[Tensor]:
    """Check that the tensors follow one another, each padded, and end with the file."""
    found: list[Tensor] = []
    names: set[str] = set()
    at = base
    for info in infos:
        where = f"{file}: {info.spec.name}"
        if info.spec.name in names:
            raise GgufError("tensor name stands twice", where=where)
        names.add(info.spec.name)
        if base + info.offset != at:
            raise GgufError(
                "tensors overlap or leave a gap",
                where=where,
                expected=f"offset {at - base}",
                found=str(info.offset),
            )
        end = at + info.nbytes
        found.append(Tensor(info.spec, file, at, end))
        at = end + -info.nbytes % alignment
    last = found[-1].end if found else 0
    if not last <= file_size <= max(at, base):
        problem = "truncated GGUF file" if file_size < last else "bytes after the last tensor"
        raise GgufError(problem, where=file, expected=f"{at} bytes", found=f"{file_size} bytes")
    return found
