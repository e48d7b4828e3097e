"""Keys: made, read, written. A key or passphrase never reaches a message."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from parentage.attest.algorithms import ALGORITHMS, algorithm_of, verify_legacy
from parentage.manifest import atomic
from parentage.manifest.errors import SignatureError, SigningKeyError, UsageError

ENVIRONMENT: Final = "PARENTAGE_PASSPHRASE"
_MAX_KEY_FILE: Final = 64 << 10


class PublicKey:
    """A key that signatures are checked with."""

    def __init__(self, key: Any, *, where: str = "") -> None:  # noqa: ANN401
        """Wrap one of `cryptography`'s public keys.

        Raises:
            SigningKeyError: no algorithm of the table has such keys.
        """
        self.algorithm = algorithm_of(key, where=where)
        self._key = key
        self.pem: bytes = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.der: bytes = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        #: The OMS hint: SHA-256 of the PEM text, final newline included.
        self.fingerprint: str = hashlib.sha256(self.pem).hexdigest()

    @classmethod
    def from_pem(cls, data: bytes, *, where: str = "") -> PublicKey:
        """Read a PEM SubjectPublicKeyInfo.

        Raises:
            SigningKeyError: it is something else, or of an algorithm that is not used here.
        """
        try:
            key = serialization.load_pem_public_key(data)
        except UnsupportedAlgorithm as error:
            raise _unsupported(where) from error
        except ValueError as error:
            raise SigningKeyError(
                "not a public key", where=where, expected="PEM, BEGIN PUBLIC KEY"
            ) from error
        return cls(key, where=where)

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a PEM file."""
        return cls.from_pem(read_key_file(path), where=str(path))

    def verify(self, signature: bytes, data: bytes, *, legacy: bool = False) -> None:
        """Check a signature over `data`; `legacy`: made as model_signing 0.2 did.

        Raises:
            SignatureError: it does not verify.
        """
        try:
            if legacy:
                verify_legacy(self._key, signature, data)
            else:
                self.algorithm.verify(self._key, signature, data)
        except InvalidSignature as error:
            raise SignatureError(
                "signature does not verify",
                expected=f"a {self.algorithm.name} signature by key {self.fingerprint}",
            ) from error


class PrivateKey:
    """A key that signs, held in memory."""

    def __init__(self, key: Any, *, where: str = "") -> None:  # noqa: ANN401
        """Wrap one of `cryptography`'s private keys."""
        self._key = key
        self.public = PublicKey(key.public_key(), where=where)

    @classmethod
    def generate(cls, algorithm: str = "p256") -> PrivateKey:
        """Make a key; P-256 is what every verifier in the field reads.

        Raises:
            UsageError: no such algorithm.
            MissingExtraError: the installed `cryptography` lacks it.
        """
        if algorithm not in ALGORITHMS:
            raise UsageError("no such type of key", expected=", ".join(ALGORITHMS), found=algorithm)
        return cls(ALGORITHMS[algorithm].generate())

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None) -> PrivateKey:
        """Read a PEM file, PKCS#8, encrypted or not.

        Raises:
            SigningKeyError: passphrase missing or wrong, not a key, or of another algorithm.
        """
        data = read_key_file(path)
        encrypted = b"BEGIN ENCRYPTED" in data
        try:
            key = serialization.load_pem_private_key(data, passphrase if encrypted else None)
        except TypeError as error:
            raise SigningKeyError(
                "key is encrypted and no passphrase was given",
                where=str(path),
                hint=f"set {ENVIRONMENT}, or --passphrase-file FILE",
            ) from error
        except UnsupportedAlgorithm as error:
            raise _unsupported(str(path)) from error
        except ValueError as error:
            raise SigningKeyError(
                "wrong passphrase, or not a private key" if encrypted else "not a private key",
                where=str(path),
                expected="PEM, PKCS#8",
            ) from error
        return cls(key, where=str(path))

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return PKCS#8, encrypted where there is a passphrase."""
        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            if not passphrase:
                raise UsageError("empty passphrase", hint="choose one, or --no-passphrase")
            protection = serialization.BestAvailableEncryption(passphrase)
        data: bytes = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )
        return data

    def sign(self, data: bytes) -> bytes:
        """Return a signature over `data`; DER for ECDSA."""
        return self.public.algorithm.sign(self._key, data)


def write_keypair(path: Path, passphrase: bytes | None, *, algorithm: str = "p256") -> PublicKey:
    """Make a key and write PATH (mode 600) and PATH with the suffix `.pub`.

    Raises:
        UsageError: one of the files exists; keys are never overwritten.
    """
    public_path = path.with_suffix(".pub")
    for target in (path, public_path):
        if target.exists():
            raise UsageError(
                "file exists already", where=str(target), hint="choose another --output"
            )
    key = PrivateKey.generate(algorithm)
    atomic.write_bytes(path, key.to_pem(passphrase), mode=0o600)
    atomic.write_bytes(public_path, key.public.pem)
    return key.public


def passphrase_from(file: Path | None, environment: Mapping[str, str]) -> bytes | None:
    """Return the first line of `file`, else PARENTAGE_PASSPHRASE, else None."""
    if file is not None:
        return read_key_file(file).split(b"\n", 1)[0].rstrip(b"\r")
    value = environment.get(ENVIRONMENT)
    return value.encode() if value else None


def _unsupported(where: str) -> SigningKeyError:
    return SigningKeyError("key type not supported", where=where, expected=", ".join(ALGORITHMS))


def read_key_file(path: Path, most: int = _MAX_KEY_FILE) -> bytes:
    """Read a small file of keys, certificates or passphrases.

    Raises:
        SigningKeyError: it can't be read, or is larger than `most`.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise SigningKeyError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > most:
        raise SigningKeyError("file too large for a key", where=str(path))
    return data
