"""What a keyless signing certificate says about its holder. Believed only once sigstore verified it.

Extensions: https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from parentage.attest.identity import KeylessIdentity
from parentage.manifest.errors import SignatureError

_ARC: Final = "1.3.6.1.4.1.57264.1."
_ISSUER_OLD, _OTHER_NAME, _ISSUER = (x509.ObjectIdentifier(_ARC + str(n)) for n in (1, 7, 8))
_CLAIMS: Final[Mapping[int, str]] = {
    9: "buildSignerURI",
    10: "buildSignerDigest",
    11: "runnerEnvironment",
    12: "sourceRepositoryURI",
    13: "sourceRepositoryDigest",
    14: "sourceRepositoryRef",
    15: "sourceRepositoryIdentifier",
    16: "sourceRepositoryOwnerURI",
    17: "sourceRepositoryOwnerIdentifier",
    18: "buildConfigURI",
    19: "buildConfigDigest",
    20: "buildTrigger",
    21: "runInvocationURI",
    22: "sourceRepositoryVisibilityAtSigning",
}


def logged_at(certificate: x509.Certificate, where: str) -> datetime:
    """Return when a certificate log says that it saw the certificate.

    Raises:
        SignatureError: not exactly one log says so.
    """
    kind = x509.PrecertificateSignedCertificateTimestamps
    try:
        held = list(certificate.extensions.get_extension_for_class(kind).value)
    except x509.ExtensionNotFound:
        held = []
    if len(held) != 1:
        raise SignatureError(
            "certificate must be in one certificate log",
            where=where,
            expected="1",
            found=str(len(held)),
        )
    seen: datetime = held[0].timestamp
    return seen.replace(tzinfo=UTC)


def identity_of(certificate: x509.Certificate, where: str) -> KeylessIdentity:
    """Return whom the certificate names.

    Raises:
        SignatureError: no name or several, no issuer, or two issuers that differ.
    """
    texts: dict[int, str] = {}
    for extension in certificate.extensions:
        value, number = extension.value, extension.oid.dotted_string.removeprefix(_ARC)
        if isinstance(value, x509.UnrecognizedExtension) and number.isdecimal():
            if int(number) in _CLAIMS or extension.oid == _ISSUER:
                texts[int(number)] = _utf8(value.value, where)
            elif extension.oid == _ISSUER_OLD:
                texts[1] = _text(value.value, where)
    issuers = {texts[number] for number in (1, 8) if number in texts}
    if len(issuers) != 1:
        raise SignatureError(
            "certificate must name one issuer",
            where=where,
            found=", ".join(sorted(issuers)) or "none",
        )
    claims = tuple((name, texts[number]) for number, name in _CLAIMS.items() if number in texts)
    return KeylessIdentity(issuers.pop(), _name(certificate, where), claims)


def _name(certificate: x509.Certificate, where: str) -> str:
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        held = x509.SubjectAlternativeName([])
    names = list(held)
    if len(names) != 1:
        raise SignatureError(
            "certificate must name one identity", where=where, expected="1", found=str(len(names))
        )
    name = names[0]
    if isinstance(name, x509.OtherName) and name.type_id == _OTHER_NAME:
        found = _utf8(name.value, where)
    elif isinstance(name, x509.UniformResourceIdentifier | x509.RFC822Name):
        found = name.value
    else:
        found = ""
    # A URI that looks like an address, or the reverse, would match patterns of the other kind.
    if not found or ("://" in found) != isinstance(name, x509.UniformResourceIdentifier):
        raise SignatureError(
            "identity of another kind", where=where, expected="a URI or an address", found=str(name)
        )
    return found


def _utf8(der: bytes, where: str) -> str:
    """Read a DER UTF8String of up to 64 KiB."""
    if len(der) >= 2 and der[0] == 0x0C:
        extra = der[1] & 0x7F if der[1] & 0x80 else 0
        size = int.from_bytes(der[2 : 2 + extra]) if extra else der[1]
        if extra <= 2 and len(der) == 2 + extra + size:
            return _text(der[2 + extra :], where)
    raise SignatureError("extension is not a UTF8String", where=where)


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SignatureError("extension is not text", where=where) from error
