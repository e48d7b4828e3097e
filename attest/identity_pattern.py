"""Which keyless identities are meant: one issuer, and one identity or a pattern of them."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.attest import globs
from parentage.attest.identity import KeylessIdentity
from parentage.manifest.errors import UsageError

_MAX: Final = 2048


class IdentityPattern(msgspec.Struct, frozen=True):
    """Whom to trust.

    Attributes:
        identity: a URI such as `https://github.com/acme/rel/.github/workflows/*@refs/tags/*`,
            or an address; `*` as globs.py has it.
        issuer: URL of the OpenID provider, exactly.
    """

    identity: str
    issuer: str

    def __post_init__(self) -> None:
        """Refuse what would trust more than it says.

        Raises:
            UsageError: one of the two is missing, or a `*` stands where others could match.
        """
        for name, text in (("identity", self.identity), ("issuer", self.issuer)):
            if not 0 < len(text) <= _MAX or not text.isprintable() or " " in text:
                raise UsageError(
                    f"not an {name}",
                    expected="--identity WHO --issuer URL",
                    found=text or "nothing",
                    hint="an identity means nothing without the issuer that vouches for it",
                )
        if "*" in self.issuer or not self.issuer.startswith(("https://", "http://")):
            raise UsageError("issuer is not one URL", expected="https://…", found=self.issuer)
        globs.check(self.identity, "identity")

    def matches(self, found: KeylessIdentity) -> bool:
        """Say whether a proven identity is meant."""
        return found.issuer == self.issuer and globs.matches(self.identity, found.identity)

    def __str__(self) -> str:
        return f"{self.identity} by {self.issuer}"
