"""The kernels of native.c, where it was compiled and its inputs are what it is for: bf16 on a CPU.

An installation without a C compiler has none of them, and nothing but time is lost: the kernels of torch
operations give the same bits (kernels.py). They do so too where a result is NaN. PARENTAGE_NATIVE=0 asks
for them everywhere.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Final

import msgspec
import torch
from torch import Tensor

_KINDS: Final = {
    "p": ctypes.c_void_p,
    "n": ctypes.c_size_t,
    "f": ctypes.c_float,
    "i": ctypes.c_int,
    "u": ctypes.c_uint32,
    " ": None,
}
#: What each function returns, and takes.
_SIGNATURES: Final = {
    "linear": "nppnfpni",
    "task_vectors": "npppnffpni",
    "interpolated": "nppffpni",
    "gram": " pppn",
    "sparse": "npppppniiffpni",
    "norms": " pppnpn",
    "seeded": " pu",
    "drawn": " pnup",
    "unpacked": " ppn",
}
#: Elements of one binary tree of `gram`.
TREE: Final = 4096


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where there is none."""
    spec = find_spec("parentage.verify._native")
    if spec is None or spec.origin is None or os.environ.get("PARENTAGE_NATIVE") == "0":
        return None
    found = ctypes.CDLL(spec.origin)
    for name, kinds in _SIGNATURES.items():
        function = getattr(found, f"parentage_{name}")
        function.restype, *function.argtypes = (_KINDS[kind] for kind in kinds)
    return found


def linear(
    parts: list[Tensor],
    weights: list[float],
    divisor: list[Tensor],
    out: Tensor,
    *,
    compare: bool = False,
) -> int:
    """Run `kernels.linear` in its own blocks, and return how many elements from the first are done.

    The next two do the same for theirs.
    With `compare`, `out` is not written to: an element is done where `out` holds what would be written.
    """
    native = _for(out, *parts)
    if native is None or not 0 < len(parts) == len(weights):
        return 0
    given = _addresses(parts), _floats(weights), len(parts), _factor(divisor)
    return int(native.parentage_linear(*given, *_room(out), compare))


def task_vectors(
    base: Tensor,
    others: list[Tensor],
    first: float,
    weights: list[Tensor],
    divisor: list[Tensor],
    scale: list[Tensor],
    out: Tensor,
    *,
    compare: bool = False,
) -> int:
    """Run `kernels.task_vectors`."""
    native = _for(out, base, *others)
    if native is None or len(others) != len(weights):
        return 0
    numbers = _floats([first, *map(float, weights[1:])])
    given = base.data_ptr(), _addresses(others), numbers, len(others)
    factors = _factor(divisor), _factor(scale)
    return int(native.parentage_task_vectors(*given, *factors, *_room(out), compare))


def interpolated(
    left: Tensor,
    right: Tensor,
    by_left: Tensor,
    by_right: Tensor,
    out: Tensor,
    *,
    compare: bool = False,
) -> int:
    """Run `kernels.interpolated`."""
    native = _for(out, left, right)
    if native is None or by_left.dtype != torch.float32 or by_right.dtype != torch.float32:
        return 0
    given = left.data_ptr(), right.data_ptr(), float(by_left), float(by_right)
    return int(native.parentage_interpolated(*given, *_room(out), compare))


