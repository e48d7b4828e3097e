"""Trust in keyless identities. sigstore is imported when a keyless bundle is checked, not before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from parentage.attest.bundle import Bundle
from parentage.attest.identity import KeylessIdentity
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.material import Leaf
from parentage.attest.trust import not_trusted
from parentage.attest.trusted_root import TrustedRoot
from parentage.manifest.errors import MissingExtraError, SignatureError, UsageError

if TYPE_CHECKING:  # heavy, and an extra
    from parentage.attest.keyless import Proven

_EXTRA: Final = ("sigstore", "sigstore_models", "rfc3161_client", "requests", "id", "tuf")


class TrustedIdentities(msgspec.Struct, frozen=True):
    """Identities of one role, and the Sigstore instance that vouches for them.

    Attributes:
        patterns: at least one.
        root: the instance's keys; None for the public instance's, as sigstore-python holds them.
        max_root_age: how long ago the root's newest key may have come into service.
        timestamps: how many RFC 3161 timestamps a bundle must carry at least.
    """

    patterns: tuple[IdentityPattern, ...]
    root: TrustedRoot | None = None
    max_root_age: timedelta | None = None
    timestamps: int = 0

    def __post_init__(self) -> None:
        """Refuse an empty list."""
        if not self.patterns:
            raise UsageError(
                "an empty trust list trusts nobody", hint="--identity WHO --issuer URL"
            )

    def check(self, bundle: Bundle, where: str) -> KeylessIdentity:
        """Verify a keyless bundle, offline, and return who signed it.

        Raises:
            SignatureError: it does not verify, or is by nobody who is meant here.
            TrustedRootError: the root is older than allowed.
            MissingExtraError: sigstore is not installed.
        """
        return self._proven(bundle, where).identity

    def time(self, bundle: Bundle, where: str) -> datetime | None:
        """Return when the signature was made: a log or a timestamp authority always says so."""
        return self._proven(bundle, where).time

    def _proven(self, bundle: Bundle, where: str) -> Proven:
        if not isinstance(bundle.material.kind, Leaf):
            raise not_trusted(bundle, where, "a keyless signature")
        with needing_sigstore():
            from parentage.attest import keyless

        root = keyless.embedded_root() if self.root is None else self.root
        if self.max_root_age is not None:
            root.require_age(self.max_root_age, datetime.now(UTC))
        if len(bundle.material.timestamps) < self.timestamps:
            raise SignatureError(
                "too few timestamps",
                where=where,
                expected=f">= {self.timestamps}",
                found=str(len(bundle.material.timestamps)),
            )
        found = keyless.verify(bundle, root, where)
        if not any(pattern.matches(found.identity) for pattern in self.patterns):
            raise SignatureError(
                "signed by an identity that is not trusted",
                where=where,
                expected=" or ".join(map(str, self.patterns)),
                found=str(found.identity),
            )
        return found


@contextmanager
def needing_sigstore() -> Iterator[None]:
    """Name the extra where it is missing.

    Raises:
        MissingExtraError: sigstore, or a part of it, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError(
            "keyless signatures need sigstore, which is not installed",
            found=f"no module {error.name}",
            hint="pip install 'parentage[keyless]'",
        ) from error
