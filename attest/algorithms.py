"""Signature algorithms: how a key of each is made, recognised, signed with and checked.

To add one: a class with `Algorithm`'s methods, and a line in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

from parentage.manifest.errors import MissingExtraError, SigningKeyError


class Algorithm(Protocol):
    """One kind of key. Keys are `cryptography`'s objects; signatures are what its `sign` returns."""

    #: The name on the command line, and whether OpenSSF Model Signing takes it (v1.0: ECDSA only).
    name: str
    oms: bool

    def generate(self) -> Any:  # noqa: ANN401
        """Make a private key."""

    def holds(self, key: object) -> bool:
        """Say whether a public key is of this algorithm."""

    def sign(self, key: Any, data: bytes) -> bytes:  # noqa: ANN401
        """Sign with a private key of this algorithm."""

    def verify(self, key: Any, signature: bytes, data: bytes) -> None:  # noqa: ANN401
        """Raise `cryptography.exceptions.InvalidSignature` unless the signature is good."""


class Ecdsa:
    """ECDSA with DER signatures, over the digest that is as wide as the curve."""

    oms = True

    def __init__(
        self, name: str, curve: ec.EllipticCurve, digest: type[hashes.HashAlgorithm]
    ) -> None:
        """Sign on `curve` over `digest`."""
        self.name, self._curve, self._algorithm = name, curve, ec.ECDSA(digest())

    def generate(self) -> ec.EllipticCurvePrivateKey:
        """Make a key on the curve."""
        return ec.generate_private_key(self._curve)

    def holds(self, key: object) -> bool:
        """Say whether the key is on the curve."""
        return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == self._curve.name

    def sign(self, key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
        """Return a DER signature."""
        return key.sign(data, self._algorithm)

    def verify(self, key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
        """Check a DER signature."""
        key.verify(signature, data, self._algorithm)


def verify_legacy(key: object, signature: bytes, data: bytes) -> None:
    """Check a signature by model_signing 0.2: ECDSA, over SHA-256 whatever the curve."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidSignature
    key.verify(signature, data, ec.ECDSA(hashes.SHA256()))


class Ed25519:
    """Ed25519 (RFC 8032): for our own claims."""

    name, oms = "ed25519", False

    def generate(self) -> ed25519.Ed25519PrivateKey:
        """Make a key."""
        return ed25519.Ed25519PrivateKey.generate()

    def holds(self, key: object) -> bool:
        """Say whether the key is one of Ed25519."""
        return isinstance(key, ed25519.Ed25519PublicKey)

    def sign(self, key: ed25519.Ed25519PrivateKey, data: bytes) -> bytes:
        """Return 64 bytes."""
        return key.sign(data)

    def verify(self, key: ed25519.Ed25519PublicKey, signature: bytes, data: bytes) -> None:
        """Check 64 bytes."""
        key.verify(signature, data)


class MlDsa65:
    """ML-DSA-65 (FIPS 204, pure, empty context): for an additional bundle beside an ECDSA one."""

    name, oms = "ml-dsa-65", False

    def generate(self) -> mldsa.MLDSA65PrivateKey:
        """Make a key.

        Raises:
            MissingExtraError: the OpenSSL below `cryptography` has no ML-DSA.
        """
        try:
            return mldsa.MLDSA65PrivateKey.generate()
        except UnsupportedAlgorithm as error:
            raise MissingExtraError(
                "ML-DSA needs a cryptography with OpenSSL 3.5 or newer, as its wheels have",
                hint="pip install --force-reinstall --only-binary :all: cryptography",
            ) from error

    def holds(self, key: object) -> bool:
        """Say whether the key is one of ML-DSA-65."""
        return isinstance(key, mldsa.MLDSA65PublicKey)

    def sign(self, key: mldsa.MLDSA65PrivateKey, data: bytes) -> bytes:
        """Return 3309 bytes."""
        return key.sign(data)

    def verify(self, key: mldsa.MLDSA65PublicKey, signature: bytes, data: bytes) -> None:
        """Check 3309 bytes."""
        key.verify(signature, data)


ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    algorithm.name: algorithm
    for algorithm in (
        Ecdsa("p256", ec.SECP256R1(), hashes.SHA256),
        Ecdsa("p384", ec.SECP384R1(), hashes.SHA384),
        Ecdsa("p521", ec.SECP521R1(), hashes.SHA512),
        Ed25519(),
        MlDsa65(),
    )
}


def algorithm_of(key: object, *, where: str = "") -> Algorithm:
    """Return the algorithm of a public key.

    Raises:
        SigningKeyError: none that is used here.
    """
    for algorithm in ALGORITHMS.values():
        if algorithm.holds(key):
            return algorithm
    curve = f" {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else ""
    raise SigningKeyError(
        "key type not supported",
        where=where,
        expected=", ".join(ALGORITHMS),
        found=type(key).__name__ + curve,
    )