def gram(left: Tensor, right: Tensor) -> list[list[float]] | None:
    """Return the sums of <left, left>, <right, right> and <left, right> over each 4,096 elements, or None.

    Each is one binary tree in float64 (sums.py). What is left behind the last 4,096 is not looked at.
    """
    native = _for(left, right)
    if native is None:
        return None
    rows, places = _rows(3, left)
    native.parentage_gram(left.data_ptr(), right.data_ptr(), places, left.numel() // TREE)
    return [list(row) for row in rows]


class Sparse(msgspec.Struct, frozen=True):
    """How sparse vectors are added (electing.py); numbers are those of bf16.

    Attributes:
        scales: what each vector is multiplied by after masking.
        weights: and after that.
        elect: whether only terms with the sign of their sum are added, and their weights divide.
        divisor: what the sum is divided by: 0 is nothing; with `elect`, anything else is those weights.
        scale: what the sum is multiplied by in the end, in fp32.
    """

    scales: Sequence[float]
    weights: Sequence[float]
    elect: bool
    divisor: float
    scale: float


def sparse(
    how: Sparse,
    base: Tensor,
    parts: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    out: Tensor,
    *,
    subtract: bool,
    compare: bool = False,
) -> int:
    """Add sparse vectors to `base`, and return how many elements from the first are done.

    Args:
        how: what is done to them.
        base: flat.
        parts: vectors of its size; with `subtract`, what gives them less `base`.
        masks: for each 1 where an element stays and 0 where not, a byte each; None: all stay.
        out: like `base`; with `compare` as of `linear`.
        subtract: see `parts`.
        compare: see `out`.
    """
    native, count = _for(out, base, *parts), len(parts)
    if native is None or not 0 < count == len(masks) == len(how.scales) == len(how.weights):
        return 0
    if not all(mask is None or _is_mask(mask, base.numel()) for mask in masks):
        return 0
    flags = (ctypes.c_void_p * count)(*[None if m is None else m.data_ptr() for m in masks])
    given = base.data_ptr(), _addresses(parts), flags, _floats(how.scales), _floats(how.weights)
    numbers = count, subtract, how.elect, how.divisor, how.scale
    return int(native.parentage_sparse(*given, *numbers, *_room(out), compare))


def norms(
    base: Tensor, others: Sequence[Tensor], masks: Sequence[Tensor]
) -> list[list[float]] | None:
    """Return sums of the magnitudes of others less `base` over each 4,096 elements, as of `gram`, or None.

    Two rows for each: of all elements, and of those whose mask, a byte each, is 1.
    """
    native = _for(base, *others)
    if native is None or len(masks) != len(others):
        return None
    if not all(_is_mask(mask, base.numel()) for mask in masks):
        return None
    rows, places = _rows(2 * len(others), base)
    given = base.data_ptr(), _addresses(others), _addresses(masks), len(others)
    native.parentage_norms(*given, places, base.numel() // TREE)
    return [list(row) for row in rows]


class Twister:
    """mt19937 from a seed, as torch's CPU generator draws from it."""

    def __init__(self, library: ctypes.CDLL, seed: int) -> None:
        self._library = library
        self._state = (ctypes.c_uint32 * 625)()
        library.parentage_seeded(self._state, seed & 0xFFFFFFFF)

    def state(self) -> bytes:
        """Return where it is."""
        return bytes(self._state)

    def restore(self, state: bytes) -> None:
        """Go on from where it was."""
        ctypes.memmove(self._state, state, ctypes.sizeof(self._state))

    def skip(self, count: int) -> None:
        """Draw so many words for nothing."""
        self._library.parentage_drawn(self._state, count, 0, None)

    def below(self, limit: int, count: int, out: Tensor) -> None:
        """Draw words, and pack into `out` whether the lower 24 bits of each are below a limit."""
        if _is_mask(out, -(-count // 8)):
            self._library.parentage_drawn(self._state, count, max(limit, 0), out.data_ptr())
        else:
            raise ValueError("no room for so many bits")


def unpacked(packed: Tensor) -> Tensor | None:
    """Return a byte, 0 or 1, for each bit of bytes on a CPU, the lowest first; None without the library."""
    native = library()
    if native is None or not _is_mask(packed, packed.numel()):
        return None
    flags = torch.empty(8 * packed.numel(), dtype=torch.bool)
    native.parentage_unpacked(packed.data_ptr(), flags.data_ptr(), packed.numel())
    return flags


def takes(part: Tensor) -> bool:
    """Say whether a tensor is what the library is for: bf16, in one piece, on a CPU."""
    return part.dtype == torch.bfloat16 and part.device.type == "cpu" and part.is_contiguous()


def _for(first: Tensor, *others: Tensor) -> ctypes.CDLL | None:
    """Return the library if it may be given these tensors, all of one size."""
    size = first.numel()
    if not takes(first) or not all(takes(part) and part.numel() == size for part in others):
        return None
    return library()


def _is_mask(mask: Tensor, size: int) -> bool:
    """Say whether a tensor is a byte for each of so many elements, in one piece, on a CPU."""
    whole = mask.element_size() == 1 and mask.numel() == size
    return whole and mask.device.type == "cpu" and mask.is_contiguous()


def _rows(
    count: int, part: Tensor
) -> tuple[list[ctypes.Array[ctypes.c_double]], ctypes.Array[ctypes.c_void_p]]:
    """Return room for a sum of each 4,096 elements, so many times, and where it is."""
    rows = [(ctypes.c_double * (part.numel() // TREE))() for _ in range(count)]
    return rows, (ctypes.c_void_p * count)(*map(ctypes.addressof, rows))


def _room(out: Tensor) -> tuple[int, int]:
    return out.data_ptr(), out.numel()


def _addresses(parts: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(parts))(*[part.data_ptr() for part in parts])


def _floats(numbers: Sequence[float]) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * len(numbers))(*numbers)


def _factor(numbers: Sequence[Tensor]) -> float:
    """Return a number that may be missing: 1 then, by which nothing changes."""
    return float(numbers[0]) if numbers else 1.0
