"""Whom we believe: the options that `verify`, `join` and whatever else verifies share.

A command takes `@trust_options` and gets `trusted: TrustChoice`; `trusted.build()` reads the files.
To add a way to trust: options, fields, and what `build` makes of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import FILE
from parentage.manifest.errors import UsageError, printable

if TYPE_CHECKING:
    from datetime import timedelta

    from parentage.attest.trust import Timed, Trust
    from parentage.attest.trusted_root import TrustedRoot


class TrustChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say; nothing is read yet.

    Attributes:
        keys: files of public keys.
        roots: files of certificates that signers' certificates must lead to.
        stamps: files of certificates that timestamps must lead to.
        identities: patterns of keyless signers.
        issuer: the OpenID provider that vouches for them.
        staging: they signed by the public Sigstore instance for trials.
        trusted_root: file with the keys of the Sigstore instance that they signed by.
        max_root_age: how long ago that file's newest key may have come into service.
        policy: file that names keys, roots and identities.
    """

    keys: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    stamps: tuple[Path, ...] = ()
    identities: tuple[str, ...] = ()
    issuer: str | None = None
    staging: bool = False
    trusted_root: Path | None = None
    max_root_age: str | None = None
    policy: Path | None = None

    def build(self) -> Trust:
        """Read keys, certificates and policy.

        Raises:
            UsageError: nobody is trusted.
            SigningKeyError, PolicyError, TrustedRootError: a file holds something else.
        """
        from parentage.attest.trust import AnyOf

        if self.policy is not None:
            return self._by_policy(self.policy)
        keyless = self._keyless()
        if not self.keys and not self.roots and keyless is None:
            raise UsageError(
                "whom to trust?",
                hint="--key release.pub, --ca root.pem, --identity WHO --issuer URL or --policy FILE",
            )
        return AnyOf(keys=self._keys(), chains=self._chains(), keyless=keyless)

    def _by_policy(self, policy: Path) -> Trust:
        from parentage.attest.keys import PublicKey
        from parentage.attest.policy_file import load

        if self.roots:
            raise UsageError("with --policy, roots come from the policy", hint="leave out --ca")
        named = self.identities or self.issuer is not None or self.max_root_age is not None
        if named or self.staging:
            raise UsageError(
                "with --policy, identities and the age of the trusted root come from the policy",
                hint="leave out --identity, --issuer, --max-root-age and --staging",
            )
        keys = tuple(map(PublicKey.load, self.keys))
        return load(policy, keys, times=self._times(), root=load_root(self.trusted_root))

    def _keys(self) -> Trust | None:
        from parentage.attest.keys import PublicKey
        from parentage.attest.trust import TrustedKeys

        keys = tuple(map(PublicKey.load, self.keys))
        return TrustedKeys(keys, self._times()) if keys else None

    def _chains(self) -> Trust | None:
        if not self.roots:
            return None
        from parentage.attest.chains import TrustedChains
        from parentage.attest.paths import load_chain

        return TrustedChains(load_chain(self.roots), self._times())

    def _keyless(self) -> Trust | None:
        if not self.identities:
            given = (self.issuer, self.trusted_root, self.max_root_age)
            if any(option is not None for option in given) or self.staging:
                raise UsageError(
                    "--issuer, --trusted-root, --max-root-age and --staging go with --identity"
                )
            return None
        if self.staging and self.trusted_root is not None:
            raise UsageError("--staging and --trusted-root are two instances")
        from parentage.attest.clock import now
        from parentage.attest.identity_pattern import IdentityPattern
        from parentage.attest.keyless_trust import TrustedIdentities

        root = load_root(self.trusted_root) or _embedded(staging=self.staging)
        age = root.age(now()).days
        text = f"trusted root: {root.name}, its newest key came into service {age} days ago"
        click.echo(printable(text), err=True)
        return TrustedIdentities(
            tuple(IdentityPattern(identity, self.issuer or "") for identity in self.identities),
            root,
            None if self.max_root_age is None else _length(self.max_root_age),
        )

    def _times(self) -> Timed | None:
        if not self.stamps:
            return None
        from parentage.attest.paths import load_chain
        from parentage.attest.timestamps import TrustedStamps

        return TrustedStamps(load_chain(self.stamps))


def load_root(path: Path | None) -> TrustedRoot | None:
    """Read a trusted root, where one is named."""
    if path is None:
        return None
    from parentage.attest import trusted_root

    return trusted_root.load(path)


def _embedded(*, staging: bool) -> TrustedRoot:
    from parentage.attest.keyless_trust import needing_sigstore

    with needing_sigstore():
        from parentage.attest import keyless
    return keyless.embedded_root(keyless.STAGING if staging else keyless.PUBLIC_GOOD)


def _length(text: str) -> timedelta:
    from parentage.attest.clock import length

    if not re.fullmatch("[1-9][0-9]{0,4}[hd]", text):
        raise UsageError("not a length of time", expected="12h or 90d", found=text)
    return length(text)


trusted_root_option = click.option(
    "--trusted-root",
    type=FILE,
    help="Keys of the Sigstore instance (trusted_root.json); default: the public one's, as installed.",
)
_OPTIONS: Final = (
    click.option(
        "--key",
        "keys",
        type=FILE,
        multiple=True,
        help="The publisher's public key (PEM); repeat for more.",
    ),
    click.option(
        "--ca",
        "roots",
        type=FILE,
        multiple=True,
        help="Root certificate (PEM) that the publisher's certificate must lead to; repeat for more.",
    ),
    click.option(
        "--tsa",
        "stamps",
        type=FILE,
        multiple=True,
        help="Root certificate (PEM) of a timestamp authority; repeat for more.",
    ),
    click.option(
        "--identity",
        "identities",
        multiple=True,
        metavar="WHO",
        help="Keyless signer: a URI or address, * in a path or after its @; repeat for more.",
    ),
    click.option("--issuer", metavar="URL", help="OpenID provider that vouches for --identity."),
    trusted_root_option,
    click.option(
        "--staging", is_flag=True, help="Trust Sigstore's public instance for trials instead."
    ),
    click.option(
        "--max-root-age",
        metavar="90d",
        help="Refuse a trusted root whose newest key came into service longer ago.",
    ),
    click.option(
        "--policy", type=FILE, help="Trust policy (YAML): who may sign, instead of the others."
    ),
)


def trust_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of trust, as one argument `trusted`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **options: Any) -> int:  # noqa: ANN401
        own = {name: options.pop(name) for name in TrustChoice.__struct_fields__}
        return command(*arguments, trusted=TrustChoice(**own), **options)

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering
