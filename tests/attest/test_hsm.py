"""Keys in a PKCS#11 token: SoftHSM, and addresses of RFC 7512."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from named import value_or_named_error

from parentage import KeySigner, PublicKey, TrustedKeys
from parentage.attest import bundle, pkcs11_uri
from parentage.attest.hsm import TokenKey
from parentage.attest.keys import write_keypair
from parentage.attest.opening import open_bundle
from parentage.attest.statement import Subject, build_statement
from parentage.manifest.errors import (
    MissingExtraError,
    SignatureError,
    SigningFailedError,
    SigningKeyError,
    UsageError,
)

MODULE = next(
    (path for path in (
        Path("/usr/lib/softhsm/libsofthsm2.so"),
        Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
        Path("/usr/lib64/softhsm/libsofthsm.so"),
    ) if path.exists()),
    Path("/nowhere"),
)  # fmt: skip
PIN = "correct-horse-1234"
needs_softhsm = pytest.mark.skipif(
    not MODULE.exists() or shutil.which("softhsm2-util") is None,
    reason="SoftHSM is not installed (apt-get install softhsm2)",
)
STATEMENT = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A token `releases` with keys; a process reads SoftHSM's settings once, so there is one."""
    place = tmp_path_factory.mktemp("softhsm")
    (place / "tokens").mkdir()
    (place / "conf").write_text(f"directories.tokendir = {place}/tokens\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(place / "conf")
    for label in ("releases", "twin", "twin"):
        run("--init-token", "--free", "--label", label, "--so-pin", "0000-so", "--pin", PIN)
    for number, name in enumerate(("p256", "p384", "p521"), 1):
        add(place, name, number, name)
    write_keypair(place / "rsa-stand-in.key", None)
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out",
         place / "rsa.key"],
        check=True, capture_output=True,
    )  # fmt: skip
    put(place / "rsa.key", "rsa", 8)
    add(place, "same", 9, "p256")
    put(place / "same.key", "same", 10)
    yield place
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def run(*arguments: object) -> None:
    subprocess.run(["softhsm2-util", *map(str, arguments)], check=True, capture_output=True)


def put(path: Path, label: str, number: int) -> None:
    run("--import", path, "--token", "releases", "--label", label, "--id", f"{number:02x}",
        "--pin", PIN)  # fmt: skip


def add(place: Path, label: str, number: int, algorithm: str) -> None:
    write_keypair(place / f"{label}.key", None, algorithm=algorithm)
    put(place / f"{label}.key", label, number)


def key(uri: str, public: PublicKey | None = None, **environment: str) -> TokenKey:
    given_ = {"PARENTAGE_PKCS11_MODULE": str(MODULE), "PARENTAGE_PIN": PIN, **environment}
    return TokenKey(pkcs11_uri.parse(uri), public, environment=given_)


@needs_softhsm
@pytest.mark.parametrize("curve", ["p256", "p384", "p521"])
def test_a_token_signs(token: Path, curve: str) -> None:
    held = key(f"pkcs11:token=releases;object={curve};type=private")
    public = PublicKey.load(token / f"{curve}.pub")

    assert held.public.fingerprint == public.fingerprint
    data = bundle.build(STATEMENT, KeySigner(held))
    assert open_bundle(data, TrustedKeys((public,)), "t").payload == STATEMENT
    assert key("pkcs11:token=releases;id=%01").public.algorithm.name == "p256"


@needs_softhsm
def test_the_pin_from_a_file_and_the_module_from_the_address(token: Path) -> None:
    (token / "pin").write_text(f"{PIN}\nsecond line")
    uri = f"pkcs11:token=releases;id=%01?module-path={MODULE}&pin-source=file:{token}/pin"
    held = key(uri, PARENTAGE_PIN="wrong", PARENTAGE_PKCS11_MODULE="")
    assert PublicKey.load(token / "p256.pub").verify(held.sign(b"x"), b"x") is None


@needs_softhsm
def test_the_public_key_may_be_given(token: Path) -> None:
    public = PublicKey.load(token / "p256.pub")
    key("pkcs11:token=releases;id=%01", public).sign(b"x")
    other = PublicKey.load(token / "p384.pub")
    with pytest.raises(SignatureError, match="does not verify with the public key"):
        key("pkcs11:token=releases;id=%01", other).sign(b"x")


@needs_softhsm
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pkcs11:token=nobody;id=%01", "no such token"),
        ("pkcs11:token=twin;id=%01", "more than one such token"),
        ("pkcs11:token=releases;serial=0;id=%01", "no such token"),
        ("pkcs11:token=releases;slot-id=99;id=%01", "no such token"),
        ("pkcs11:token=releases;id=%7f", "no such private key"),
        ("pkcs11:token=releases;object=p256;id=%02", "no such private key"),
        ("pkcs11:token=releases;object=same", "more than one such private key"),
        ("pkcs11:token=releases;object=rsa", "key type not supported"),
    ],
)
def test_what_is_not_there(token: Path, uri: str, message: str) -> None:
    with pytest.raises(SigningKeyError, match=message):
        key(uri)


