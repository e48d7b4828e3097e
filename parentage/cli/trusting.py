"""Whom we believe: the options that `verify`, `join` and whatever else verifies share.

A command takes `@trust_options` and gets `trusted: TrustChoice`; `trusted.build()` reads the files.
To add a way to trust: options, fields, and what `build` makes of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import FILE
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.attest.trust import Timed, Trust


class TrustChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say; nothing is read yet.

    Attributes:
        keys: files of public keys.
        roots: files of certificates that signers' certificates must lead to.
        stamps: files of certificates that timestamps must lead to.
        policy: file that names keys and roots.
    """

    keys: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    stamps: tuple[Path, ...] = ()
    policy: Path | None = None

    def build(self) -> Trust:
        """Read keys, certificates and policy.

        Raises:
            UsageError: nobody is trusted.
            SigningKeyError, PolicyError: a file holds something else.
        """
        from parentage.attest.trust import AnyOf

        if self.policy is not None:
            return self._by_policy(self.policy)
        if not self.keys and not self.roots:
            raise UsageError(
                "whom to trust?", hint="--key release.pub, --ca root.pem or --policy FILE"
            )
        return AnyOf(keys=self._keys(), chains=self._chains())

    def _by_policy(self, policy: Path) -> Trust:
        from parentage.attest.keys import PublicKey
        from parentage.attest.roles import load

        if self.roots:
            raise UsageError("with --policy, roots come from the policy", hint="leave out --ca")
        return load(policy, tuple(map(PublicKey.load, self.keys)), times=self._times())

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

    def _times(self) -> Timed | None:
        if not self.stamps:
            return None
        from parentage.attest.paths import load_chain
        from parentage.attest.timestamps import TrustedStamps

        return TrustedStamps(load_chain(self.stamps))


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
