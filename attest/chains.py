"""X.509 certificates: signing as the holder of one, and trusting those that lead to given roots."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from cryptography import x509

from parentage.attest import paths
from parentage.attest.bundle import Bundle
from parentage.attest.envelope import PAYLOAD_TYPE, pae
from parentage.attest.identity import ChainIdentity
from parentage.attest.keys import PublicKey
from parentage.attest.material import MAX_CHAIN, Chain
from parentage.attest.paths import Usage
from parentage.attest.signer import Holder, Signature
from parentage.attest.trust import Timed, not_trusted
from parentage.manifest.errors import CertificateError, SigningKeyError, UsageError


class TrustedChains(msgspec.Struct, frozen=True):
    """Roots (or other certificates) whose holders may say who signs.

    Attributes:
        anchors: at least one.
        times: proves when a signature was made; without it, every certificate must be valid now.
    """

    anchors: tuple[x509.Certificate, ...]
    times: Timed | None = None

    def __post_init__(self) -> None:
        """Refuse an empty list: the Web's roots are never a default."""
        if not self.anchors:
            raise UsageError("an empty trust list trusts nobody", hint="--ca root.pem")

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return when the signature was made, if that is proven."""
        return None if self.times is None else self.times.time(bundle, where)

    def check(self, bundle: Bundle, where: str) -> ChainIdentity:
        """Verify path, usage and validity, and then the signature by the leaf's key.

        Raises:
            CertificateError: no path to an anchor at the trusted time, or a leaf for another use.
            TimestampError: a timestamp does not verify.
            SignatureError: the signature does not verify.
        """
        if not isinstance(bundle.material.kind, Chain):
            raise not_trusted(bundle, where, "a signature with a certificate chain")
        leaf, *others = (
            paths.parse_certificate(der, f"{where}: certificate {number}")
            for number, der in enumerate(bundle.material.kind.certificates, 1)
        )
        at = self.time(bundle, where) or datetime.now(UTC)
        *_, anchor = paths.check_path(
            leaf, others, self.anchors, at=at, usage=Usage.CODE_SIGNING, where=where
        )
        _public_key(leaf, where).verify(bundle.signature, bundle.signed_bytes, legacy=bundle.legacy)
        return ChainIdentity(
            subject=leaf.subject.rfc4514_string(),
            fingerprint=paths.fingerprint(leaf),
            root=paths.fingerprint(anchor),
        )


class CertificateSigner:
    """Signs as the holder of a certificate's key."""

    def __init__(self, holder: Holder, chain: Sequence[x509.Certificate]) -> None:
        """Sign with the key of `holder`.

        Args:
            holder: holds the private key.
            chain: the certificate, then its issuers; the root may be left out.

        Raises:
            SigningKeyError: the certificate is another key's, or the chain is empty or too long.
        """
        if not 0 < len(chain) <= MAX_CHAIN:
            raise SigningKeyError(
                "certificate chain of this length",
                expected=f"1..{MAX_CHAIN}",
                found=str(len(chain)),
            )
        try:
            public = _public_key(chain[0], "")
        except CertificateError as error:
            raise SigningKeyError(error.what, expected=error.expected, found=error.found) from error
        if public.fingerprint != holder.public.fingerprint:
            raise SigningKeyError(
                "certificate is another key's",
                where=chain[0].subject.rfc4514_string(),
                expected=f"key {holder.public.fingerprint}",
                found=f"key {public.fingerprint}",
            )
        self._holder, self._chain = holder, tuple(chain)

    @property
    def identity(self) -> str:
        """The certificate's subject."""
        return self._chain[0].subject.rfc4514_string()

    @property
    def algorithm(self) -> str:
        """The key's."""
        return self._holder.public.algorithm.name

    def sign(self, payload: bytes) -> Signature:
        """Sign; the material is the chain, leaf first."""
        value = self._holder.sign(pae(PAYLOAD_TYPE, payload))
        certificates = [
            {"rawBytes": base64.b64encode(paths.to_der(c)).decode()} for c in self._chain
        ]
        return Signature(
            value, {"x509CertificateChain": {"certificates": certificates}, "tlogEntries": []}
        )


def _public_key(leaf: x509.Certificate, where: str) -> PublicKey:
    """Return the leaf's key; OpenSSF Model Signing takes ECDSA only."""
    try:
        public = paths.public_key(leaf, where)
    except SigningKeyError as error:
        raise _no_ecdsa(where, error.found) from error
    if not public.algorithm.oms:
        raise _no_ecdsa(where, public.algorithm.name)
    return public


def _no_ecdsa(where: str, found: str) -> CertificateError:
    return CertificateError(
        "certificate's key is of a type that does not sign models",
        where=where,
        expected="ECDSA on P-256, P-384 or P-521",
        found=found,
    )
