"""PTD-1 against the vectors of the specification and a second implementation written from it."""

from __future__ import annotations

import hashlib
import struct

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest import digest

LONG = bytes(range(256)) * 12_288 + b"x" * 1000


def second_implementation(profile: str, dtype: str, shape: tuple[int, ...], data: bytes) -> str:
    """PTD-1 as DESIGN 4.1 words it, with nothing shared with ours."""
    header = b"PTD1" + struct.pack("<BB", 20, len(dtype)) + dtype.encode()
    header += struct.pack(f"<B{len(shape)}Q", len(shape), *shape) + struct.pack("<Q", len(data))
    chunks = [data[at : at + 2**20] for at in range(0, len(data), 2**20)]
    if profile == "ptd1-b3":
        context = "parentage 2026-06 PTD-1 tensor "
        leaves = [blake3(chunk, derive_key_context=context + "chunk").digest() for chunk in chunks]
        return blake3(header + b"".join(leaves), derive_key_context=context + "root").hexdigest()

    def sha256(purpose: str, body: bytes) -> bytes:
        return hashlib.sha256(
            f"parentage PTD-1 sha256 {purpose}".encode().ljust(64, b"\0") + body
        ).digest()

    leaves = [
        sha256(
            "chunk",
            b"".join(sha256("micro", chunk[at : at + 16384]) for at in range(0, len(chunk), 16384)),
        )
        for chunk in chunks
    ]
    return sha256("root", header + b"".join(leaves)).hex()


@pytest.mark.parametrize(
    ("profile", "dtype", "shape", "data", "expected"),
    [
        (
            "ptd1-b3",
            "BF16",
            (1573364,),
            LONG,
            "2e7761f4ad8de6443643e2c5136c947fe1a0457bfa57e845789875cb1fbccd33",
        ),
        (
            "ptd1-sha256",
            "BF16",
            (1573364,),
            LONG,
            "bde8ba1fb5219072f53aba393593d74c094fb2e742b1ef64776d6d4b5323ba18",
        ),
        (
            "ptd1-b3",
            "F32",
            (0, 4),
            b"",
            "d0f27253a40f7d00ccdabac2d10e06817c82c40bf22f932e1f8c6a9b9a9330de",
        ),
        (
            "ptd1-b3",
            "F32",
            (),
            struct.pack("<f", 1.0),
            "f37141a18dffba65a9a20fd2bfb4a2e0e1e50eda0d68e0f163e3e73c3acb5c45",
        ),
    ],
    ids=["long-b3", "long-sha256", "empty", "scalar"],
)
def test_the_published_vectors(
    profile: digest.Profile, dtype: str, shape: tuple[int, ...], data: bytes, expected: str
) -> None:
    assert digest.tensor_identity(profile, dtype, shape, data) == expected


@settings(max_examples=60, deadline=None)
@given(
    profile=st.sampled_from(digest.PROFILES),
    size=st.one_of(
        st.integers(0, 70_000), st.sampled_from([2**20 - 1, 2**20, 2**20 + 1, 2**21, 3 * 2**20 + 5])
    ),
    seed=st.binary(min_size=1, max_size=8),
    splits=st.integers(1, 3),
)
def test_a_second_implementation_agrees(
    profile: digest.Profile, size: int, seed: bytes, splits: int
) -> None:
    data = (seed * (size // len(seed) + 1))[:size]
    shape = (size,) + (1,) * (splits - 1)

    assert digest.tensor_identity(profile, "U8", shape, data) == second_implementation(
        profile, "U8", shape, data
    )


@pytest.mark.parametrize("profile", digest.PROFILES)
def test_dtype_and_shape_are_part_of_the_identity(profile: digest.Profile) -> None:
    data = bytes(24)
    found = {
        digest.tensor_identity(profile, dtype, shape, data)
        for dtype, shape in [
            ("F32", (6,)),
            ("I32", (6,)),
            ("F32", (2, 3)),
            ("F32", (3, 2)),
            ("F16", (12,)),
        ]
    }

    assert len(found) == 5


@pytest.mark.parametrize("profile", digest.PROFILES)
def test_the_weights_root_sorts_by_utf8_bytes_and_binds_names(profile: digest.Profile) -> None:
    one, two = "11" * 32, "22" * 32
    # U+E000 sorts before U+10000 in UTF-8, after it in UTF-16: the order that JCS would use.
    names = ["\U00010000", "\ue000"]
    body = b"".join(
        struct.pack("<I", len(name.encode())) + name.encode() + bytes.fromhex(root)
        for name, root in [("\ue000", two), ("\U00010000", one)]
    )
    expected = (
        blake3(body, derive_key_context="parentage 2026-06 PTD-1 model root").hexdigest()
        if profile == "ptd1-b3"
        else hashlib.sha256(b"parentage PTD-1 sha256 model".ljust(64, b"\0") + body).hexdigest()
    )

    assert digest.weights_root(profile, zip(names, [one, two], strict=True)) == expected
    assert digest.weights_root(profile, zip(names, [two, one], strict=True)) != expected
