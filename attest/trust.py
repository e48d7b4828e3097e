"""Whom we believe. An empty list believes nobody and is an error, never a pass."""

from __future__ import annotations

import base64
import hashlib

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from parentage.attest.keys import PublicKey
from parentage.manifest.errors import SignatureError, UsageError


class TrustedKeys(msgspec.Struct, frozen=True):
    """Public keys of one role.

    Attributes:
        keys: at least one.
    """

    keys: tuple[PublicKey, ...]

    def __post_init__(self) -> None:
        """Refuse an empty list."""
        if not self.keys:
            raise UsageError("an empty trust list trusts nobody", hint="--key release.pub")

    def find(self, hint: str, where: str) -> PublicKey:
        """Return the trusted key that a bundle's hint names.

        Raises:
            SignatureError: no trusted key has it.
        """
        for key in self.keys:
            if hint in _spellings(key):
                return key
        raise SignatureError(
            "signed by a key that is not trusted",
            where=where,
            expected="one of " + ", ".join(key.fingerprint for key in self.keys),
            found=hint,
            hint="pass the publisher's key with --key, if you have it from a source you trust",
        )


def _spellings(key: PublicKey) -> set[str]:
    """Return the hints in use: OMS's hex, and base64 of the DER digest (cosign, sigstore-go)."""
    der = load_pem_public_key(key.pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).digest()
    return {key.fingerprint, digest.hex(), base64.b64encode(digest).decode()}
