"""Signs without a key of one's own: an identity, a certificate for ten minutes, a public log.

What the services made is verified as any verifier would, before it is handed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from parentage.attest import bundle as bundles
from parentage.attest import fulcio, trusted_root
from parentage.attest.bundle import Bundle
from parentage.attest.identity import KeylessIdentity
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keyless_trust import TrustedIdentities, needing_sigstore
from parentage.attest.signer import BundleSigner
from parentage.attest.tokens import TokenSource
from parentage.manifest.errors import BundleError, KeylessError, SignatureError

if TYPE_CHECKING:  # heavy, and an extra
    from parentage.attest.keyless import Certified

PATIENCE: Final = 60.0
_WHERE: Final = "the signature just made"


class KeylessSigner(BundleSigner):
    """Signs in the name of whoever the identity token is for."""

    def __init__(
        self,
        token: TokenSource,
        *,
        config: bytes | None = None,
        staging: bool = False,
        expected: IdentityPattern | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Ask nothing yet: certificates last ten minutes, and a model may take longer to hash.

        Args:
            token: asked when a certificate is needed.
            config: client trust config, JSON; None for the public instance's current one.
            staging: the public instance for trials instead, where nothing is for ever.
            expected: who signs; anybody else's certificate is refused before the log hears of it.
            patience: seconds for a certificate, and for each signature.
        """
        self._token, self._config, self._staging = token, config, staging
        self._expected, self._patience = expected, patience
        self._certified: Certified | None = None
        self._identity: KeylessIdentity | None = None

    @property
    def identity(self) -> str:
        """Who signs; nobody knows before the first signature."""
        return str(self._identity or "a keyless identity")

    def bundle(self, payload: bytes) -> bytes:
        """Return a verified bundle over a statement.

        Raises:
            KeylessError: it can't be had, or does not verify.
            MissingExtraError: sigstore is not installed.
        """
        made = self._certificate().sign(payload)
        try:
            parsed = bundles.parse(made, _WHERE)
            self.check(parsed, _WHERE)
        except (BundleError, SignatureError) as error:
            raise KeylessError(
                "what the services made does not verify",
                where=error.where,
                expected=error.expected,
                found=f"{error.what} {error.found}".strip(),
                hint="nothing was written; is the trusted root this instance's?",
            ) from error
        if parsed.payload != payload:
            raise KeylessError("another statement was signed", where=_WHERE)
        return made

    def check(self, bundle: Bundle, where: str) -> KeylessIdentity:
        """Trust this signer and nobody else, so that what was signed can be opened again.

        Raises:
            SignatureError: by somebody else, or it does not verify.
        """
        if self._certified is None or self._config is None or self._identity is None:
            raise SignatureError("nothing was signed yet", where=where)
        own = IdentityPattern(self._identity.identity, self._identity.issuer)
        return TrustedIdentities(
            (own,),
            trusted_root.parse(self._config, "the client trust config"),
            timestamps=self._certified.timestamps,
        ).check(bundle, where)

    def _certificate(self) -> Certified:
        if self._certified is not None and not self._certified.expired:
            return self._certified
        with needing_sigstore():
            from parentage.attest import keyless
            from parentage.attest.patience import Deadline

        if self._config is None:
            place = keyless.STAGING if self._staging else keyless.PUBLIC_GOOD
            self._config = keyless.fetch_config(Deadline(self._patience), place)
        token = self._token(self._config)
        certified = keyless.Certified(self._config, token, Deadline(self._patience))
        try:
            identity = fulcio.identity_of(certified.certificate, "signing certificate")
        except SignatureError as error:
            raise KeylessError(error.what, where=error.where, found=error.found) from error
        if self._expected is not None and not self._expected.matches(identity):
            raise KeylessError(
                "this is not who should sign",
                expected=str(self._expected),
                found=str(identity),
                hint="nothing was logged",
            )
        self._certified, self._identity = certified, identity
        return certified
