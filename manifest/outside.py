"""The bytes of a weights file that belong to no tensor.

Tensor identities and this digest together cover every byte of the file, in any format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from parentage.manifest.cursor import ReadAt
from parentage.manifest.tensor import Tensor

_PIECE: Final = 1 << 20


def outside_sha256(read: ReadAt, file_size: int, tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of a file without its tensors; those are disjoint and in order of bytes."""
    state = hashlib.sha256()
    at = 0
    for start, end in [*((t.start, t.end) for t in tensors), (file_size, file_size)]:
        while at < start:
            size = min(_PIECE, start - at)
            state.update(read(at, size))
            at += size
        at = end
    return state.hexdigest()
