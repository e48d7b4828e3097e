"""PKCS#11 addresses (RFC 7512), strictly: what is not understood is refused, as its section 2.3 asks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from parentage.manifest.errors import UsageError

_MAX_URI: Final = 4096
_TEXTS: Final = ("token", "manufacturer", "serial", "model", "object")
_PATH: Final = {*_TEXTS, "id", "type", "slot-id"}
_QUERY: Final = {"module-path", "pin-source"}
#: pk11-pchar and pk11-qchar of section 2.3, escapes included; "/" also in the path, where it occurs.
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/&?|]|%[0-9A-Fa-f]{2})*")


class Pkcs11Uri(msgspec.Struct, frozen=True, kw_only=True):
    """Where a private key lies. What is None matches everything.

    Attributes:
        token, manufacturer, serial, model: of the token.
        slot_id: of its slot.
        object, id: of the key.
        module_path: of the vendor's library.
        pin_source: file with the PIN.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: Path | None = None
    pin_source: Path | None = None


def parse(uri: str) -> Pkcs11Uri:
    """Parse an address of a private key.

    Raises:
        UsageError: it is none, names something that is not understood, or holds a PIN.
    """
    if not uri.startswith("pkcs11:") or len(uri) > _MAX_URI:
        raise _wrong("not a PKCS#11 address", "pkcs11:token=...;object=...")
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    found = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
    if found.pop("type", b"private") != b"private":
        raise _wrong("address of something else", "type=private")
    if not found.keys() & {"object", "id"}:
        raise _wrong("address names no key", "object=LABEL or id=%01")
    texts = {name: _text(name, found[name]) for name in _TEXTS if name in found}
    return Pkcs11Uri(
        **texts,
        id=found.get("id"),
        slot_id=_number(found.get("slot-id")),
        module_path=_module(found.get("module-path")),
        pin_source=_file(found.get("pin-source")),
    )


def _attributes(part: str, separator: str, known: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for attribute in part.split(separator) if part else []:
        name, equals, value = attribute.partition("=")
        if name == "pin-value":
            raise _wrong(
                "a PIN in an address is seen by everybody on this machine",
                "PARENTAGE_PIN, or pin-source=file:/path",
            )
        if name not in known or not equals or name in found:
            raise _wrong("attribute unknown, twice or without a value", ", ".join(sorted(known)))
        if not _VALUE.fullmatch(value):
            raise _wrong(f"characters that must be escaped, in {name}", "%3B for ;")
        found[name] = unquote_to_bytes(value)
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _wrong(f"{name} is not text", "UTF-8, escaped with %") from error


def _number(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 19:
        raise _wrong("slot-id is not a number", "slot-id=0")
    return int(value)


def _module(value: bytes | None) -> Path | None:
    path = None if value is None else Path(_text("module-path", value))
    if path is not None and not path.is_absolute():
        raise _wrong("module-path is not a whole path", "module-path=/usr/lib/...")
    return path


def _file(value: bytes | None) -> Path | None:
    """Return the file of a pin-source; a command there ("|...") is never run."""
    if value is None:
        return None
    path = Path(_text("pin-source", value).removeprefix("file:").removeprefix("//"))
    if not path.is_absolute() or "|" in str(path):
        raise _wrong("pin-source is not a file", "pin-source=file:/path")
    return path


def _wrong(what: str, expected: str) -> UsageError:
    # The address itself is not repeated: somebody may have put a PIN into it.
    return UsageError(what, where="--pkcs11-uri", expected=expected)
