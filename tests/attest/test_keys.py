"""Keys: made once, encrypted, never overwritten, never in a message."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from dilithium_py.ml_dsa import ML_DSA_65

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


#: The hash that OpenSSL's dgst is told; Ed25519 and ML-DSA hash for themselves.
DIGESTS = {"p256": "-sha256", "p384": "-sha384", "p521": "-sha512"}


@pytest.mark.parametrize("algorithm", ["p256", "p384", "p521", "ed25519", "ml-dsa-65"])
def test_every_type_of_key(tmp_path: Path, algorithm: str) -> None:
    public = write_keypair(tmp_path / "k.key", SECRET, algorithm=algorithm)
    key = PrivateKey.load(tmp_path / "k.key", SECRET)
    signature = key.sign(b"data")

    assert PublicKey.load(tmp_path / "k.pub").fingerprint == public.fingerprint
    assert public.algorithm.name == algorithm
    assert public.algorithm.oms == (algorithm in DIGESTS)
    public.verify(signature, b"data")
    for wrong, data in ((signature, b"date"), (b"junk", b"data"), (signature[:-1], b"data")):
        with pytest.raises(SignatureError, match="does not verify"):
            public.verify(wrong, data)
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "sig").write_bytes(signature)
    oracle = {
        "ed25519": ["pkeyutl", "-verify", "-pubin", "-inkey", "k.pub", "-rawin", "-in", "data",
                    "-sigfile", "sig"],
    }.get(algorithm, ["dgst", DIGESTS.get(algorithm, ""), "-verify", "k.pub", "-signature", "sig",
                      "data"])  # fmt: skip
    if algorithm == "ml-dsa-65":  # openssl here may be older than 3.5; this is FIPS 204 in Python
        raw = load_pem_public_key(public.pem).public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert ML_DSA_65.verify(raw, b"data", signature)
        return
    subprocess.run(["openssl", *oracle], cwd=tmp_path, check=True, capture_output=True)


def test_no_such_type_of_key(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such type"):
        write_keypair(tmp_path / "k", None, algorithm="rsa")


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
        x25519.X25519PrivateKey.generate(),
    ],
    ids=["secp256k1", "rsa", "x25519"],
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
