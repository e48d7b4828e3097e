"""Who signed, as a verified bundle proves it: a key, a certificate of a chain, or a keyless identity."""

from __future__ import annotations

import msgspec


class KeyIdentity(msgspec.Struct, frozen=True, tag="key"):
    """The holder of a private key.

    Attributes:
        fingerprint: hex SHA-256 of the public key's PEM text, final newline included (the OMS hint).
    """

    fingerprint: str

    def __str__(self) -> str:
        return f"key {self.fingerprint}"


class ChainIdentity(msgspec.Struct, frozen=True, tag="certificate"):
    """The holder of a certificate that leads to a trusted root.

    Attributes:
        subject: RFC 4514 name of the leaf.
        fingerprint: hex SHA-256 of the leaf's DER.
        root: hex SHA-256 of the trusted root's DER.
    """

    subject: str
    fingerprint: str
    root: str

    def __str__(self) -> str:
        return f"certificate {self.subject} ({self.fingerprint})"


class KeylessIdentity(msgspec.Struct, frozen=True, tag="keyless"):
    """Who an OpenID provider said was there when the signing certificate was issued.

    Attributes:
        issuer: URL of the provider.
        identity: the certificate's one subject alternative name: a URI or an address.
        claims: Fulcio's other extensions, by name (sourceRepositoryIdentifier, ...).
    """

    issuer: str
    identity: str
    claims: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.identity} by {self.issuer}"


Identity = KeyIdentity | ChainIdentity | KeylessIdentity
