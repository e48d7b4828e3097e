"""An entry of a transparency log as a bundle carries it, read more strictly than the references do.

sigstore-python and @sigstore/verify each leave something open; here both are closed. The index
beside the proof, which no Rekor v2 log signs, is the proof's; the proof's root and size are the
checkpoint's; the entry belongs to a log by its whole id, and the checkpoint carries that log's name.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from parentage.attest.envelope import strict_b64decode
from parentage.attest.material import fields
from parentage.manifest.errors import BundleError, SignatureError

_NUMBER: Final = re.compile("0|[1-9][0-9]{0,18}")
_SIGNATURE: Final = re.compile("— (\\S+) (\\S+)")
_LATEST: Final = 1 << 33  # seconds since 1970, in the year 2242
_MAX_BODY: Final = 64 << 20
_MAX_CHECKPOINT: Final = 64 << 10
_MAX_PATH: Final = 64


class LogEntry(msgspec.Struct, frozen=True):
    """Where a signature is logged; nothing here is verified yet.

    Attributes:
        log_id: the log, by the digest of its key.
        index: of the entry.
        time: when a Rekor v1 log says that it took the entry in; v2 logs do not say.
        names: who signed the checkpoint in the log's name, as it says.
    """

    log_id: bytes
    index: int
    time: datetime | None
    names: tuple[str, ...]


def parse(entry: dict[str, Any], where: str) -> LogEntry:
    """Check what can be checked of an entry without a key.

    Raises:
        BundleError: a field is unknown, missing or of another form.
        SignatureError: parts of it contradict each other.
    """
    required = ("logIndex", "logId", "kindVersion", "inclusionProof", "canonicalizedBody")
    held = fields(entry, where, required, optional=("integratedTime", "inclusionPromise"))
    log_id = _bytes(fields(held["logId"], where, ("keyId",))["keyId"], f"{where}: logId", 64)
    _bytes(held["canonicalizedBody"], f"{where}: canonicalizedBody", _MAX_BODY)
    index = _number(held["logIndex"], f"{where}: logIndex")
    proven, names = _proof(held["inclusionProof"], log_id, f"{where}: inclusionProof")
    version = fields(held["kindVersion"], where, ("kind", "version"))["version"]
    promise, seconds = held.get("inclusionPromise"), held.get("integratedTime") or "0"
    time = _number(seconds, f"{where}: integratedTime")
    if version == "0.0.1":
        # Rekor v1 promises every entry, and the promise is what binds index and time.
        if promise is None or not 0 < time < _LATEST:
            raise SignatureError("log entry without the log's promise and time", where=where)
        signed = fields(promise, where, ("signedEntryTimestamp",))["signedEntryTimestamp"]
        _bytes(signed, f"{where}: inclusionPromise", 4096)
        return LogEntry(log_id, index, datetime.fromtimestamp(time, UTC), names)
    if promise is not None or time:
        raise SignatureError("log entry has a time that its log does not sign", where=where)
    if index != proven:
        raise SignatureError(
            "log entry's index is not its proof's",
            where=where,
            expected=str(proven),
            found=str(index),
        )
    return LogEntry(log_id, index, None, names)


def _proof(value: object, log_id: bytes, where: str) -> tuple[int, tuple[str, ...]]:
    """Return the proof's index and who signed its checkpoint by the log's key."""
    names = ("logIndex", "rootHash", "treeSize", "checkpoint")
    held = fields(value, where, names, optional=("hashes",))
    index, size = _number(held["logIndex"], where), _number(held["treeSize"], where)
    root = _bytes(held["rootHash"], f"{where}: rootHash", 32)
    hashes = held.get("hashes") or []
    if not isinstance(hashes, list) or len(hashes) > _MAX_PATH:
        raise BundleError("not a path of hashes", where=where, expected=f"<= {_MAX_PATH}")
    for part in hashes:
        _bytes(part, f"{where}: hashes", 32)
    text = fields(held["checkpoint"], where, ("envelope",))["envelope"]
    if not isinstance(text, str) or len(text) > _MAX_CHECKPOINT:
        raise BundleError("not a checkpoint", where=where, found=type(text).__name__)
    said_size, said_root, signers = _checkpoint(text, log_id, f"{where}: checkpoint")
    if (said_size, said_root) != (size, root):
        raise SignatureError(
            "inclusion proof is not for its checkpoint",
            where=where,
            expected=f"size {said_size}, root {said_root.hex()}",
            found=f"size {size}, root {root.hex()}",
        )
    return index, signers


def _checkpoint(text: str, log_id: bytes, where: str) -> tuple[int, bytes, tuple[str, ...]]:
    """Return size, root, and the names that stand before signatures with the log's hint.

    A signed note (https://c2sp.org/signed-note): text, empty line, signatures. Other lines of
    either part are left to whoever wrote them, witnesses for example.
    """
    note, separator, signatures = text.partition("\n\n")
    lines = note.split("\n")
    if not separator or len(lines) < 3 or not lines[0] or not signatures.endswith("\n"):
        raise BundleError("not a signed checkpoint", where=where)
    names: list[str] = []
    for line in signatures[:-1].split("\n"):
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise BundleError("not a signature of a checkpoint", where=where, found=line)
        if _bytes(match[2], where, 8192)[:4] == log_id[:4]:
            names.append(match[1])
    return _number(lines[1], where), _bytes(lines[2], where, 32), tuple(names)


def _number(value: object, where: str) -> int:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise BundleError("not a number", where=where, expected="decimal text", found=str(value))
    return int(value)


def _bytes(value: object, where: str, most: int) -> bytes:
    data = strict_b64decode(value, where)
    if not 0 < len(data) <= most:
        raise BundleError("part of this size", where=where, expected=f"1..{most}")
    return data
