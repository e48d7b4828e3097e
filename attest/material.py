"""How a bundle says its signature is checked: a key's hint, a certificate chain, or keyless material.

Parsed and bounded here, believed nowhere: trust.py decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from parentage.attest.envelope import strict_b64decode
from parentage.manifest.errors import BundleError

#: Certificates of a chain, bytes of one, log entries and timestamps of a bundle.
MAX_CHAIN: Final = 16
MAX_CERTIFICATE: Final = 64 << 10
MAX_LOG_ENTRIES: Final = 8
MAX_TIMESTAMPS: Final = 8
MAX_TIMESTAMP: Final = 64 << 10
_KINDS: Final = ("publicKey", "x509CertificateChain", "certificate")
_WITNESSED: Final = ("tlogEntries", "timestampVerificationData")


class KeyHint(msgspec.Struct, frozen=True):
    """A key named by its hint, which selects and proves nothing."""

    hint: str


class Chain(msgspec.Struct, frozen=True):
    """DER certificates, leaf first."""

    certificates: tuple[bytes, ...]


class Leaf(msgspec.Struct, frozen=True):
    """The short-lived DER certificate of a keyless signature."""

    certificate: bytes


class Material(msgspec.Struct, frozen=True):
    """A bundle's `verificationMaterial`.

    Attributes:
        kind: how the signature is checked.
        log_entries: of transparency logs, as parsed JSON.
        timestamps: RFC 3161 tokens, DER.
    """

    kind: KeyHint | Chain | Leaf
    log_entries: tuple[dict[str, Any], ...] = ()
    timestamps: tuple[bytes, ...] = ()


def parse(value: object, where: str, *, legacy: bool = False) -> Material:
    """Parse `verificationMaterial`; `legacy`: also a key as raw bytes.

    Raises:
        BundleError: an unknown field, none or several of the three kinds, or too many parts.
    """
    found = fields(value, where, (), optional=(*_KINDS, *_WITNESSED))
    given = [kind for kind in _KINDS if kind in found]
    if len(given) != 1:
        raise BundleError(
            "bundle must say in one way how it is checked",
            where=where,
            expected="one of " + ", ".join(_KINDS),
            found=", ".join(given) or "nothing",
        )
    entries = _list(found.get("tlogEntries"), f"{where}: tlogEntries", MAX_LOG_ENTRIES)
    if not all(isinstance(entry, dict) for entry in entries):
        raise BundleError("log entry is not an object", where=where)
    at = f"{where}: {given[0]}"
    key = found.get("publicKey")
    raw_key = isinstance(key, dict) and "rawBytes" in key
    return Material(
        kind=_raw_key(key, at, legacy=legacy)
        if raw_key
        else _KIND_PARSERS[given[0]](found[given[0]], at),
        log_entries=tuple(entries),
        timestamps=_timestamps(found.get("timestampVerificationData"), where),
    )


def fields(
    value: object, where: str, required: tuple[str, ...], *, optional: tuple[str, ...] = ()
) -> dict[str, object]:
    """Return a JSON object after checking that it has exactly the fields it should.

    Raises:
        BundleError: it is no object, a field is unknown or missing.
    """
    if not isinstance(value, dict):
        raise BundleError("not a JSON object", where=where, found=type(value).__name__)
    unknown = sorted(value.keys() - {*required, *optional})
    missing = sorted(set(required) - value.keys())
    if unknown or missing:
        raise BundleError(
            "unknown field in bundle" if unknown else "field missing in bundle",
            where=where,
            expected=", ".join(sorted(required or optional)),
            found=", ".join(unknown or missing),
        )
    return value


def _hint(value: object, where: str) -> KeyHint:
    hint = fields(value, where, ("hint",))["hint"]
    if not isinstance(hint, str):
        raise BundleError("key hint is not text", where=where, found=type(hint).__name__)
    return KeyHint(hint)


def _raw_key(value: object, where: str, *, legacy: bool) -> KeyHint:
    """Return the hint of a key that is given whole: the digest of its text. It proves nothing either."""
    if not legacy:
        raise BundleError(
            "key given as raw bytes, as model_signing up to 1.0.1 did",
            where=where,
            expected="hint",
            hint="parentage oms verify --legacy-oms",
        )
    held = fields(value, where, ("rawBytes",), optional=("keyDetails",))
    return KeyHint(hashlib.sha256(strict_b64decode(held["rawBytes"], where)).hexdigest())


def _chain(value: object, where: str) -> Chain:
    parts = _list(fields(value, where, ("certificates",))["certificates"], where, MAX_CHAIN)
    if not parts:
        raise BundleError("certificate chain is empty", where=where)
    return Chain(tuple(_raw(part, where, "rawBytes", MAX_CERTIFICATE) for part in parts))


def _leaf(value: object, where: str) -> Leaf:
    return Leaf(_raw(value, where, "rawBytes", MAX_CERTIFICATE))


_KIND_PARSERS: Final[Mapping[str, Callable[[object, str], KeyHint | Chain | Leaf]]] = {
    "publicKey": _hint,
    "x509CertificateChain": _chain,
    "certificate": _leaf,
}


def _timestamps(value: object, where: str) -> tuple[bytes, ...]:
    if value is None:
        return ()
    at = f"{where}: timestampVerificationData"
    held = fields(value, at, (), optional=("rfc3161Timestamps",)).get("rfc3161Timestamps")
    return tuple(
        _raw(part, at, "signedTimestamp", MAX_TIMESTAMP) for part in _list(held, at, MAX_TIMESTAMPS)
    )


def _list(value: object, where: str, most: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        found = str(len(value)) if isinstance(value, list) else type(value).__name__
        raise BundleError(
            "not a list of this size", where=where, expected=f"<= {most}", found=found
        )
    return value


def _raw(value: object, where: str, field: str, most: int) -> bytes:
    data = strict_b64decode(fields(value, where, (field,))[field], where)
    if not 0 < len(data) <= most:
        raise BundleError(
            "part of this size", where=where, expected=f"1..{most}", found=str(len(data))
        )
    return data
