"""Keys in a PKCS#11 token: an HSM, a smart card, a YubiKey. python-pkcs11 is met here only.

The vendor's library runs in this process, and no deadline can be set for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from parentage.attest.keys import PublicKey, read_key_file
from parentage.attest.pkcs11_uri import Pkcs11Uri
from parentage.manifest.errors import (
    MissingExtraError,
    SignatureError,
    SigningFailedError,
    SigningKeyError,
    UsageError,
)

if TYPE_CHECKING:
    from pkcs11 import Session, Token

PIN: Final = "PARENTAGE_PIN"
MODULE: Final = "PARENTAGE_PKCS11_MODULE"
_DIGESTS: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {
    "p256": hashes.SHA256,
    "p384": hashes.SHA384,
    "p521": hashes.SHA512,
}


class TokenKey:
    """A private key that never leaves its token."""

    def __init__(
        self, uri: Pkcs11Uri, public: PublicKey | None = None, *, environment: Mapping[str, str]
    ) -> None:
        """Find the key, logging in once: some tokens lock after three wrong PINs.

        Args:
            uri: where it lies.
            public: its public half; None: the token holds it, under the same id.
            environment: may name the module and the PIN.

        Raises:
            MissingExtraError: python-pkcs11 is not installed.
            UsageError: no module is named.
            SigningKeyError: no such token or key, more than one, a wrong PIN, or no ECDSA key.
            SigningFailedError: the module can't be loaded, or the token fails.
        """
        self._uri, self._pin = uri, _pin(uri, environment)
        module = uri.module_path or Path(environment.get(MODULE, ""))
        if not module.is_absolute():
            raise UsageError(
                "no PKCS#11 module named",
                where="--pkcs11-uri",
                expected="the whole path of the vendor's library",
                hint=f"add ?module-path=/usr/lib/... to the address, or set {MODULE}",
            )
        with _named(str(module)):
            self._token = _token(_library().lib(str(module)), uri)
        with self._session() as session:
            key = _object(session, uri, "PRIVATE_KEY", uri.id)
            self.public = public or _public_half(session, uri, key)
        if self.public.algorithm.name not in _DIGESTS:
            raise SigningKeyError(
                "key type not supported in a token",
                expected=", ".join(_DIGESTS),
                found=self.public.algorithm.name,
            )

    def sign(self, data: bytes) -> bytes:
        """Return a DER signature, checked with the public key.

        Raises:
            SigningFailedError: the token fails.
            SignatureError: what it returns is no signature by the public key.
        """
        digest = hashes.Hash(_DIGESTS[self.public.algorithm.name]())
        digest.update(data)
        library = _library()
        with self._session() as session:
            key = _object(session, self._uri, "PRIVATE_KEY", self._uri.id)
            again = _attribute(key, library.Attribute.ALWAYS_AUTHENTICATE)
            raw: bytes = key.sign(
                digest.finalize(),
                mechanism=library.Mechanism.ECDSA,
                **({"pin": self._pin} if again and self._pin is not None else {}),
            )
        half = len(raw) // 2
        signature = encode_dss_signature(
            int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
        )
        try:
            self.public.verify(signature, data)
        except SignatureError as error:
            raise SignatureError(
                "the token's signature does not verify with the public key",
                where="--pkcs11-uri",
                expected=f"a signature by key {self.public.fingerprint}",
                hint="check --public-key or --certificate",
            ) from error
        return signature

    @contextmanager
    def _session(self) -> Iterator[Session]:
        library = _library()
        pin: Any = self._pin
        if pin is None and self._token.flags & library.TokenFlag.PROTECTED_AUTHENTICATION_PATH:
            pin = library.PROTECTED_AUTH  # a PIN pad asks for it
        with _named(self._token.label), self._token.open(user_pin=pin) as session:
            yield session


def _token(library: Any, uri: Pkcs11Uri) -> Token:  # noqa: ANN401  (typed as a Cython class)
    def fits(token: Token) -> bool:
        wanted = (
            (uri.token, token.label),
            (uri.serial, token.serial.decode("utf-8", "replace").rstrip()),
            (uri.manufacturer, token.manufacturer_id),
            (uri.model, token.model),
            (uri.slot_id, token.slot.slot_id),
        )
        return all(want is None or want == held for want, held in wanted)

    # Slots show tokens that nobody has set up yet; those hold no keys.
    ready = _library().TokenFlag.TOKEN_INITIALIZED
    found = [token for token in library.get_tokens(token_flags=ready) if fits(token)]
    if len(found) != 1:
        raise SigningKeyError(
            "no such token" if not found else "more than one such token",
            where="--pkcs11-uri",
            expected="one token",
            found=", ".join(sorted(token.label for token in found)) or "none",
            hint="token=LABEL;serial=NUMBER in the address",
        )
    token: Token = found[0]
    return token


def _object(session: Session, uri: Pkcs11Uri, kind: str, identifier: bytes | None) -> Any:  # noqa: ANN401
    library = _library()
    wanted: dict[Any, Any] = {library.Attribute.CLASS: library.ObjectClass[kind]}
    if uri.object is not None and kind == "PRIVATE_KEY":
        wanted[library.Attribute.LABEL] = uri.object
    if identifier is not None:
        wanted[library.Attribute.ID] = identifier
    found = list(session.get_objects(wanted))
    if len(found) == 1:
        return found[0]
    what = kind.replace("_", " ").lower()
    hint = f"set {PIN}: private keys are only seen after logging in"
    if kind == "PUBLIC_KEY":
        hint = "give the public key: --public-key or --certificate"
    raise SigningKeyError(
        f"no such {what} in the token" if not found else f"more than one such {what} in the token",
        where="--pkcs11-uri",
        expected="one",
        found=str(len(found)),
        hint="object=LABEL;id=%01 in the address" if found else hint,
    )


def _public_half(session: Session, uri: Pkcs11Uri, key: Any) -> PublicKey:  # noqa: ANN401
    from pkcs11.util.ec import encode_ec_public_key

    library = _library()
    if key.key_type != library.KeyType.EC:
        raise SigningKeyError(
            "key type not supported in a token",
            expected=", ".join(_DIGESTS),
            found=getattr(key.key_type, "name", str(key.key_type)),
        )
    half = _object(session, uri, "PUBLIC_KEY", key.id)
    try:
        return PublicKey(load_der_public_key(encode_ec_public_key(half)))
    except (ValueError, TypeError) as error:
        raise SigningKeyError(
            "public key in the token can't be read", hint="give it: --public-key"
        ) from error


def _attribute(held: Any, attribute: Any) -> bool:  # noqa: ANN401
    """Return a boolean attribute; many tokens do not know all of them."""
    try:
        return bool(held[attribute])
    except (_library().AttributeTypeInvalid, _library().AttributeSensitive, KeyError):
        return False


def _pin(uri: Pkcs11Uri, environment: Mapping[str, str]) -> str | None:
    if uri.pin_source is None:
        return environment.get(PIN) or None
    try:
        return read_key_file(uri.pin_source, 1024).split(b"\n", 1)[0].rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise SigningKeyError("PIN is not text", where=str(uri.pin_source)) from error


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name what module and token refuse. Their errors are codes, and hold no PIN."""
    library = _library()
    try:
        yield
    except (library.PinIncorrect, library.PinInvalid, library.PinLenRange) as error:
        raise SigningKeyError(
            "PIN is wrong",
            where=where,
            hint=f"check {PIN} or pin-source; tokens lock after a few wrong ones",
        ) from error
    except library.PinLocked as error:
        raise SigningKeyError("PIN is locked", where=where) from error
    except (library.PKCS11Error, RuntimeError, OSError) as error:
        raise SigningFailedError(
            "PKCS#11 module or token fails",
            where=where,
            found=f"{type(error).__name__} {error}".strip(),
        ) from error


def _library() -> ModuleType:
    try:
        import pkcs11
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "PKCS#11 needs python-pkcs11, which is not installed",
            hint="pip install 'parentage[pkcs11]'",
        ) from error
    return pkcs11
