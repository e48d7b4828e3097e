"""PTD-1, the tensor digest, and the weights root (DESIGN 4.1).

Chunk i of a tensor is bytes [i * 2^20, min((i + 1) * 2^20, nbytes)) from the tensor's start.

    HDR = "PTD1" || u8 20 || u8 len(dtype) || dtype || u8 ndim || ndim x u64le || u64le nbytes
    ptd1-b3:     leaf = BLAKE3.derive_key("... tensor chunk", chunk)
                 root = BLAKE3.derive_key("... tensor root",  HDR || leaves)
    ptd1-sha256: micro = SHA256(P("... micro") || 16 KiB piece);  leaf = SHA256(P("... chunk") || micros)
                 root  = SHA256(P("... root") || HDR || leaves);  P pads with zeros to one 64-byte block

Name, file, offset and header order never enter, so the identity survives re-sharding.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol

from blake3 import blake3

Profile = Literal["ptd1-b3", "ptd1-sha256"]
Buffer = bytes | bytearray | memoryview

B3: Final[Profile] = "ptd1-b3"
SHA256: Final[Profile] = "ptd1-sha256"
PROFILES: Final[tuple[Profile, ...]] = (B3, SHA256)

CHUNK: Final = 1 << 20
MICRO: Final = 1 << 14
LEAF_BYTES: Final = 32

_B3_LEAF: Final = "parentage 2026-06 PTD-1 tensor chunk"
_B3_ROOT: Final = "parentage 2026-06 PTD-1 tensor root"
_B3_MODEL: Final = "parentage 2026-06 PTD-1 model root"


def _midstate(purpose: str) -> hashlib._Hash:
    return hashlib.sha256(f"parentage PTD-1 sha256 {purpose}".encode().ljust(64, b"\0"))


_SHA_MICRO: Final = _midstate("micro")
_SHA_LEAF: Final = _midstate("chunk")
_SHA_ROOT: Final = _midstate("root")
_SHA_MODEL: Final = _midstate("model")


def _sha256(midstate: hashlib._Hash, data: Buffer) -> bytes:
    state = midstate.copy()
    state.update(data)
    return state.digest()


class Leaf(Protocol):
    """A leaf in the making; every `update` but the last takes whole 16 KiB pieces."""

    def update(self, data: memoryview, /) -> object:
        """Take the next bytes of the chunk."""

    def digest(self) -> bytes:
        """Return the 32-byte leaf."""


class _Sha256Leaf:
    def __init__(self) -> None:
        self._micros = bytearray()

    def update(self, data: memoryview, /) -> None:
        for at in range(0, len(data), MICRO):
            self._micros += _sha256(_SHA_MICRO, data[at : at + MICRO])

    def digest(self) -> bytes:
        return _sha256(_SHA_LEAF, self._micros)


def new_leaf(profile: Profile) -> Leaf:
    """Return the leaf of a chunk (1 to 2^20 bytes) whose bytes are still to come."""
    return blake3(derive_key_context=_B3_LEAF) if profile == B3 else _Sha256Leaf()


def leaf(profile: Profile, chunk: Buffer) -> bytes:
    """Return the 32-byte leaf of one chunk (1 to 2^20 bytes)."""
    made = new_leaf(profile)
    made.update(memoryview(chunk))
    return made.digest()


def chunk_count(nbytes: int) -> int:
    """Return how many leaves a tensor of `nbytes` bytes has."""
    return -(-nbytes // CHUNK)


def header(dtype: str, shape: Sequence[int], nbytes: int) -> bytes:
    """Return HDR: what binds dtype, shape and length into the identity."""
    name = dtype.encode("ascii")
    dims = b"".join(struct.pack("<Q", size) for size in shape)
    return b"".join(
        (
            b"PTD1",
            bytes((20, len(name))),
            name,
            bytes((len(shape),)),
            dims,
            struct.pack("<Q", nbytes),
        )
    )


def identity(
    profile: Profile, dtype: str, shape: Sequence[int], nbytes: int, leaves: Buffer
) -> str:
    """Return the tensor identity (64 hex digits) from its concatenated leaves."""
    body = header(dtype, shape, nbytes) + bytes(leaves)
    if profile == B3:
        return blake3(body, derive_key_context=_B3_ROOT).hexdigest()
    return _sha256(_SHA_ROOT, body).hex()


def tensor_identity(profile: Profile, dtype: str, shape: Sequence[int], data: Buffer) -> str:
    """Return the identity of a tensor whose bytes are all in memory."""
    view = memoryview(data)
    leaves = b"".join(leaf(profile, view[at : at + CHUNK]) for at in range(0, len(view), CHUNK))
    return identity(profile, dtype, shape, len(view), leaves)


def weights_root(profile: Profile, identities: Iterable[tuple[str, str]]) -> str:
    """Return the weights root of (name, identity) pairs, in byte order of the UTF-8 names."""
    state = blake3(derive_key_context=_B3_MODEL) if profile == B3 else _SHA_MODEL.copy()
    for name, root in sorted((name.encode("utf-8"), root) for name, root in identities):
        state.update(struct.pack("<I", len(name)) + name + bytes.fromhex(root))
    return state.hexdigest()
