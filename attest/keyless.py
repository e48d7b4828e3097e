"""sigstore, met here and nowhere else: what it verifies, and what it is asked to sign.

Verification is offline. It is sigstore-python's, after `log_entry` and `trusted_root` have closed
what it leaves open, so that a bundle passes here only if every reference would let it pass.
Some of what is used has no public name; the extra pins the version.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from requests import RequestException
from rfc3161_client import TimeStampResponse, decode_timestamp_response
from sigstore import _store
from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
from sigstore._internal.rekor import RekorClientError
from sigstore._internal.timestamp import TimestampAuthorityClient, TimestampError
from sigstore.dsse import Statement
from sigstore.errors import Error as SigstoreError
from sigstore.models import Bundle as SigstoreBundle
from sigstore.models import ClientTrustConfig
from sigstore.models import TrustedRoot as SigstoreRoot
from sigstore.oidc import ExpiredIdentity, IdentityToken, Issuer, IssuerError, detect_credential
from sigstore.sign import Signer as SigstoreSigner
from sigstore.sign import SigningContext
from sigstore.verify import Verifier
from sigstore_models.trustroot.v1 import TrustedRoot as RootModel
from urllib3.exceptions import HTTPError

from parentage.attest import fulcio, log_entry, trusted_root
from parentage.attest.bundle import Bundle
from parentage.attest.identity import KeylessIdentity
from parentage.attest.material import Leaf, Material
from parentage.attest.paths import parse_certificate
from parentage.attest.patience import Deadline, RefusedError, mount, scrubbed, within
from parentage.attest.trusted_root import TrustedRoot
from parentage.manifest.errors import KeylessError, SignatureError, TrustedRootError

PUBLIC_GOOD: Final = "https://tuf-repo-cdn.sigstore.dev"
STAGING: Final = "https://tuf-repo-cdn.sigstage.dev"
#: How far a log's clock may be ahead of ours.
_AHEAD: Final = timedelta(minutes=5)
#: A certificate that ends so soon is not begun with.
_SPARE: Final = timedelta(seconds=30)
#: sigstore reads bundles and answers without checking all of their parts first: what its parts
#: raise when a part is not what they expect.
NONSENSE: Final = (
    *(SigstoreError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound),
    *(x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, struct.error),
)
#: What sigstore raises when it can't sign.
_FAILURES: Final = (
    *(FulcioClientError, RekorClientError, TimestampError, IssuerError, ExpiredIdentity),
    *(ExpiredCertificate, RequestException, HTTPError, *NONSENSE),
)
#: What is checked once everything else has been: a statement's envelope, for us.
Check = Callable[[Verifier, SigstoreBundle, "Anyone"], None]


class Proven(msgspec.Struct, frozen=True):
    """What a verified bundle proves.

    Attributes:
        identity: of the signer.
        time: the earliest moment at which somebody trusted saw the signature.
    """

    identity: KeylessIdentity
    time: datetime


class Anyone:
    """A policy that leaves the question of identity to us, who match it against patterns."""

    def verify(self, cert: x509.Certificate) -> None:
        """Accept."""


@lru_cache(maxsize=2)
def embedded_root(instance: str = PUBLIC_GOOD) -> TrustedRoot:
    """Return a public instance's trusted root as it was when sigstore-python was released."""
    held = resources.files(_store).joinpath(quote(instance, safe=""), "trusted_root.json")
    which = "staging root" if instance == STAGING else "root"
    return trusted_root.parse(held.read_bytes(), f"the {which} inside sigstore-python")


def verify(bundle: Bundle, root: TrustedRoot, where: str) -> Proven:
    """Verify a statement's bundle, and return who signed it, and when.

    Raises:
        SignatureError: some part of it does not hold.
        BundleError: a log entry breaks its format.
        TrustedRootError: sigstore can't read the root.
    """

    def envelope(verifier: Verifier, held: SigstoreBundle, policy: Anyone) -> None:
        if verifier.verify_dsse(held, policy) != (bundle.payload_type, bundle.payload):
            raise SignatureError("two readers of the bundle differ", where=where)

    return verify_with(bundle.material, bundle.data, root, where, envelope)


