"""One tensor of a weights file: name, dtype, shape and where its bytes lie."""

from __future__ import annotations

from typing import Final

import msgspec

#: safetensors dtype names and their width in bits (safetensors 0.8, `Dtype::bitsize`).
DTYPE_BITS: Final[dict[str, int]] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

#: GGUF dtypes whose elements are stored in blocks along the last dimension: (elements, bytes) of one
#: (ggml-common.h). safetensors has no name for them.
BLOCKS: Final[dict[str, tuple[int, int]]] = {"Q4_0": (32, 18), "Q8_0": (32, 34)}

_MAX_BITS: Final = 2**63 - 1

#: dtypes whose values the engines compute with; the others are only copied.
FLOAT_DTYPES: Final = frozenset({"F64", "F32", "F16", "BF16"})


def nbytes_of(dtype: str, shape: tuple[int, ...]) -> int | None:
    """Return how many bytes a tensor takes; None: unknown dtype, overflow, or no whole number."""
    per, size = BLOCKS.get(dtype, (1, 0))
    bits = 8 * size if size else DTYPE_BITS.get(dtype, 0)
    if bits == 0 or (size and (not shape or shape[-1] % per)):
        return None
    for length in shape:
        bits *= length
        # In sequence: an overflow is refused even if a later 0 hides it.
        if bits > _MAX_BITS * per:
            return None
    return None if bits % (8 * per) else bits // (8 * per)


class TensorSpec(msgspec.Struct, frozen=True):
    """What a tensor is, wherever it is stored.

    Attributes:
        name: UTF-8 name in the model.
        dtype: safetensors dtype name, or one of `BLOCKS`.
        shape: dimensions, row-major.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements (1 for a scalar)."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Number of bytes as stored."""
        per, size = BLOCKS.get(self.dtype, (8, 0))
        return self.elements * (size or DTYPE_BITS[self.dtype]) // per

    @property
    def unit(self) -> int:
        """Bytes of what sources count: an element, or one byte where elements are no whole bytes."""
        return max(DTYPE_BITS.get(self.dtype, 0) // 8, 1)

    @property
    def units(self) -> int:
        """How many of them there are."""
        return self.nbytes // self.unit


class Tensor(msgspec.Struct, frozen=True):
    """A tensor in a file.

    Attributes:
        spec: name, dtype, shape.
        file: path of the file inside the release, POSIX form.
        start, end: absolute byte range in that file.
    """

    spec: TensorSpec
    file: str
    start: int
    end: int