@needs_softhsm
def test_without_or_with_a_wrong_pin(token: Path) -> None:
    with pytest.raises(SigningKeyError, match="no such private key") as caught:
        key("pkcs11:token=releases;id=%01", PARENTAGE_PIN="")
    assert "PARENTAGE_PIN" in caught.value.hint
    with pytest.raises(SigningKeyError, match="PIN is wrong") as caught:
        key("pkcs11:token=releases;id=%01", PARENTAGE_PIN="wrong-secret")
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(SigningKeyError, match="can't read"):
        key("pkcs11:token=releases;id=%01?pin-source=file:/nowhere")


@pytest.mark.parametrize("module", ["/nowhere/module.so", "/etc/hostname", "/usr/lib/x86_64-linux-gnu/libz.so.1"])  # fmt: skip
def test_a_module_that_is_none(module: str) -> None:
    with pytest.raises(SigningFailedError, match="module or token fails"):
        key("pkcs11:object=a", PARENTAGE_PKCS11_MODULE=module)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(MissingExtraError, match="python-pkcs11") as caught:
        key("pkcs11:object=a")
    assert "parentage[pkcs11]" in caught.value.hint


@pytest.mark.parametrize("module", ["", "libsofthsm2.so"])
def test_a_module_is_named_in_full(module: str) -> None:
    """Nothing is looked for: what is loaded runs in this process."""
    with pytest.raises(UsageError, match="no PKCS#11 module"):
        key("pkcs11:object=a", PARENTAGE_PKCS11_MODULE=module)


WRONG = {
    "scheme": ("pkcs12:object=a", "not a PKCS#11 address"),
    "no-key": ("pkcs11:token=a", "names no key"),
    "nothing": ("pkcs11:", "names no key"),
    "public": ("pkcs11:object=a;type=public", "something else"),
    "unknown": ("pkcs11:object=a;colour=red", "unknown"),
    "unknown-query": ("pkcs11:object=a?module-name=x", "unknown"),
    "twice": ("pkcs11:object=a;object=b", "twice"),
    "no-value": ("pkcs11:object", "without a value"),
    "empty-attribute": ("pkcs11:object=a;;id=b", "unknown"),
    "pin": ("pkcs11:object=a?pin-value=hunter2", "seen by everybody"),
    "pin-in-path": ("pkcs11:object=a;pin-value=hunter2", "seen by everybody"),
    "pin-command": ("pkcs11:object=a?pin-source=|cat%20/etc/passwd", "not a file"),
    "pin-relative": ("pkcs11:object=a?pin-source=file:hunter2", "not a file"),
    "module-relative": ("pkcs11:object=a?module-path=x.so", "not a whole path"),
    "slot": ("pkcs11:object=a;slot-id=x", "not a number"),
    "space": ("pkcs11:object=a b", "must be escaped"),
    "half-escape": ("pkcs11:object=a%2", "must be escaped"),
    "not-utf8": ("pkcs11:object=%ff", "is not text"),
    "long": ("pkcs11:object=" + "a" * 5000, "not a PKCS#11 address"),
}


@pytest.mark.parametrize("case", WRONG)
def test_addresses_that_are_none(case: str) -> None:
    uri, message = WRONG[case]
    with pytest.raises(UsageError, match=message) as caught:
        pkcs11_uri.parse(uri)
    assert "hunter2" not in str(caught.value)


def test_an_address_in_full() -> None:
    """The example of RFC 7512, section 3, with what is refused here left out."""
    found = pkcs11_uri.parse(
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;"
        "model=1.0;object=my-certificate;type=private;id=%69%95%3E%5C%F4%BD%EC%91;serial=;slot-id=327"
        "?pin-source=file:/etc/token_pin&module-path=/usr/lib/a.so"
    )
    assert found.token == "The Software PKCS#11 Softtoken"  # noqa: S105  (a label)
    assert found.manufacturer == "Snake Oil, Inc."
    assert (found.model, found.object, found.serial, found.slot_id) == (
        "1.0",
        "my-certificate",
        "",
        327,
    )
    assert found.id == b"\x69\x95\x3e\x5c\xf4\xbd\xec\x91"
    assert found.pin_source == Path("/etc/token_pin")
    assert found.module_path == Path("/usr/lib/a.so")


@given(st.text(st.sampled_from("objectid=;&?%0aF/|:-\x00é"), max_size=40))
def test_any_text_is_an_address_or_a_named_error(text: str) -> None:
    value_or_named_error(lambda: pkcs11_uri.parse("pkcs11:" + text), UsageError)
