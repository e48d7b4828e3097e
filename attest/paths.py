"""Certificate paths (RFC 5280, section 6): from a leaf to one of the anchors, at one moment.

Paths are built and checked by `cryptography` (signatures, validity, cA, path length, name
constraints, unknown critical extensions, depth and number of signature checks). Usage is checked
here, since its own profile is the Web's. Nothing is trusted that the caller did not name.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from parentage.attest.keys import PublicKey, read_key_file
from parentage.manifest.errors import CertificateError, SigningKeyError

#: Certificates between leaf and anchor, and bytes and certificates of a file of anchors.
MAX_INTERMEDIATES: Final = 6
_MAX_FILE: Final = 4 << 20
_MAX_ANCHORS: Final = 1000
_PARSING: Final = (
    *(ValueError, TypeError, KeyError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
    CryptographyDeprecationWarning,  # where warnings are errors
)


_E = TypeVar("_E", bound=x509.ExtensionType)


class Usage(Enum):
    """What a path is for."""

    CODE_SIGNING = ExtendedKeyUsageOID.CODE_SIGNING
    TIME_STAMPING = ExtendedKeyUsageOID.TIME_STAMPING


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Read the certificates of a PEM file, in order.

    Raises:
        SigningKeyError: it can't be read, or holds something else.
    """
    data = read_key_file(path, _MAX_FILE)
    try:
        found = tuple(map(_read, x509.load_pem_x509_certificates(data)))
    except _PARSING as error:
        raise SigningKeyError(
            "not certificates", where=str(path), expected="PEM, BEGIN CERTIFICATE"
        ) from error
    if len(found) > _MAX_ANCHORS:
        raise SigningKeyError(
            "too many certificates",
            where=str(path),
            expected=f"<= {_MAX_ANCHORS}",
            found=str(len(found)),
            hint="name the roots that may sign models, not all of the Web's",
        )
    return found


def load_chain(files: Sequence[Path]) -> tuple[x509.Certificate, ...]:
    """Read the certificates of several files, in order; doubles are left out."""
    found: dict[x509.Certificate, None] = {}
    for path in files:
        found |= dict.fromkeys(load_certificates(path))
    return tuple(found)


def parse_certificate(der: bytes, where: str) -> x509.Certificate:
    """Parse a DER certificate.

    Raises:
        CertificateError: it is none.
    """
    try:
        return _read(x509.load_der_x509_certificate(der))
    except _PARSING as error:
        raise _unreadable(where, error) from error


def _read(certificate: x509.Certificate) -> x509.Certificate:
    """Look at every part that is parsed only when it is looked at, so that nothing fails later."""
    _ = certificate.subject, certificate.issuer, certificate.extensions
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if certificate.serial_number <= 0:  # 4.1.2.2
        raise ValueError("serial number is not positive")
    return certificate


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the hex SHA-256 of a certificate's DER."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def public_key(certificate: x509.Certificate, where: str) -> PublicKey:
    """Return a certificate's key.

    Raises:
        SigningKeyError: it is of an algorithm that is not used here.
    """
    try:
        return PublicKey(certificate.public_key(), where=where)
    except _PARSING as error:
        raise SigningKeyError(
            "key type not supported", where=where, found=type(error).__name__
        ) from error


