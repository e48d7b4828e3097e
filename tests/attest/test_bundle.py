"""Bundles: one format, one signature, no payload before the signature."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from parentage.attest import bundle
from parentage.attest.keys import PrivateKey
from parentage.attest.opening import open_bundle
from parentage.attest.signer import KeySigner
from parentage.attest.statement import Subject, build_statement, parse_statement
from parentage.attest.trust import TrustedKeys
from parentage.manifest.errors import (
    BundleError,
    MalformedError,
    SignatureError,
    StatementError,
    UsageError,
)

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()
TRUST = TrustedKeys((OTHER.public, KEY.public))
STATEMENT = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})
DOCUMENT = json.loads(bundle.build(STATEMENT, KeySigner(KEY)))


def edited(*path: Any, value: Any = None, drop: bool = False) -> bytes:
    document = copy.deepcopy(DOCUMENT)
    at = document
    for key in path[:-1]:
        at = at[key]
    if drop:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(document).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_good_bundle() -> None:
    opened = open_bundle(json.dumps(DOCUMENT, indent=2).encode(), TRUST, "model.sig")

    assert opened.payload == STATEMENT
    assert opened.signer.fingerprint == KEY.public.fingerprint


SIGNATURE = DOCUMENT["dsseEnvelope"]["signatures"][0]
BROKEN: dict[str, tuple[bytes, str]] = {
    "two-signatures": (
        edited("dsseEnvelope", "signatures", value=[SIGNATURE, SIGNATURE]),
        "exactly one signature",
    ),
    "no-signature": (edited("dsseEnvelope", "signatures", value=[]), "exactly one signature"),
    "signatures-null": (edited("dsseEnvelope", "signatures"), "exactly one signature"),
    "payload-type": (
        edited("dsseEnvelope", "payloadType", value="text/plain"),
        "payload of another",
    ),
    "media-type": (edited("mediaType", value="x" + bundle.MEDIA_TYPE), "bundle of another type"),
    "unknown-top": (edited("extra", value=1), "unknown field"),
    "unknown-envelope": (edited("dsseEnvelope", "extra", value=1), "unknown field"),
    "unknown-signature": (
        edited("dsseEnvelope", "signatures", value=[{**SIGNATURE, "cert": ""}]),
        "unknown field",
    ),
    "unknown-material": (edited("verificationMaterial", "extra", value=1), "unknown field"),
    "no-envelope": (edited("dsseEnvelope", drop=True), "field missing"),
    "envelope-list": (edited("dsseEnvelope", value=[]), "not a JSON object"),
    "no-key": (edited("verificationMaterial", "publicKey", drop=True), "in one way"),
    "two-ways": (
        edited("verificationMaterial", "certificate", value={"rawBytes": "AA=="}),
        "in one way",
    ),
    "certificate": (
        edited("verificationMaterial", value={"certificate": {"rawBytes": ""}}),
        "part of this size",
    ),
    "hint-number": (
        edited("verificationMaterial", "publicKey", "hint", value=5),
        "hint is not text",
    ),
    "keyid-number": (edited("dsseEnvelope", "signatures", 0, "keyid", value=5), "keyid"),
    "junk-base64": (edited("dsseEnvelope", "payload", value="!!!"), "not base64"),
    "url-base64": (edited("dsseEnvelope", "signatures", 0, "sig", value="-_-_"), "not base64"),
    "array": (b"[]", "not a JSON object"),
    "empty": (b"", "not valid JSON"),
    "deep": (b"[" * 100_000, "nested"),
    "nan": (b'{"mediaType": NaN}', "exact value"),
    "duplicate": (
        json.dumps(DOCUMENT).replace("{", '{"mediaType": "x", ', 1).encode(),
        "duplicate",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_bundles_are_refused_by_name(case: str) -> None:
    data, message = BROKEN[case]

    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(data, TRUST, "model.sig")

    assert caught.value.where.startswith("model.sig")


def test_a_bundle_of_a_gigabyte_is_refused_unread() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 1 << 30

    with pytest.raises(BundleError, match="too large"):
        bundle.parse(Huge(), "model.sig")


def test_another_key_is_named() -> None:
    with pytest.raises(SignatureError, match="not trusted") as caught:
        open_bundle(json.dumps(DOCUMENT).encode(), TrustedKeys((OTHER.public,)), "model.sig")

    assert caught.value.found == KEY.public.fingerprint
    assert OTHER.public.fingerprint in caught.value.expected


def test_a_hint_proves_nothing() -> None:
    """Signed by one key, hinting at another that is trusted."""
    data = edited("verificationMaterial", "publicKey", "hint", value=OTHER.public.fingerprint)

    with pytest.raises(SignatureError, match="does not verify"):
        open_bundle(data, TRUST, "model.sig")


def test_three_spellings_of_the_hint() -> None:
    der = load_pem_public_key(KEY.public.pem).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(der).digest()
    for hint in (KEY.public.fingerprint, digest.hex(), b64(digest)):
        data = edited("verificationMaterial", "publicKey", "hint", value=hint)
        assert open_bundle(data, TRUST, "t").payload == STATEMENT


def test_a_payload_is_not_read_before_its_signature() -> None:
    """A changed payload, even a malformed one, fails as a signature and as nothing else."""
    for payload in (STATEMENT + b" ", b"{", STATEMENT.replace(b'"b"', b'"c"')):
        with pytest.raises(SignatureError, match="does not verify"):
            open_bundle(edited("dsseEnvelope", "payload", value=b64(payload)), TRUST, "t")


def test_an_empty_trust_list_is_an_error() -> None:
    with pytest.raises(UsageError, match="trusts nobody"):
        TrustedKeys(())


def statement(**changes: Any) -> bytes:
    document = {**json.loads(STATEMENT), **changes}
    return json.dumps({k: v for k, v in document.items() if v != "drop"}).encode()


SUBJECT = {"name": "model", "digest": {"sha256": "0" * 64}}


@pytest.mark.parametrize(
    "payload",
    [
        statement(_type="https://in-toto.io/Statement/v0.1"),
        statement(subject=[]),
        statement(subject="drop"),
        statement(subject={}),
        statement(subject=[SUBJECT, SUBJECT]),
        statement(subject=[{**SUBJECT, "uri": "x"}]),
        statement(subject=[{**SUBJECT, "digest": {}}]),
        statement(subject=[{**SUBJECT, "digest": {"sha256": "0" * 64, "sha512": "0" * 128}}]),
        statement(subject=[{**SUBJECT, "digest": {"sha256": "A" * 64}}]),
        statement(subject=[{**SUBJECT, "digest": {"sha256": "0" * 64 + "\n"}}]),
        statement(subject=[{**SUBJECT, "name": 5}]),
        statement(predicate=[]),
        statement(predicate="drop"),
        statement(predicateType=5),
        statement(more=1),
        statement(predicate={"a": 0.5}),
        STATEMENT.replace(b'"predicate"', b'"predicate":{},"predicate"', 1),
        b"null",
        b"\xff",
    ],
)
def test_a_signed_statement_that_is_none(payload: bytes) -> None:
    data = bundle.build(payload, KeySigner(KEY))
    with pytest.raises(StatementError):
        open_bundle(data, TRUST, "t")


_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
_KEYS = st.sampled_from(
    [
        "mediaType",
        "verificationMaterial",
        "dsseEnvelope",
        "payload",
        "payloadType",
        "signatures",
        "sig",
        "publicKey",
        "hint",
        "_type",
        "subject",
        "predicate",
        "predicateType",
        "x",
    ]
)
_ANY = st.recursive(
    _LEAVES | st.sampled_from([bundle.MEDIA_TYPE, "application/vnd.in-toto+json", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(_ANY)
def test_any_document_is_a_bundle_or_a_named_error(value: Any) -> None:
    with pytest.raises(MalformedError):
        bundle.parse(json.dumps(value).encode(), "t")
    with pytest.raises(MalformedError):
        parse_statement(json.dumps(value).encode(), "t")
