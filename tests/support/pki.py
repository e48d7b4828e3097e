"""Certificates for tests: real keys, real signatures, every field to be got wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parentage.attest.keys import PrivateKey

NOW = datetime.now(UTC).replace(microsecond=0)
CODE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
STAMP = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, sign: bool = False, certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, False, certificates, certificates, False, False)


class Holder(msgspec.Struct):
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def signer_key(self) -> PrivateKey:
        return PrivateKey(self.key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def write(self, folder: Path, stem: str) -> tuple[Path, Path]:
        """Write the certificate and the key; return both paths."""
        certificate, key = folder / f"{stem}.pem", folder / f"{stem}.key"
        certificate.write_bytes(self.pem)
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key


def issue(
    subject: str,
    by: Holder | None = None,
    *,
    ca: bool = False,
    path_length: int | None = None,
    basic: bool = True,
    key_usage: x509.KeyUsage | str | None = "usual",
    extended: x509.ExtendedKeyUsage | str | None = "usual",
    extended_critical: bool = False,
    starts: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(days=30),
    key: Any = None,
    more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> Holder:
    """Issue a certificate; without `by` it signs itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer, issuer_key = (by.certificate.subject, by.key) if by else (name(subject), key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + starts)
        .not_valid_after(NOW + ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if basic:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if key_usage == "usual":
        key_usage = usage(sign=not ca, certificates=ca)
    if isinstance(key_usage, x509.KeyUsage):
        builder = builder.add_extension(key_usage, critical=True)
    if extended == "usual":
        extended = None if ca else CODE
    if isinstance(extended, x509.ExtendedKeyUsage):
        builder = builder.add_extension(extended, critical=extended_critical)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    hashed = isinstance(issuer_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return Holder(builder.sign(issuer_key, hashes.SHA256() if hashed else None), key)


class Pki:
    """A root, an intermediate, and a leaf that may sign models."""

    def __init__(self) -> None:
        self.root = issue("test root", ca=True)
        self.intermediate = issue("test intermediate", self.root, ca=True, path_length=0)
        self.leaf = issue("publisher", self.intermediate)