def verify_with(
    material: Material, data: bytes, root: TrustedRoot, where: str, check: Check
) -> Proven:
    """Verify certificate, log entry and timestamps; `check` verifies what was signed.

    Args:
        material: as we read it from `data`.
        data: the bundle, for sigstore to read.
        root: whom to trust.
        where: how errors name the bundle.
        check: calls the verifier, which raises where it refuses.
    """
    if not isinstance(material.kind, Leaf) or len(material.log_entries) != 1:
        raise SignatureError(
            "a keyless signature is in one log",
            where=where,
            expected="1 entry",
            found=str(len(material.log_entries)),
        )
    # (1) parts that contradict each other, whatever sigstore would make of them
    entry = log_entry.parse(material.log_entries[0], f"{where}: log entry")
    certificate = parse_certificate(material.kind.certificate, f"{where}: certificate")
    stamps = _stamps(material.timestamps, where)
    times = [stamp.tst_info.gen_time for stamp in stamps]
    times += [] if entry.time is None else [entry.time]
    if any(time > datetime.now(UTC) + _AHEAD for time in times):
        raise SignatureError("signed in the future", where=where, hint="look at this clock")
    # (2) only keys and authorities that were in service at every one of these times
    certified = fulcio.logged_at(certificate, where)
    narrow = root.narrowed(entry, times, certified, where)
    verifier = _verifier(narrow, root.name)
    # (3) sigstore: certificate chain, its log, times, inclusion, promise, signature, logged body
    with _refusing(where):
        held = SigstoreBundle.from_json(data)
        check(verifier, held, Anyone())
        # one broken timestamp is enough, though sigstore lets another time stand in for it
        believed = len(verifier._verify_timestamp_authority(held))  # noqa: SLF001
        same = held.signing_certificate.public_bytes(Encoding.DER) == material.kind.certificate
    if believed != len(stamps) or not same:
        raise SignatureError(
            "timestamp is not by a trusted authority",
            where=where,
            expected=f"{len(stamps)} that verify",
            found=str(believed),
        )
    return Proven(fulcio.identity_of(certificate, f"{where}: certificate"), min(times))


def _stamps(tokens: tuple[bytes, ...], where: str) -> list[TimeStampResponse]:
    with _refusing(f"{where}: timestamp"):
        stamps = [decode_timestamp_response(token) for token in tokens]
        # a second token by the same authority about the same second proves nothing more
        seen = {
            (stamp.tst_info.gen_time, tuple(sorted(map(_signer, stamp.signed_data.signer_infos))))
            for stamp in stamps
        }
    if len(seen) != len(stamps):
        raise SignatureError("timestamp stands twice", where=where)
    return stamps


