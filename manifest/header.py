"""A safetensors header read strictly.

    u64le N || N bytes of JSON (starting with "{", padded with spaces) || payload

The payload must be covered exactly: no gap, no overlap, nothing past the end. What the safetensors
library (0.8) refuses, we refuse; we also refuse duplicate keys, which it lets pass.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Final, NoReturn

import msgspec

from parentage.manifest.cursor import ReadAt
from parentage.manifest.errors import HeaderError
from parentage.manifest.tensor import DTYPE_BITS, Tensor, TensorSpec

MAX_HEADER: Final = 100_000_000
_MAX_NDIM: Final = 255
_MAX_SIZE: Final = 2**63 - 1


class Header(msgspec.Struct, frozen=True):
    """What a weights file says of itself, in any format.

    Attributes:
        tensors: in order of their bytes.
        metadata: the `__metadata__` strings (safetensors).
        size: bytes before the first tensor (safetensors: 8 + N).
        sha256: of all bytes that belong to no tensor (safetensors: those).
    """

    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]
    size: int
    sha256: str


def read_header(read: ReadAt, file_size: int, file: str) -> Header:
    """Read and check the header of a file of `file_size` bytes.

    Raises:
        HeaderError: naming the first rule that is broken, and where.
    """
    if file_size < 8:
        raise HeaderError(
            "truncated safetensors file", where=file, expected=">= 8 bytes", found=str(file_size)
        )
    prefix = read(0, 8)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise HeaderError(
            "safetensors header too large",
            where=file,
            expected=f"at most {MAX_HEADER} bytes",
            found=str(length),
        )
    if 8 + length > file_size:
        raise HeaderError(
            "safetensors header reaches past the end of the file",
            where=file,
            expected=f"at most {file_size - 8} bytes",
            found=str(length),
        )
    raw = read(8, length)
    entries = _parse(raw, file)
    metadata = _metadata(entries.pop("__metadata__", {}), file)
    tensors = sorted(
        (_tensor(name, entry, 8 + length, file) for name, entry in entries.items()),
        key=lambda tensor: (tensor.start, tensor.end, tensor.spec.name),
    )
    _check_cover(tensors, 8 + length, file_size, file)
    return Header(tuple(tensors), metadata, 8 + length, hashlib.sha256(prefix + raw).hexdigest())


def _parse(raw: bytes, file: str) -> dict[str, object]:
    if raw[:1] != b"{":
        raise HeaderError(
            "safetensors header does not start with '{'", where=file, found=repr(raw[:1])
        )

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) != len(items):
            counts = Counter(name for name, _ in items)
            twice = counts.most_common(1)[0][0]
            raise HeaderError("duplicate key in safetensors header", where=file, found=twice)
        return found

    def refuse(token: str) -> NoReturn:
        raise HeaderError("number in safetensors header is not an integer", where=file, found=token)

    try:
        parsed = json.loads(
            raw.decode("utf-8").rstrip(" "),
            object_pairs_hook=pairs,
            parse_float=refuse,
            parse_constant=refuse,
        )
        for name in parsed:
            name.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise HeaderError(
            "safetensors header is not valid JSON", where=file, found=str(error)
        ) from error
    return parsed  # type: ignore[no-any-return]  # starts with "{", so it is an object


def _metadata(value: object, file: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise HeaderError("__metadata__ is not an object", where=file)
    for key, text in value.items():
        if not isinstance(text, str):
            raise HeaderError("__metadata__ value is not a string", where=file, found=key)
    return value


def _tensor(name: str, entry: object, base: int, file: str) -> Tensor:
    where = f"{file}: {name}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        fields = sorted(entry) if isinstance(entry, dict) else entry
        raise HeaderError(
            "tensor entry has the wrong fields",
            where=where,
            expected="dtype, shape, data_offsets",
            found=str(fields),
        )
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise HeaderError("unknown dtype", where=where, found=str(dtype))
    shape = _naturals(entry["shape"], "shape", where)
    if len(shape) > _MAX_NDIM:
        raise HeaderError("too many dimensions", where=where, found=str(len(shape)))
    offsets = _naturals(entry["data_offsets"], "data_offsets", where)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError("data_offsets is not [start, end]", where=where, found=str(offsets))
    start, end = offsets
    bits = DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
        # In sequence, as the library does: an overflow is refused even if a later 0 hides it.
        if bits > _MAX_SIZE:
            raise HeaderError("shape overflows", where=where, found=str(shape))
    if bits % 8 or bits // 8 != end - start:
        raise HeaderError(
            "dtype and shape do not fit data_offsets",
            where=where,
            expected=f"{bits / 8:g} bytes",
            found=f"{end - start} bytes",
        )
    return Tensor(TensorSpec(name, dtype, shape), file, base + start, base + end)


def _naturals(value: object, field: str, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(
        type(item) is int and 0 <= item <= _MAX_SIZE for item in value
    ):
        raise HeaderError(
            f"{field} is not a list of natural numbers", where=where, found=str(value)
        )
    return tuple(value)


def _check_cover(tensors: list[Tensor], start: int, file_size: int, file: str) -> None:
    at = start
    for tensor in tensors:
        if tensor.start != at:
            problem = "overlapping tensors" if tensor.start < at else "gap between tensors"
            raise HeaderError(
                problem,
                where=f"{file}: {tensor.spec.name}",
                expected=f"start at byte {at}",
                found=f"byte {tensor.start}",
            )
        at = tensor.end
    if at != file_size:
        problem = "truncated safetensors file" if at > file_size else "bytes after the last tensor"
        raise HeaderError(problem, where=file, expected=f"{at} bytes", found=f"{file_size} bytes")
