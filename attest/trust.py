"""Whom we believe. An empty list believes nobody and is an error, never a pass.

To add a way to trust: a class with `Trust`'s method, given to `AnyOf` with the kind that it checks.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Protocol, runtime_checkable

import msgspec

from parentage.attest.bundle import Bundle
from parentage.attest.identity import Identity, KeyIdentity
from parentage.attest.keys import PublicKey
from parentage.attest.material import Chain, KeyHint, Leaf
from parentage.manifest.errors import SignatureError, UsageError


class Trust(Protocol):
    """A way to find out who signed a bundle, or that nobody trusted did."""

    def check(self, bundle: Bundle, where: str) -> Identity:
        """Verify the bundle's signature and return by whom it is.

        Raises:
            SignatureError: by nobody who is trusted here, or it does not verify.
        """


@runtime_checkable
class Timed(Protocol):
    """A way to find out when a signature was made: what a `Trust` may also be."""

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return a moment at which the signature existed, proven by somebody trusted, or None.

        Raises:
            SignatureError: the bundle carries a proof that does not verify.
        """


class TrustedKeys(msgspec.Struct, frozen=True):
    """Public keys of one role.

    Attributes:
        keys: at least one.
        times: proves when a signature was made.
    """

    keys: tuple[PublicKey, ...]
    times: Timed | None = None

    def __post_init__(self) -> None:
        """Refuse an empty list."""
        if not self.keys:
            raise UsageError("an empty trust list trusts nobody", hint="--key release.pub")

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return when the signature was made, if that is proven."""
        return None if self.times is None else self.times.time(bundle, where)

    def check(self, bundle: Bundle, where: str) -> KeyIdentity:
        """Verify with the trusted key that the hint selects.

        Raises:
            SignatureError: no trusted key has the hint, no key signed, or it does not verify.
        """
        if not isinstance(bundle.material.kind, KeyHint):
            raise not_trusted(bundle, where, "a signature by a key")
        key = self.find(bundle.material.kind.hint, where)
        key.verify(bundle.signature, bundle.signed_bytes, legacy=bundle.legacy)
        return KeyIdentity(key.fingerprint)

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
    digest = hashlib.sha256(key.der).digest()
    return {key.fingerprint, digest.hex(), base64.b64encode(digest).decode()}


class AnyOf(msgspec.Struct, frozen=True):
    """Several ways to trust, at most one for each kind of bundle.

    Attributes:
        keys: for bundles by a key.
        chains: for bundles with a certificate chain.
        keyless: for bundles with a keyless certificate.
    """

    keys: Trust | None = None
    chains: Trust | None = None
    keyless: Trust | None = None

    def __post_init__(self) -> None:
        """Refuse to trust nobody."""
        if self.keys is None and self.chains is None and self.keyless is None:
            raise UsageError("an empty trust list trusts nobody", hint="--key release.pub")

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return when the signature was made, if the way that trusts the signer can tell."""
        return time_of(self._way(bundle), bundle, where)

    def check(self, bundle: Bundle, where: str) -> Identity:
        """Verify as the bundle's kind demands."""
        trust = self._way(bundle)
        if trust is None:
            ways = {"key": self.keys, "certificate": self.chains, "keyless": self.keyless}
            given = ", ".join(name for name, way in ways.items() if way is not None)
            raise not_trusted(bundle, where, f"a signature by {given}")
        return trust.check(bundle, where)

    def _way(self, bundle: Bundle) -> Trust | None:
        kinds = {KeyHint: self.keys, Chain: self.chains, Leaf: self.keyless}
        return kinds[type(bundle.material.kind)]


def time_of(trust: Trust | None, bundle: Bundle, where: str) -> datetime | None:
    """Return when a signature was made, if whoever is trusted can tell."""
    timed: object = trust
    return timed.time(bundle, where) if isinstance(timed, Timed) else None


def keys_of(trust: Trust) -> tuple[PublicKey, ...]:
    """Return the keys that are trusted as such."""
    if isinstance(trust, AnyOf):
        return () if trust.keys is None else keys_of(trust.keys)
    return trust.keys if isinstance(trust, TrustedKeys) else ()


def not_trusted(bundle: Bundle, where: str, expected: str) -> SignatureError:
    """Return the error for a bundle of a kind that nobody is trusted for."""
    found = {KeyHint: "by a key", Chain: "with a certificate chain", Leaf: "keyless"}
    hints = {
        KeyHint: "--key release.pub",
        Chain: "--ca root.pem",
        Leaf: "--identity WHO --issuer URL",
    }
    kind = type(bundle.material.kind)
    return SignatureError(
        "signed in a way that nothing trusted covers",
        where=where,
        expected=expected,
        found=f"a signature {found[kind]}",
        hint=hints[kind],
    )
