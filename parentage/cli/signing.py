"""Who signs: the options that `sign`, `merge` and whatever else signs share, and what they choose.

A command takes `@signing_options` and gets `signing: SigningChoice`; `signing.build()` loads keys.
To add a holder of keys: an option, a field, and a line in `_HOLDERS`.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import FILE, load_key, passphrase_option
from parentage.manifest.errors import UsageError, printable

if TYPE_CHECKING:
    from parentage.attest.additional import Beside
    from parentage.attest.identity import Identity
    from parentage.attest.keys import PublicKey
    from parentage.attest.signer import AnySigner, Holder, Signer
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
        keyless: sign by an identity instead of a key.
        identity_token_file: file with the identity's token.
        trust_config: file with addresses and keys of a Sigstore instance.
        staging: sign by the public instance for trials.
        identity, issuer: who is to sign, if that is known before.
        patience: seconds for each keyless signature.
    """

    key: Path | None = None
    passphrase_file: Path | None = None
    signer_cmd: str | None = None
    pkcs11_uri: str | None = None
    public_key: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()
    timestamp_url: tuple[str, ...] = ()
    keyless: bool = False
    identity_token_file: Path | None = None
    trust_config: Path | None = None
    staging: bool = False
    identity: str | None = None
    issuer: str | None = None
    patience: float | None = None

    @property
    def given(self) -> bool:
        """Whether anybody is to sign."""
        return self.keyless or any(_value(self, option) is not None for option in _HOLDERS)

    def verified_with(self, signer: Identity) -> str:
        """Return what to give `verify`, on a shell's command line."""
        from parentage.attest.identity import KeylessIdentity

        if isinstance(signer, KeylessIdentity):
            root = self.trust_config and f" --trusted-root {shlex.quote(str(self.trust_config))}"
            who, issuer = map(shlex.quote, (signer.identity, signer.issuer))
            return printable(f"--identity {who} --issuer {issuer}{root or ''}", 2000)
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
        if self.keyless:
            return self._by_identity()
        for option in _KEYLESS:
            if _value(self, option) not in {None, False}:
                raise UsageError(f"{option} goes with --keyless")
        holder = self._holder()
        if self.certificate is not None:
            signer, trust = self._by_certificate(holder, self.certificate)
        else:
            signer, trust = self._by_key(holder)
        return Signing(self._stamping(signer), trust)

    def _by_identity(self) -> Signing:
        from parentage.attest import tokens
        from parentage.attest.identity_pattern import IdentityPattern
        from parentage.attest.keyless_signer import PATIENCE, KeylessSigner

        others = (*_HOLDERS, "--certificate", "--chain", "--timestamp-url")
        given = [option for option in others if _value(self, option) not in {None, ()}]
        if given:
            raise UsageError("a keyless signature has no key of yours", found=", ".join(given))
        if self.staging and self.trust_config is not None:
            raise UsageError("--staging and --trust-config are two instances")
        patience = self.patience or PATIENCE
        if self.identity_token_file is not None:
            source = tokens.of_file(self.identity_token_file)
        else:
            asked = sys.stdin.isatty() or bool(os.environ.get("BROWSER"))
            source = tokens.found_here(patience=patience, interactive=asked)
        signer = KeylessSigner(
            source,
            config=None if self.trust_config is None else self.trust_config.read_bytes(),
            staging=self.staging,
            expected=(
                None
                if self.identity is None and self.issuer is None
                else IdentityPattern(self.identity or "", self.issuer or "")
            ),
            patience=patience,
        )
        return Signing(signer, signer)

    def beside(self, key: Path) -> Beside:
        """Load the key that signs the same bytes in a bundle beside."""
        from parentage.attest.additional import Beside
        from parentage.attest.signer import KeySigner
        from parentage.attest.trust import TrustedKeys

        held = load_key(key, self.passphrase_file)
        return Beside(self._stamping(KeySigner(held)), TrustedKeys((held.public,)))

    def _stamping(self, signer: Signer) -> Signer:
        if not self.timestamp_url:
            return signer
        from parentage.attest.timestamps import StampingSigner

        return StampingSigner(signer, self.timestamp_url)

    def _holder(self) -> Holder:
        given = [option for option in _HOLDERS if _value(self, option) is not None]
        if len(given) != 1:
            raise UsageError(
                "say who signs, in one way",
                expected="one of " + ", ".join((*_HOLDERS, "--keyless")),
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

    def _by_key(self, holder: Holder) -> tuple[Signer, Trust]:
        from parentage.attest.signer import KeySigner
        from parentage.attest.trust import TrustedKeys

        if self.chain:
            raise UsageError("--chain goes with --certificate")
        return KeySigner(holder), TrustedKeys((holder.public,))

    def _by_certificate(self, holder: Holder, certificate: Path) -> tuple[Signer, Trust]:
        from parentage.attest.chains import CertificateSigner, TrustedChains
        from parentage.attest.paths import load_chain

        chain = load_chain((certificate, *self.chain))
        # What was signed is opened again before it is written: the chain must hold, up to its end.
        return CertificateSigner(holder, chain), TrustedChains((chain[-1],))


class Signing(msgspec.Struct, frozen=True):
    """Who signs.

    Attributes:
        signer: makes the signatures.
        trust: opens them again before anything is written.
    """

    signer: AnySigner
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


#: Options that mean nothing without --keyless.
_KEYLESS: Final = (
    *("--identity-token-file", "--trust-config", "--staging"),
    *("--identity", "--issuer", "--patience"),
)


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
    click.option(
        "--keyless",
        is_flag=True,
        help="Sign by identity, through Sigstore: a CI system's, or yours in a browser. "
        "The identity stays in a public log for ever.",
    ),
    click.option(
        "--identity-token-file", type=FILE, help="With --keyless: file with the OpenID token."
    ),
    click.option(
        "--trust-config",
        type=FILE,
        help="With --keyless: another Sigstore instance (client trust config, JSON).",
    ),
    click.option(
        "--staging", is_flag=True, help="With --keyless: Sigstore's public instance for trials."
    ),
    click.option(
        "--identity",
        metavar="WHO",
        help="With --keyless: refuse to sign as anybody else; * as for `verify`.",
    ),
    click.option("--issuer", metavar="URL", help="With --identity: the OpenID provider."),
    click.option(
        "--patience",
        type=click.FloatRange(min=1, max=3600),
        metavar="SECONDS",
        help="With --keyless: how long to wait for each signature. Default 60.",
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
