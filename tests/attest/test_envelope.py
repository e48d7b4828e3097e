"""DSSE's encoding and base64 with one spelling."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parentage.attest.envelope import pae, strict_b64decode
from parentage.manifest.errors import BundleError


def test_the_vector_of_the_dsse_specification() -> None:
    """secure-systems-lab/dsse, protocol.md, "Test Vectors"."""
    assert (
        pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_count_bytes() -> None:
    assert pae("é", "é".encode()) == "DSSEv1 2 é 2 é".encode()


@given(st.text(max_size=5), st.binary(max_size=9), st.text(max_size=5), st.binary(max_size=9))
def test_no_two_pairs_share_an_encoding(t1: str, p1: bytes, t2: str, p2: bytes) -> None:
    assert (pae(t1, p1) == pae(t2, p2)) == ((t1, p1) == (t2, p2))


@given(st.binary(max_size=60))
def test_base64_round_trip(data: bytes) -> None:
    assert strict_b64decode(base64.b64encode(data).decode(), "t") == data


@pytest.mark.parametrize(
    "text",
    [
        "YQ",
        "YQ=",
        "YQ===",
        "YR==",
        "YQ==\n",
        " YQ==",
        "Y Q==",
        "YQ==YQ==",
        "_-__",
        "é",
        "Y",
        None,
        5,
        [],
    ],
)
def test_other_spellings_are_refused(text: object) -> None:
    with pytest.raises(BundleError) as caught:
        strict_b64decode(text, "model.sig: payload")
    assert caught.value.where == "model.sig: payload"
