"""Who signs: the options that `sign`, `merge` and whatever else signs share, and what they choose.

A command takes `@signing_options` and gets `signing: SigningChoice`; `signing.build()` loads keys.
To add a holder of keys: an option, a field, and a line in `_HOLDERS`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import FILE, load_key, passphrase_option
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.attest.keys import PublicKey
    from parentage.attest.signer import Holder, Signer
    from parentage.attest.trust import Trust


class SigningChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say; nothing is loaded yet.

    Attributes:
        key: file of the private key.
        passphrase_file: of its passphrase.
        signer_cmd: command that signs what it reads.
        pkcs11_uri: address of a key in a token.
        public_key: file with the public half of either.
        certificate: file of the signing certificate, and maybe of its issuers.
        chain: files of its issuers.
        timestamp_url: addresses of timestamp authorities.
    """

    key: Path | None = None
    passphrase_file: Path | None = None
    signer_cmd: str | None = None
    pkcs11_uri: str | None = None
    public_key: Path | None = None
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
        public = self.public_key or (self.key and self.key.with_suffix(".pub"))
        return f"--key {public or 'release.pub'}"

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
        if self.key is not None and self.public_key is not None:
            raise UsageError("--public-key goes with --signer-cmd or --pkcs11-uri")
        return _HOLDERS[given[0]](self)

    def public(self) -> PublicKey | None:
        """Read the public half: a file of its own, or the certificate's."""
        from parentage.attest.keys import PublicKey

        if self.public_key is not None:
            return PublicKey.load(self.public_key)
        if self.certificate is None:
            return None
        from parentage.attest import paths

        certificate = paths.load_certificates(self.certificate)[0]
        return paths.public_key(certificate, str(self.certificate))

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


def _of_command(choice: SigningChoice) -> Holder:
    from parentage.attest.external import CommandKey

    public = choice.public()
    if public is None:
        raise UsageError(
            "whose key does --signer-cmd hold?",
            hint="--public-key release.pub or --certificate release.pem",
        )
    return CommandKey(choice.signer_cmd or "", public)


def _of_token(choice: SigningChoice) -> Holder:
    from parentage.attest import pkcs11_uri
    from parentage.attest.hsm import TokenKey

    uri = pkcs11_uri.parse(choice.pkcs11_uri or "")
    return TokenKey(uri, choice.public(), environment=os.environ)


#: Who holds the private key, by the option that names it.
_HOLDERS: Final[Mapping[str, Callable[[SigningChoice], Holder]]] = {
    "--key": _of_file,
    "--signer-cmd": _of_command,
    "--pkcs11-uri": _of_token,
}


def _value(choice: SigningChoice, option: str) -> object:
    return getattr(choice, option.removeprefix("--").replace("-", "_"))


_OPTIONS: Final = (
    click.option("--key", type=FILE, help="Sign with this private key (PEM, PKCS#8)."),
    passphrase_option,
    click.option(
        "--signer-cmd",
        metavar="COMMAND",
        help="Sign with a command: bytes to sign on its input, signature on its output. No shell.",
    ),
    click.option(
        "--pkcs11-uri",
        metavar="URI",
        help="Sign with a key in a token (RFC 7512); the PIN from PARENTAGE_PIN or pin-source.",
    ),
    click.option(
        "--public-key", type=FILE, help="Public half of the key that command or token holds."
    ),
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
