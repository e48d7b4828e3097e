"""Timestamps: by OpenSSL's authority over HTTP, and every way in which one is not believed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pki import NOW, STAMP, issue, usage
from tsa import STAMPS, Authority, OpensslTsa, body, drip, drop, status

from parentage import AnyOf, CertificateSigner, KeySigner, PrivateKey, TrustedChains, TrustedKeys
from parentage.attest import bundle, posting, timestamps
from parentage.attest.der import sorted_certificates
from parentage.attest.opening import open_bundle
from parentage.attest.statement import Subject, build_statement
from parentage.attest.timestamps import StampingSigner, TrustedStamps
from parentage.manifest.errors import (
    CertificateError,
    MissingExtraError,
    SigningFailedError,
    TimestampError,
    UsageError,
)

KEY = PrivateKey.generate()
STATEMENT = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})
TSA = Authority()
DAY = timedelta(days=1)


def stamps(authority: Authority = TSA) -> TrustedStamps:
    return TrustedStamps((authority.root.certificate,))


@pytest.fixture
def tsa(tmp_path: Path) -> Iterator[OpensslTsa]:
    with OpensslTsa(tmp_path / "tsa").serving() as authority:
        yield authority


def stamped(signer: Any, *tokens: bytes, at: datetime | None = None) -> bytes:
    """Sign, and put in tokens made elsewhere; or one of `at`."""
    document = json.loads(bundle.build(STATEMENT, signer))
    signature = base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
    given = [TSA.stamp(signature, at)] if at is not None else tokens
    document["verificationMaterial"]["timestampVerificationData"] = {
        "rfc3161Timestamps": [{"signedTimestamp": base64.b64encode(t).decode()} for t in given]
    }
    return json.dumps(document).encode()


def test_a_signature_is_stamped_and_openssl_agrees(tsa: OpensslTsa, tmp_path: Path) -> None:
    signer = StampingSigner(KeySigner(KEY), [tsa.url])
    assert (signer.identity, signer.algorithm) == (KEY.public.fingerprint, "p256")
    data = bundle.build(STATEMENT, signer)

    opened = open_bundle(data, TrustedKeys((KEY.public,), stamps(tsa)), "t")
    assert opened.time is not None
    assert abs(opened.time - datetime.now(UTC)) < timedelta(minutes=1)
    assert open_bundle(data, TrustedKeys((KEY.public,)), "t").time is None
    both = AnyOf(keys=TrustedKeys((KEY.public,), stamps(tsa)))
    assert open_bundle(data, both, "t").time == opened.time

    parsed = bundle.parse(data, "t")
    (tmp_path / "sig").write_bytes(parsed.signature)
    (tmp_path / "reply").write_bytes(parsed.material.timestamps[0])
    subprocess.run(
        ["openssl", "ts", "-verify", "-data", "sig", "-in", "reply", "-CAfile", "tsa/root.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip


def test_certificates_out_of_order_are_put_in_order(tsa: OpensslTsa) -> None:
    """OpenSSL does not sort them; whichever order it took, ours is the sorted one."""
    held = []
    for _ in range(6):
        tsa.leaf = issue("tsa", tsa.intermediate, **STAMPS)
        tsa.leaf.write(tsa.folder, "leaf")
        token = timestamps.stamp(tsa.url, b"signature")
        timestamps.check(token, b"signature", (tsa.root.certificate,), "t")
        answer = (tsa.folder / "reply").read_bytes()
        held.append(answer != token)
        assert sorted_certificates(answer) == token
        assert timestamps.check(answer, b"signature", (tsa.root.certificate,), "t")
    assert any(held)


@given(st.binary(max_size=200))
def test_what_is_no_response_is_left_as_it_is(junk: bytes) -> None:
    assert len(sorted_certificates(junk)) == len(junk)
    with pytest.raises(TimestampError, match="can't be read"):
        timestamps.check(junk, b"s", (TSA.root.certificate,), "t")


def test_an_expired_certificate_was_valid_when_it_signed() -> None:
    old = issue("old root", ca=True, starts=-60 * DAY)
    leaf = issue("publisher", old, starts=-30 * DAY, ends=-10 * DAY)
    signer = CertificateSigner(leaf.signer_key, [leaf.certificate])
    roots = (old.certificate,)
    in_time = stamped(signer, at=NOW - 20 * DAY)

    opened = open_bundle(in_time, TrustedChains(roots, stamps()), "t")
    assert opened.time == NOW - 20 * DAY
    with pytest.raises(CertificateError, match="has expired") as caught:
        open_bundle(in_time, TrustedChains(roots), "t")
    assert "--tsa" in caught.value.hint
    for late in (NOW - 9 * DAY, NOW):
        with pytest.raises(CertificateError, match="has expired"):
            open_bundle(stamped(signer, at=late), TrustedChains(roots, stamps()), "t")
    with pytest.raises(CertificateError, match="not valid yet"):
        open_bundle(stamped(signer, at=NOW - 31 * DAY), TrustedChains(roots, stamps()), "t")


def test_the_earliest_of_several_counts() -> None:
    document = bundle.parse(bundle.build(STATEMENT, KeySigner(KEY)), "t")
    tokens = (TSA.stamp(document.signature, NOW), TSA.stamp(document.signature, NOW - DAY))
    parsed = bundle.Bundle(
        payload=document.payload, payload_type=document.payload_type, data=b"",
        signature=document.signature,
        material=type(document.material)(document.material.kind, (), tokens),
    )  # fmt: skip
    assert stamps().time(parsed, "t") == NOW - DAY


SIGNATURE = b"signature"
OTHER = Authority()
SERVER_LEAF = issue("tsa", TSA.intermediate, extended_critical=True)
LAX = issue("tsa", TSA.intermediate, extended=STAMP, extended_critical=False)
WIDE = issue(
    "tsa", TSA.intermediate, extended_critical=True,
    extended=type(STAMP)([*STAMP, *SERVER_LEAF.certificate.extensions.get_extension_for_class(type(STAMP)).value]),
)  # fmt: skip
NO_SIGN = issue(
    "tsa", TSA.intermediate, extended=STAMP, extended_critical=True,
    key_usage=usage(certificates=True),
)  # fmt: skip
DEAD = issue(
    "tsa", TSA.intermediate, extended=STAMP, extended_critical=True, starts=-9 * DAY, ends=-DAY
)


def by(holder: Any) -> bytes:
    return TSA.stamp(SIGNATURE, by=holder, certificates=(holder, TSA.intermediate))


def patched(old: bytes, new: bytes) -> bytes:
    token = TSA.stamp(SIGNATURE)
    assert token.count(old) >= 1
    return token.replace(old, new)


REFUSED: dict[str, tuple[bytes, str]] = {
    "over-another-signature": (TSA.stamp(b"another"), "over something else"),
    "over-md5": (TSA.stamp(SIGNATURE, digest="md5"), "another kind of digest"),
    "over-sha1": (TSA.stamp(SIGNATURE, digest="sha1"), "another kind of digest"),
    "stranger": (OTHER.stamp(SIGNATURE), "not trusted: certificate does not lead"),
    "from-the-future": (TSA.stamp(SIGNATURE, NOW + timedelta(hours=3)), "from the future"),
    "before-its-certificate": (TSA.stamp(SIGNATURE, NOW - 500 * DAY), "not valid yet"),
    "after-its-certificate": (by(DEAD), "has expired"),
    "rejected": (TSA.stamp(SIGNATURE, status=2), "not granted"),
    "with-mods": (TSA.stamp(SIGNATURE, status=1), "not granted"),
    "code-signing-certificate": (by(SERVER_LEAF), "not for this use"),
    "usage-not-critical": (by(LAX), "not for this use"),
    "usage-not-alone": (by(WIDE), "not for this use"),
    "certificate-signs-nothing": (by(NO_SIGN), "not for this use"),
    "no-certificate": (TSA.stamp(SIGNATURE, certificates=()), "by which one certificate"),
    "another-certificate": (
        TSA.stamp(SIGNATURE, certificates=(TSA.intermediate,)), "by which one certificate",
    ),
    "intermediate-missing": (TSA.stamp(SIGNATURE, certificates=(TSA.leaf,)), "does not lead"),
    "two-signers": (TSA.stamp(SIGNATURE, signers=2), "by which one certificate"),
    "no-signer": (TSA.stamp(SIGNATURE, signers=0), "by which one certificate"),
    "time-changed": (
        patched(f"{NOW:%Y%m%d%H%M%SZ}".encode(), f"{NOW - DAY:%Y%m%d%H%M%SZ}".encode()),
        "does not verify",
    ),
    "empty": (b"", "can't be read"),
    "cut": (TSA.stamp(SIGNATURE)[:-1], "can't be read"),
    "more": (TSA.stamp(SIGNATURE) + b"\0", "can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_timestamps_that_prove_nothing(case: str) -> None:
    token, message = REFUSED[case]
    with pytest.raises(TimestampError, match=message) as caught:
        timestamps.check(token, SIGNATURE, (TSA.root.certificate,), "model.sig")
    assert "model.sig" in caught.value.where


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_good_one(digest: str) -> None:
    token = TSA.stamp(SIGNATURE, NOW, digest=digest)
    assert timestamps.check(token, SIGNATURE, (TSA.root.certificate,), "t") == NOW
    chain = (TSA.leaf.certificate, TSA.intermediate.certificate, TSA.root.certificate)
    lean = TSA.stamp(SIGNATURE, NOW, certificates=(TSA.leaf,))
    assert timestamps.check(lean, SIGNATURE, chain, "t") == NOW


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=3))
def test_any_change_is_a_named_error_or_changes_nothing(at: int, new: bytes) -> None:
    """Some bytes are not signed (the status text, say): the time that is proven stays the same."""
    at %= len(GOOD)
    token = GOOD[:at] + new + GOOD[at + len(new) :]
    try:
        assert timestamps.check(token, SIGNATURE, (TSA.root.certificate,), "t") == NOW
    except TimestampError:
        return


GOOD = TSA.stamp(SIGNATURE, NOW)


def test_one_bad_timestamp_spoils_the_bundle() -> None:
    """With --tsa given; a verifier that was given none looks at no timestamp."""
    trust = TrustedKeys((KEY.public,), stamps())
    for tokens, message in (
        ((TSA.stamp(b"another"),), "something else"),
        ((b"junk",), "can't be read"),
    ):
        data = stamped(KeySigner(KEY), *tokens)
        with pytest.raises(TimestampError, match=message):
            open_bundle(data, trust, "t")
        assert open_bundle(data, TrustedKeys((KEY.public,)), "t").time is None
    document = json.loads(stamped(KeySigner(KEY), at=NOW))
    held = document["verificationMaterial"]["timestampVerificationData"]
    held["rfc3161Timestamps"] *= 2
    with pytest.raises(TimestampError, match="twice"):
        open_bundle(json.dumps(document).encode(), trust, "t")


def test_a_root_is_needed() -> None:
    for anchors in ((), (TSA.intermediate.certificate,)):
        with pytest.raises(UsageError, match="no root"):
            TrustedStamps(anchors)


def test_a_passing_fault_is_tried_again(tsa: OpensslTsa) -> None:
    tsa.faults += [status(503), drop, status(429)]
    assert timestamps.stamp(tsa.url, SIGNATURE)
    assert len(tsa.asked) == 4


def test_a_lasting_fault_ends(tsa: OpensslTsa) -> None:
    tsa.faults += [status(500)] * 9
    with pytest.raises(SigningFailedError, match="does not answer") as caught:
        timestamps.stamp(tsa.url, SIGNATURE)
    assert caught.value.found == "HTTP 500"
    assert len(tsa.asked) == 4


ANSWERS: dict[str, tuple[Any, str]] = {
    "refused": (status(403), "refuses"),
    "redirect": (status(302), "refuses"),
    "garbage": (body(b"<html>"), "can't be read"),
    "empty": (body(b""), "can't be read"),
    "huge": (body(b"\0" * (65 << 10)), "too large"),
    "of-something-else": (body(TSA.stamp(b"another")), "over something else"),
    "rejection": (body(TSA.stamp(SIGNATURE, status=2)), "not granted"),
    "of-another-request": (body(GOOD), "another request"),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_that_are_none(tsa: OpensslTsa, case: str) -> None:
    fault, message = ANSWERS[case]
    tsa.faults.append(fault)
    with pytest.raises(SigningFailedError, match=message) as caught:
        timestamps.stamp(tsa.url, SIGNATURE)
    assert caught.value.exit_code == 4
    assert len(tsa.asked) == 1


def test_a_rejection_by_openssl_has_no_token(tsa: OpensslTsa) -> None:
    """A digest that the authority does not take: a response with a status and nothing else."""
    (tsa.folder / "config").write_text(
        (tsa.folder / "config")
        .read_text()
        .replace("digests=sha256,sha384,sha512", "digests=sha512")
    )
    with pytest.raises(SigningFailedError, match="not granted"):
        timestamps.stamp(tsa.url, SIGNATURE)


@pytest.mark.parametrize("fault", [drip, lambda handler, _: time.sleep(5)], ids=["drips", "stalls"])
def test_a_service_that_never_ends_is_left(tsa: OpensslTsa, fault: Any) -> None:
    tsa.faults.append(fault)
    start = time.monotonic()
    with pytest.raises(SigningFailedError, match="does not answer"):
        posting.post(tsa.url, b"x", kind="a/b", most=100, seconds=0.7)
    assert time.monotonic() - start < 3


def test_nobody_listens() -> None:
    with pytest.raises(SigningFailedError, match="does not answer"):
        timestamps.stamp("http://127.0.0.1:9/", SIGNATURE)


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "x", "http://", "http://u:secret@x/"])  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="not a web address") as caught:
        StampingSigner(KeySigner(KEY), [url])
    assert "secret" not in str(caught.value)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    for ask in (
        lambda: StampingSigner(KeySigner(KEY), ["http://127.0.0.1:9/"]),
        lambda: timestamps.check(GOOD, SIGNATURE, (TSA.root.certificate,), "t"),
    ):
        with pytest.raises(MissingExtraError, match="rfc3161-client") as caught:
            ask()
        assert "parentage[timestamp]" in caught.value.hint


def test_timestamps_of_no_number() -> None:
    for urls in ([], ["http://x/"] * 9):
        with pytest.raises(UsageError, match="this number"):
            StampingSigner(KeySigner(KEY), urls)
