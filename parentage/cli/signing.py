"""Who signs: the options that `sign`, `merge` and whatever else signs share, and what they choose.

A command takes `@signing_options` and gets `signing: SigningChoice`; `signing.build()` loads keys.
To add a holder of keys: an option, a field, and a line in `_HOLDERS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import FILE, load_key, passphrase_option
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.attest.signer import Holder, Signer
    from parentage.attest.trust import Trust


class SigningChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say; nothing is loaded yet.

    Attributes:
        key: file of the private key.
        passphrase_file: of its passphrase.
        certificate: file of the signing certificate, and maybe of its issuers.
        chain: files of its issuers.
        timestamp_url: addresses of timestamp authorities.
    """

    key: Path | None = None
    passphrase_file: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()
    timestamp_url: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Whether anybody is to sign."""
        return any(_value(self, option) is not None for option in _HOLDERS)

    @property
    def verified_with(self) -> str:
        """What to give `verify`."""
        if self.certificate is not None:
            return "--ca root.pem"
        return f"--key {self.key.with_suffix('.pub') if self.key else 'release.pub'}"

    def build(self) -> Signing:
        """Load what signs, asking for a passphrase if one is needed.

        Raises:
            UsageError: nobody is to sign, or two are, or options do not go together.
            SigningKeyError: a key or certificate can't be used.
        """
        holder = self._holder()
        if self.certificate is not None:
            signing = self._by_certificate(holder, self.certificate)
        else:
            signing = self._by_key(holder)
        if not self.timestamp_url:
            return signing
        from parentage.attest.timestamps import StampingSigner

        return Signing(StampingSigner(signing.signer, self.timestamp_url), signing.trust)

    def _holder(self) -> Holder:
        given = [option for option in _HOLDERS if _value(self, option) is not None]
        if len(given) != 1:
            raise UsageError(
                "say who signs, in one way",
                expected="one of " + ", ".join(_HOLDERS),
                found=", ".join(given) or "none of them",
                hint="--key release.key",
            )
        return _HOLDERS[given[0]](self)

    def _by_key(self, holder: Holder) -> Signing:
        from parentage.attest.signer import KeySigner
        from parentage.attest.trust import TrustedKeys

        if self.chain:
            raise UsageError("--chain goes with --certificate")
        return Signing(KeySigner(holder), TrustedKeys((holder.public,)))

    def _by_certificate(self, holder: Holder, certificate: Path) -> Signing:
        from parentage.attest.chains import CertificateSigner, TrustedChains
        from parentage.attest.paths import load_chain

        chain = load_chain((certificate, *self.chain))
        # What was signed is opened again before it is written: the chain must hold, up to its end.
        return Signing(CertificateSigner(holder, chain), TrustedChains((chain[-1],)))


class Signing(msgspec.Struct, frozen=True):
    """Who signs.

    Attributes:
        signer: makes the signatures.
        trust: opens them again before anything is written.
    """

    signer: Signer
    trust: Trust


def _of_file(choice: SigningChoice) -> Holder:
    assert choice.key is not None  # noqa: S101  (the table is asked for what was given)
    return load_key(choice.key, choice.passphrase_file)


#: Who holds the private key, by the option that names it.
_HOLDERS: Final[Mapping[str, Callable[[SigningChoice], Holder]]] = {"--key": _of_file}


def _value(choice: SigningChoice, option: str) -> object:
    return getattr(choice, option.removeprefix("--").replace("-", "_"))


_OPTIONS: Final = (
    click.option("--key", type=FILE, help="Sign with this private key (PEM, PKCS#8)."),
    passphrase_option,
    click.option(
        "--certificate", type=FILE, help="The key's X.509 certificate (PEM), issuers after it."
    ),
    click.option(
        "--chain", type=FILE, multiple=True, help="Issuers of --certificate (PEM); repeat for more."
    ),
    click.option(
        "--timestamp-url",
        multiple=True,
        metavar="URL",
        help="Have signatures timestamped (RFC 3161); repeat for more authorities.",
    ),
)


def signing_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of signing, as one argument `signing`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **options: Any) -> int:  # noqa: ANN401
        own = {name: options.pop(name) for name in SigningChoice.__struct_fields__}
        return command(*arguments, signing=SigningChoice(**own), **options)

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering
