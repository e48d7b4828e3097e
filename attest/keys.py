"""ECDSA keys: made, read, written. A key or passphrase never reaches a message."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from parentage.manifest import atomic
from parentage.manifest.errors import SignatureError, SigningKeyError, UsageError

ENVIRONMENT: Final = "PARENTAGE_PASSPHRASE"
_MAX_KEY_FILE: Final = 64 << 10
_HASHES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


def _algorithm(curve: ec.EllipticCurve) -> ec.ECDSA:
    algorithm = _HASHES.get(curve.name)
    if algorithm is None:
        raise SigningKeyError("curve not supported", expected=", ".join(_HASHES), found=curve.name)
    return ec.ECDSA(algorithm())


class PublicKey:
    """A key that signatures are checked with."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        """Wrap a key on P-256, P-384 or P-521."""
        self._key = key
        self._algorithm = _algorithm(key.curve)
        self.pem: bytes = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        #: The OMS hint: SHA-256 of the PEM text, final newline included.
        self.fingerprint: str = hashlib.sha256(self.pem).hexdigest()

    @classmethod
    def from_pem(cls, data: bytes, *, where: str = "") -> PublicKey:
        """Read a PEM SubjectPublicKeyInfo.

        Raises:
            SigningKeyError: it is something else, or no elliptic-curve key.
        """
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SigningKeyError(
                "not a public key", where=where, expected="PEM, BEGIN PUBLIC KEY"
            ) from error
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise SigningKeyError(
                "key type not supported", where=where, expected="ECDSA", found=type(key).__name__
            )
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a PEM file."""
        return cls.from_pem(_read(path), where=str(path))

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a DER signature over `data`.

        Raises:
            SignatureError: it does not verify.
        """
        try:
            self._key.verify(signature, data, self._algorithm)
        except InvalidSignature as error:
            raise SignatureError(
                "signature does not verify", expected=f"a signature by key {self.fingerprint}"
            ) from error


class PrivateKey:
    """A P-256 key that signs (P-384 and P-521 are read, too)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Wrap a key."""
        self._key = key
        self._algorithm = _algorithm(key.curve)
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> PrivateKey:
        """Make a P-256 key: the one curve that every verifier in the field reads."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None) -> PrivateKey:
        """Read a PEM file, PKCS#8, encrypted or not.

        Raises:
            SigningKeyError: passphrase missing or wrong, not a key, or not ECDSA.
        """
        data = _read(path)
        encrypted = b"BEGIN ENCRYPTED" in data
        try:
            key = serialization.load_pem_private_key(data, passphrase if encrypted else None)
        except TypeError as error:
            raise SigningKeyError(
                "key is encrypted and no passphrase was given",
                where=str(path),
                hint=f"set {ENVIRONMENT}, or --passphrase-file FILE",
            ) from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SigningKeyError(
                "wrong passphrase, or not a private key" if encrypted else "not a private key",
                where=str(path),
                expected="PEM, PKCS#8",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SigningKeyError(
                "key type not supported",
                where=str(path),
                expected="ECDSA",
                found=type(key).__name__,
            )
        return cls(key)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return PKCS#8, encrypted where there is a passphrase."""
        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            if not passphrase:
                raise UsageError("empty passphrase", hint="choose one, or --no-passphrase")
            protection = serialization.BestAvailableEncryption(passphrase)
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )

    def sign(self, data: bytes) -> bytes:
        """Return a DER signature over `data`."""
        return self._key.sign(data, self._algorithm)


def write_keypair(path: Path, passphrase: bytes | None) -> PublicKey:
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
    key = PrivateKey.generate()
    atomic.write_bytes(path, key.to_pem(passphrase), mode=0o600)
    atomic.write_bytes(public_path, key.public.pem)
    return key.public


def passphrase_from(file: Path | None, environment: Mapping[str, str]) -> bytes | None:
    """Return the first line of `file`, else PARENTAGE_PASSPHRASE, else None."""
    if file is not None:
        return _read(file).split(b"\n", 1)[0].rstrip(b"\r")
    value = environment.get(ENVIRONMENT)
    return value.encode() if value else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        raise SigningKeyError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > _MAX_KEY_FILE:
        raise SigningKeyError("file too large for a key", where=str(path))
    return data
