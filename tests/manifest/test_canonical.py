"""Canonical JSON out, strict JSON in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from named import value_or_named_error

from parentage.manifest import canonical
from parentage.manifest.errors import JsonError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(_JSON)
def test_round_trip(value: Any) -> None:
    data = canonical.dumps(value)

    assert canonical.loads(data, where="test") == value == json.loads(data)
    assert data == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [1.0, [0.5], {"a": float("nan")}, {"a": [{"b": 1e3}]}, 2**53, "\ud800"]
)
def test_no_canonical_form(value: object) -> None:
    with pytest.raises(JsonError):
        canonical.dumps(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 1}', "duplicate key"),
        (b'{"a": {"b": 1, "b": 2}}', "duplicate key"),
        (b"NaN", "without an exact value"),
        (b"[Infinity]", "without an exact value"),
        (b"-Infinity", "without an exact value"),
        (b"1.5", "without an exact value"),
        (b"1e3", "without an exact value"),
        (b"9007199254740992", "beyond"),
        (b"9" * 5000, "beyond"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b" " * 101, "too large"),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    limit = 100 if message == "too large" else canonical.MAX_BYTES
    with pytest.raises(JsonError, match=message) as caught:
        canonical.loads(data, where="claims.jsonl:3", max_bytes=limit)

    assert caught.value.where == "claims.jsonl:3"


@given(st.binary(max_size=40))
def test_any_bytes_end_in_a_value_or_a_named_error(data: bytes) -> None:
    found = value_or_named_error(lambda: (canonical.loads(data, where="test"),), JsonError)

    assert found is None or found == (json.loads(data),)
