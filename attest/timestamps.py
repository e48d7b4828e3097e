"""RFC 3161 timestamps: asked for over a signature, and checked as proof of when it was made.

The token in a bundle is the whole TimeStampResp, over the signature's bytes, as Sigstore has it.
rfc3161-client is imported when there is one, not before.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography import x509

from parentage.attest import paths, posting
from parentage.attest.bundle import Bundle
from parentage.attest.der import sorted_certificates
from parentage.attest.material import MAX_TIMESTAMP, MAX_TIMESTAMPS
from parentage.attest.paths import Usage
from parentage.attest.signer import Signature, Signer
from parentage.manifest.errors import (
    CertificateError,
    MissingExtraError,
    SigningFailedError,
    TimestampError,
    UsageError,
)

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

#: How far an authority's clock may be before ours.
_SKEW: Final = timedelta(minutes=5)
_SECONDS: Final = 30.0
_SHA2: Final = "2.16.840.1.101.3.4.2."


class TrustedStamps(msgspec.Struct, frozen=True):
    """Roots of timestamp authorities that are believed.

    Attributes:
        certificates: at least one root; others help to build paths and are not believed.
    """

    certificates: tuple[x509.Certificate, ...]

    def __post_init__(self) -> None:
        """Refuse a list without a root."""
        if not any(map(paths.is_self_signed, self.certificates)):
            raise UsageError(
                "no root of a timestamp authority",
                expected="a self-signed certificate",
                hint="--tsa root.pem",
            )

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return the earliest time at which the bundle's signature is proven to have existed.

        None where there is no timestamp. Every one that is there must verify: one that does not is
        a mistake or a trick, and other verifiers refuse it, too.

        Raises:
            TimestampError: one is broken, over something else, by a stranger, or stands twice.
        """
        tokens = bundle.material.timestamps
        if len(set(tokens)) != len(tokens):
            raise TimestampError("timestamp stands twice", where=where)
        return min(
            (check(token, bundle.signature, self.certificates, where) for token in tokens),
            default=None,
        )


class StampingSigner:
    """A signer whose signatures are timestamped."""

    def __init__(self, signer: Signer, urls: Sequence[str]) -> None:
        """Sign with `signer`, and ask the authorities at `urls` for a timestamp each."""
        if not 0 < len(urls) <= MAX_TIMESTAMPS:
            raise UsageError(
                "timestamps of this number", expected=f"1..{MAX_TIMESTAMPS}", found=str(len(urls))
            )
        for url in urls:
            posting.check_url(url, "--timestamp-url")
        _library()
        self._signer, self._urls = signer, tuple(urls)

    @property
    def identity(self) -> str:
        """Of whoever signs."""
        return self._signer.identity

    @property
    def algorithm(self) -> str:
        """Of whoever signs."""
        return self._signer.algorithm

    def sign(self, payload: bytes) -> Signature:
        """Sign, and have the signature timestamped.

        Raises:
            SigningFailedError: an authority does not answer, refuses, or answers something else.
        """
        signature = self._signer.sign(payload)
        stamps = [stamp(url, signature.value) for url in self._urls]
        tokens = [{"signedTimestamp": base64.b64encode(token).decode()} for token in stamps]
        data = {"timestampVerificationData": {"rfc3161Timestamps": tokens}}
        return Signature(signature.value, signature.material | data)


def stamp(url: str, signature: bytes) -> bytes:
    """Have a signature timestamped and return the response, DER.

    Whether the authority is one that anybody trusts is for verifiers to say.

    Raises:
        SigningFailedError: it does not answer, refuses, or stamps something else.
    """
    _library()
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    request = TimestampRequestBuilder().data(signature).hash_algorithm(HashAlgorithm.SHA256).build()
    answer = sorted_certificates(
        posting.post(
            url,
            request.as_bytes(),
            kind="application/timestamp-query",
            most=MAX_TIMESTAMP,
            seconds=_SECONDS,
        )
    )
    try:
        response = _parse(answer, url)
        _check_imprint(response, signature, url)
    except TimestampError as error:
        raise SigningFailedError(
            f"timestamp authority: {error.what}",
            where=url,
            expected=error.expected,
            found=error.found,
        ) from error
    if response.tst_info.nonce != request.nonce:
        raise SigningFailedError("timestamp is an answer to another request", where=url)
    return answer