def _signer(info: object) -> str:
    return f"{info.issuer} {info.serial_number}"  # type: ignore[attr-defined]


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Give what sigstore refuses, for whatever reason, one name."""
    try:
        yield
    except NONSENSE as error:
        raise SignatureError(
            "keyless signature does not verify",
            where=where,
            found=str(error) or type(error).__name__,
        ) from error


@lru_cache(maxsize=16)
def _verifier(narrow: bytes, name: str) -> Verifier:
    try:
        return Verifier(trusted_root=SigstoreRoot(RootModel.from_json(narrow)))
    except NONSENSE as error:
        raise TrustedRootError(
            "sigstore can't read the trusted root", where=name, found=str(error)
        ) from error


class Certified:
    """A key that lives as long as this object, and the certificate that an identity got for it."""

    def __init__(self, config: bytes, token: str, deadline: Deadline) -> None:
        """Ask for a certificate.

        Args:
            config: client trust config, JSON.
            token: of an OpenID provider; kept in memory only.
            deadline: for this, and again for every signature.

        Raises:
            KeylessError: no certificate could be had.
        """
        self._deadline = deadline
        deadline.restart()
        with _failing("client trust config can't be used"):
            held = ClientTrustConfig.from_json(config.decode())
            services = held.signing_config
            fulcio_client, log = services.get_fulcio(), services.get_tlogs()[0]
            stampers = [_Stamper(client, deadline) for client in services.get_tsas()]
            root = held.trusted_root
        mount(fulcio_client.session, "certificate authority", deadline)
        mount(log._session, "transparency log", deadline)  # type: ignore[attr-defined]  # noqa: SLF001
        with _failing("identity token can't be used"):
            identity = IdentityToken(token)
        context = SigningContext(
            fulcio=fulcio_client,
            rekor=log,
            trusted_root=root,
            tsa_clients=stampers,  # type: ignore[arg-type]
        )
        with _failing("no signing certificate"):
            self._signer = SigstoreSigner(identity, context)
            self.certificate: x509.Certificate = self._signer._signing_cert()  # noqa: SLF001
        #: Timestamps that a signature must come back with.
        self.timestamps = len(stampers)

    @property
    def expired(self) -> bool:
        """Whether another certificate is needed."""
        return datetime.now(UTC) > self.certificate.not_valid_after_utc - _SPARE

    def sign(self, payload: bytes) -> bytes:
        """Return a bundle over a statement: signed, timestamped, logged; not verified yet.

        Raises:
            KeylessError: a service is down, refuses or answers nonsense.
        """
        self._deadline.restart()
        with _failing("no keyless signature"):
            statement = Statement(payload)
            try:
                return self._signer.sign_dsse(statement).to_json().encode()
            except RefusedError as error:
                # An answer got lost, and the log has the entry: another signature is another entry.
                if error.status != 409:
                    raise
            return self._signer.sign_dsse(statement).to_json().encode()


class _Stamper:
    """A timestamp authority whose failure ends the signing, before the log hears of it.

    sigstore-python merely warns, and makes a log entry that no bundle will hold.
    """

    def __init__(self, client: TimestampAuthorityClient, deadline: Deadline) -> None:
        self._client, self.url = client, client.url
        mount(client._session, "timestamp authority", deadline)  # noqa: SLF001

    def request_timestamp(self, signature: bytes) -> TimeStampResponse:
        try:
            return self._client.request_timestamp(signature)
        except TimestampError as error:
            raise KeylessError("no timestamp", where=self.url, found=scrubbed(str(error))) from None


def ambient_token(deadline: Deadline) -> str | None:
    """Return the identity token that a CI system offers here; None where there is no such system.

    Raises:
        KeylessError: there is one, and it gives none.
    """
    with _failing("no identity from this CI system"):
        return within(deadline, "CI system", detect_credential)


def browser_token(config: bytes, deadline: Deadline) -> str:
    """Let a person sign in, in a browser or by a code that they type.

    Raises:
        KeylessError: they did not.
    """

    def ask() -> str:
        url = ClientTrustConfig.from_json(config.decode()).signing_config.get_oidc_url()
        return str(Issuer(url).identity_token())

    # what sigstore prints is no result
    with _failing("nobody signed in"), redirect_stdout(sys.stderr):
        return within(deadline, "OpenID provider", ask)


def fetch_config(deadline: Deadline, url: str = PUBLIC_GOOD, root: Path | None = None) -> bytes:
    """Return an instance's current client trust config, by TUF; its metadata are kept for the user.

    Args:
        deadline: for all of it.
        url: of the repository; the public instance's root is known.
        root: TUF root metadata to begin with, for any other.

    Raises:
        KeylessError: it can't be had, or TUF does not vouch for it.
    """
    with _failing("trust config can't be fetched"):
        held = within(
            deadline,
            "TUF repository",
            lambda: ClientTrustConfig.from_tuf(url, bootstrap_root=root),
            where=url,
        )
        return held._inner.to_json().encode()  # noqa: SLF001


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Give whatever hinders a signature one name; no cause, since causes may hold the token."""
    try:
        yield
    except _FAILURES as error:
        said = scrubbed(str(error)) or type(error).__name__
        raise KeylessError(what, found=said) from None