def check_path(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
    *,
    at: datetime,
    usage: Usage,
    where: str,
) -> list[x509.Certificate]:
    """Return the path from the leaf to an anchor, both included.

    Args:
        leaf: whose key signed.
        intermediates: candidates, in any order, not trusted.
        anchors: trusted; a leaf may be its own anchor.
        at: the moment at which every certificate of the path must be valid.
        usage: what leaf and intermediates must be allowed.
        where: for errors.

    Raises:
        CertificateError: there is no such path, and why.
    """
    builder = (
        verification.PolicyBuilder()
        .store(verification.Store(list(anchors)))
        .time(at.astimezone(UTC))
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(
            ca_policy=_ca_policy(usage), ee_policy=verification.ExtensionPolicy.permit_all()
        )
    )
    try:
        _check_leaf(leaf, usage, where)
        # "client": no name is asked for, since who the leaf is comes out, not in.
        found = builder.build_client_verifier().verify(leaf, list(intermediates))
    except verification.VerificationError as error:
        raise _why(leaf, (*intermediates, *anchors), at, str(error), where) from error
    except _PARSING as error:  # parts of a certificate are parsed when they are looked at
        raise _unreadable(where, error) from error
    return list(found.chain)


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Say whether a certificate is signed with its own key."""
    try:
        certificate.verify_directly_issued_by(certificate)
    except (*_PARSING, InvalidSignature):
        return False
    return True


def _ca_policy(usage: Usage) -> verification.ExtensionPolicy:
    def key_usage(_: object, __: x509.Certificate, held: x509.KeyUsage | None) -> None:
        # 4.2.1.3: keyCertSign must be asserted where the extension is present.
        if held is not None and not held.key_cert_sign:
            raise ValueError("a CA's keyUsage lacks keyCertSign")

    def extended(_: object, __: x509.Certificate, held: x509.ExtendedKeyUsage | None) -> None:
        # 4.2.1.12 speaks of leaves; everyone also takes it as a bound on what a CA may issue.
        if held is not None and not _allows(held, usage):
            raise ValueError(f"a CA's extended key usage lacks {usage.name}")

    agnostic = verification.Criticality.AGNOSTIC
    return (
        verification.ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, agnostic, None)  # 4.2.1.9; cA is checked inside
        .may_be_present(x509.KeyUsage, agnostic, key_usage)
        .may_be_present(x509.ExtendedKeyUsage, agnostic, extended)
    )


def _check_leaf(leaf: x509.Certificate, usage: Usage, where: str) -> None:
    """Refuse a leaf that says it is for something else, or that does not say what it is for."""
    key_usage = _extension(leaf, x509.KeyUsage)
    extended = _extension(leaf, x509.ExtendedKeyUsage)
    if key_usage is not None and not key_usage.value.digital_signature:  # 4.2.1.3
        raise _unfit(leaf, where, "keyUsage digitalSignature")
    if extended is not None and not _allows(extended.value, usage):  # 4.2.1.12
        raise _unfit(leaf, where, f"extendedKeyUsage {usage.name}")
    if usage is Usage.CODE_SIGNING:
        # OMS demands neither; a certificate that says nothing was not made to sign models.
        if key_usage is None and extended is None:
            raise _unfit(leaf, where, "keyUsage digitalSignature or extendedKeyUsage CODE_SIGNING")
    elif extended is None or not extended.critical or len(extended.value) != 1:
        # RFC 3161, 2.3: critical, and this one usage only.
        raise _unfit(leaf, where, f"critical extendedKeyUsage {usage.name} alone")


def _extension(certificate: x509.Certificate, kind: type[_E]) -> x509.Extension[_E] | None:
    try:
        return certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _allows(held: x509.ExtendedKeyUsage, usage: Usage) -> bool:
    return usage.value in held or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in held


def _unfit(leaf: x509.Certificate, where: str, expected: str) -> CertificateError:
    return CertificateError(
        "certificate is not for this use",
        where=f"{where}: {leaf.subject.rfc4514_string()}",
        expected=expected,
    )


def _unreadable(where: str, error: Exception) -> CertificateError:
    return CertificateError(
        "certificate can't be read", where=where, found=f"{type(error).__name__}: {error}"
    )


def _why(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    at: datetime,
    reason: str,
    where: str,
) -> CertificateError:
    """Name the commonest reasons in our words; nothing is decided here any more."""
    issuers = {certificate.issuer for certificate in (leaf, *others)}
    for certificate in (leaf, *(c for c in others if c.subject in issuers)):
        late = at > certificate.not_valid_after_utc
        if not late and at >= certificate.not_valid_before_utc:
            continue
        hint = "--tsa root.pem, if the signature carries a timestamp of when it was made"
        return CertificateError(
            "certificate has expired" if late else "certificate is not valid yet",
            where=f"{where}: {certificate.subject.rfc4514_string()}",
            expected=f"valid at {at:%Y-%m-%d %H:%M:%SZ}",
            found=f"valid {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%SZ} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%SZ}",
            hint=hint if late else "",
        )
    what = "certificate does not lead to a trusted root"
    if is_self_signed(leaf):
        what = "self-signed certificate is not among the trusted ones"
    return CertificateError(
        what,
        where=f"{where}: {leaf.subject.rfc4514_string()}",
        expected="a chain to a root given with --ca",
        found=reason.removeprefix("validation failed: ").partition(" (encountered")[0],
    )


def to_der(certificate: x509.Certificate) -> bytes:
    """Return a certificate's DER."""
    return certificate.public_bytes(Encoding.DER)
