"""What can sign a payload: a key shown by its hint, or one shown by a certificate chain.

Two things are apart: who holds the key (`Holder`: memory, a command, a PKCS#11 token) and how the
bundle says that the signature is checked (`Signer`). To add a holder: a class with its protocol,
and a line in the table of parentage/cli/signing.py; to add a signer, likewise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import msgspec

from parentage.attest.algorithms import ALGORITHMS
from parentage.attest.envelope import PAYLOAD_TYPE, pae
from parentage.attest.keys import PublicKey
from parentage.manifest.errors import SigningKeyError


class Signature(msgspec.Struct, frozen=True):
    """A signature over a payload's pre-authentication encoding.

    Attributes:
        value: as the algorithm writes it; DER for ECDSA.
        material: the bundle's `verificationMaterial`, how the signature is checked.
    """

    value: bytes
    material: dict[str, object]


class Signer(Protocol):
    """Anything that signs in-toto payloads and says how its signatures are checked."""

    @property
    def identity(self) -> str:
        """Who signs, for people."""

    @property
    def algorithm(self) -> str:
        """The algorithm of its signatures, by its name in `algorithms.ALGORITHMS`."""

    def sign(self, payload: bytes) -> Signature:
        """Sign the payload's pre-authentication encoding."""


class Holder(Protocol):
    """Anything that holds a private key and signs bytes with it."""

    @property
    def public(self) -> PublicKey:
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over `data`."""


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
    """Signs as the holder of a key, named by its hint."""

    def __init__(self, holder: Holder) -> None:
        """Sign with the key of `holder`."""
        self._holder = holder

    @property
    def identity(self) -> str:
        """The public key's fingerprint."""
        return self._holder.public.fingerprint

    @property
    def algorithm(self) -> str:
        """The key's."""
        return self._holder.public.algorithm.name

    def sign(self, payload: bytes) -> Signature:
        """Sign; the material is the public key's hint, as OMS writes it."""
        value = self._holder.sign(pae(PAYLOAD_TYPE, payload))
        return Signature(value, {"publicKey": {"hint": self.identity}, "tlogEntries": []})


def require_oms(signer: AnySigner) -> None:
    """Refuse a signer whose `model.sig` other tools could not verify.

    Raises:
        SigningKeyError: its algorithm is not one of OpenSSF Model Signing.
    """
    if not isinstance(signer, BundleSigner) and not ALGORITHMS[signer.algorithm].oms:
        raise SigningKeyError(
            "OpenSSF Model Signing takes ECDSA keys only",
            where="model.sig",
            expected=", ".join(name for name, kind in ALGORITHMS.items() if kind.oms),
            found=signer.algorithm,
            hint="parentage keygen --type p256",
        )
