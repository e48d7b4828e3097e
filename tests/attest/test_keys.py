"""Keys: made once, encrypted, never overwritten, never in a message."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from parentage.attest.keys import PrivateKey, PublicKey, passphrase_from, write_keypair
from parentage.manifest.errors import SignatureError, SigningKeyError, UsageError

SECRET = b"correct horse battery staple"


def pem(key: object, passphrase: bytes | None = None) -> bytes:
    protection = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(  # type: ignore[attr-defined, no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    )


def test_a_new_key_is_encrypted_private_and_works(tmp_path: Path) -> None:
    public = write_keypair(tmp_path / "release.key", SECRET)
    data = (tmp_path / "release.key").read_bytes()

    assert b"BEGIN ENCRYPTED PRIVATE KEY" in data
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
    assert public.fingerprint == hashlib.sha256((tmp_path / "release.pub").read_bytes()).hexdigest()
    signature = PrivateKey.load(tmp_path / "release.key", SECRET).sign(b"data")
    PublicKey.load(tmp_path / "release.pub").verify(signature, b"data")


def test_openssl_reads_the_key_and_the_signature(tmp_path: Path) -> None:
    """An independent implementation: the same key, the same signature format."""
    write_keypair(tmp_path / "k.key", SECRET)
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "sig").write_bytes(PrivateKey.load(tmp_path / "k.key", SECRET).sign(b"data"))
    try:
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-verify", "k.pub", "-signature", "sig", "data"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("existing", ["release.key", "release.pub"])
def test_keys_are_never_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")

    with pytest.raises(UsageError, match="exists already"):
        write_keypair(tmp_path / "release.key", None)

    assert (tmp_path / existing).read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_curves(tmp_path: Path, curve: type[ec.EllipticCurve]) -> None:
    (tmp_path / "k").write_bytes(pem(ec.generate_private_key(curve())))
    key = PrivateKey.load(tmp_path / "k", None)
    key.public.verify(key.sign(b"x"), b"x")

    with pytest.raises(SignatureError):
        key.public.verify(key.sign(b"x"), b"y")
    with pytest.raises(SignatureError):
        key.public.verify(b"junk", b"x")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["secp256k1", "rsa", "ed25519"],
)
def test_other_keys_are_refused_by_name(tmp_path: Path, key: object) -> None:
    (tmp_path / "k").write_bytes(pem(key))
    (tmp_path / "k.pub").write_bytes(
        key.public_key().public_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(SigningKeyError, match="not supported"):
        PrivateKey.load(tmp_path / "k", None)
    with pytest.raises(SigningKeyError, match="not supported"):
        PublicKey.load(tmp_path / "k.pub")


@pytest.mark.parametrize("passphrase", [None, b"hunter2"])
def test_a_missing_or_wrong_passphrase_is_never_shown(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    write_keypair(tmp_path / "k", SECRET)

    with pytest.raises(SigningKeyError, match="passphrase") as caught:
        PrivateKey.load(tmp_path / "k", passphrase)

    assert "hunter2" not in repr(caught.value) + str(caught.value)
    assert SECRET.decode() not in repr(caught.value) + str(caught.value)
    assert caught.value.exit_code == 2


def test_an_empty_passphrase_is_no_protection(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty passphrase"):
        write_keypair(tmp_path / "k", b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", b"x" * (65 << 10)],
)
def test_files_that_are_no_key(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "k").write_bytes(data)
    with pytest.raises(SigningKeyError):
        PrivateKey.load(tmp_path / "k", None)
    with pytest.raises(SigningKeyError):
        PublicKey.load(tmp_path / "k")
    with pytest.raises(SigningKeyError, match="can't read"):
        PublicKey.load(tmp_path / "none")


def test_where_a_passphrase_comes_from(tmp_path: Path) -> None:
    (tmp_path / "pass").write_bytes(b"from file\r\nsecond line")

    assert passphrase_from(tmp_path / "pass", {"PARENTAGE_PASSPHRASE": "env"}) == b"from file"
    assert passphrase_from(None, {"PARENTAGE_PASSPHRASE": "env"}) == b"env"
    assert passphrase_from(None, {}) is None
    assert "PARENTAGE_PASSPHRASE" not in os.environ