def check(
    token: bytes, signature: bytes, trusted: Sequence[x509.Certificate], where: str
) -> datetime:
    """Return the time that a timestamp proves a signature to have existed at.

    Raises:
        TimestampError: it is broken, over something else, from the future, or by a stranger.
    """
    _library()
    from rfc3161_client import VerificationError, VerifierBuilder

    response = _parse(token, where)
    _check_imprint(response, signature, where)
    time = response.tst_info.gen_time.astimezone(UTC)
    if time > datetime.now(UTC) + _SKEW:
        raise TimestampError(
            "timestamp is from the future", where=where, found=f"{time:%Y-%m-%d %H:%M:%SZ}"
        )
    *path, root = _check_authority(response, trusted, time, where)
    try:
        VerifierBuilder(roots=[root], intermediates=path[1:]).build().verify_message(
            response, signature
        )
    except (VerificationError, ValueError) as error:
        raise TimestampError(
            "timestamp does not verify", where=where, found=str(error).partition(": ErrorStack")[0]
        ) from error
    return time


def _check_authority(
    response: TimeStampResponse, trusted: Sequence[x509.Certificate], time: datetime, where: str
) -> list[x509.Certificate]:
    """Return the path of the authority's certificate to a root, at the time that it says."""
    held, named = _certificates(response, where)
    leaves = [c for c in held if (c.issuer, c.serial_number) in named]
    if len(named) != 1 or len(leaves) != 1:
        raise TimestampError(
            "timestamp does not say by which one certificate it is",
            where=where,
            expected="one signer, and its certificate",
            found=f"{len(named)} signers, {len(leaves)} of {len(held)} certificates theirs",
        )
    roots = [certificate for certificate in trusted if paths.is_self_signed(certificate)]
    others = [c for c in (*held, *trusted) if c not in roots and c != leaves[0]]
    try:
        return paths.check_path(
            leaves[0], others, roots, at=time, usage=Usage.TIME_STAMPING, where=where
        )
    except CertificateError as error:
        raise TimestampError(
            f"timestamp by an authority that is not trusted: {error.what}",
            where=error.where,
            expected="a chain to a root given with --tsa",
            found=error.found,
        ) from error


def _certificates(
    response: TimeStampResponse, where: str
) -> tuple[list[x509.Certificate], list[tuple[x509.Name, int]]]:
    """Return the certificates in a response, and issuer and serial number of each signer's."""
    try:
        signers = response.signed_data.signer_infos
        named = [(signer.issuer, signer.serial_number) for signer in signers]
        held = [
            paths.parse_certificate(der, f"{where}: certificate of the timestamp")
            for der in response.signed_data.certificates
        ]
    except (ValueError, KeyError) as error:  # KeyError: a signer named in another way
        raise _unreadable(where, str(error)) from error
    except CertificateError as error:
        raise _unreadable(error.where, error.found) from error
    return held, named


def _parse(token: bytes, where: str) -> TimeStampResponse:
    from rfc3161_client import PKIStatus, decode_timestamp_response

    try:
        response = decode_timestamp_response(sorted_certificates(token))
        if response.status != PKIStatus.GRANTED:
            raise TimestampError(
                "timestamp was not granted",
                where=where,
                expected=f"status {PKIStatus.GRANTED.value}",
                found=f"status {response.status} {' '.join(response.status_string)}",
            )
        _ = response.tst_info.gen_time, response.signed_data.certificates
    except (ValueError, OverflowError) as error:
        raise _unreadable(where, str(error)) from error
    return response


def _unreadable(where: str, found: str) -> TimestampError:
    return TimestampError(
        "timestamp can't be read", where=where, expected="TimeStampResp, DER", found=found
    )


def _check_imprint(response: TimeStampResponse, signature: bytes, where: str) -> None:
    imprint = response.tst_info.message_imprint
    names = {f"{_SHA2}1": "sha256", f"{_SHA2}2": "sha384", f"{_SHA2}3": "sha512"}
    name = names.get(imprint.hash_algorithm.dotted_string)
    if name is None:
        raise TimestampError(
            "timestamp over another kind of digest",
            where=where,
            expected=", ".join(names.values()),
            found=imprint.hash_algorithm.dotted_string,
        )
    expected = hashlib.new(name, signature).hexdigest()
    if imprint.message.hex() != expected:
        raise TimestampError(
            "timestamp is over something else",
            where=where,
            expected=f"{name} {expected}",
            found=f"{name} {imprint.message.hex()}",
        )


def _library() -> None:
    try:
        import rfc3161_client  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "timestamps need rfc3161-client, which is not installed",
            hint="pip install 'parentage[timestamp]'",
        ) from error
