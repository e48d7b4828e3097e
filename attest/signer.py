"""What can sign. To add a signer: a class with this protocol, and a line in the table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, Protocol

from parentage.attest.keys import PrivateKey


class Signer(Protocol):
    """Anything that signs bytes and says how its signature is checked."""

    @property
    def identity(self) -> str:
        """Who signs, for people."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`."""

    def verification_material(self) -> dict[str, object]:
        """Return the bundle's `verificationMaterial`."""


class BundleSigner(ABC):
    """A signer whose service makes the whole bundle: signature, certificate, log entry."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """Who signs, for people."""

    @abstractmethod
    def bundle(self, payload: bytes) -> bytes:
        """Return the bundle over a statement, as one line of JSON."""


AnySigner = Signer | BundleSigner


class KeySigner:
    """Signs with a private key held in memory."""

    def __init__(self, key: PrivateKey) -> None:
        """Sign with `key`."""
        self._key = key

    @property
    def identity(self) -> str:
        """The public key's fingerprint."""
        return self._key.public.fingerprint

    def sign(self, data: bytes) -> bytes:
        """Return a DER ECDSA signature."""
        return self._key.sign(data)

    def verification_material(self) -> dict[str, object]:
        """Return the public key's hint, as OMS writes it."""
        return {"publicKey": {"hint": self.identity}, "tlogEntries": []}


SIGNERS: Final[Mapping[str, type[KeySigner]]] = {"key": KeySigner}
