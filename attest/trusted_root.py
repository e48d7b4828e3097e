"""A Sigstore trusted root: the keys and certificates that a keyless signature is checked with.

sigstore-python takes every key of the root for every signature, whenever it was in service. Here a
signature is checked with a root narrowed to what was in service when it was made, as
@sigstore/verify does, and to the one log that the entry names.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.attest.log_entry import LogEntry
from parentage.manifest import canonical
from parentage.manifest.errors import JsonError, SignatureError, TrustedRootError

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
CONFIG_TYPE: Final = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
MAX_ROOT: Final = 4 << 20
_LISTS: Final = ("tlogs", "certificateAuthorities", "ctlogs", "timestampAuthorities")
_LOGS: Final = ("tlogs", "ctlogs")


class TrustedRoot(msgspec.Struct, frozen=True):
    """A trusted root.

    Attributes:
        document: as JSON; its lists hold objects, each with the time that it was in service.
        name: where it comes from, for people.
    """

    document: dict[str, Any]
    name: str

    def newest(self, now: datetime) -> datetime:
        """Return when the newest of its keys and certificates came into service.

        A root does not say when it was made. It was made after that, unless a key was listed ahead.
        """
        starts = [_service(each, kind)[0] for kind in _LISTS for each in self.document[kind]]
        return max(start for start in starts if start <= now)

    def age(self, now: datetime) -> timedelta:
        """Return for how long, at most, the root has been out of date."""
        return now - self.newest(now)

    def require_age(self, most: timedelta, now: datetime) -> None:
        """Refuse a root that may be older.

        Raises:
            TrustedRootError: with both ages.
        """
        age = self.age(now)
        if age > most:
            raise TrustedRootError(
                "trusted root is too old",
                where=self.name,
                expected=f"<= {_days(most)} since its newest key came into service",
                found=_days(age),
                hint="get the current one, or allow more with --max-root-age",
            )

    def narrowed(
        self, entry: LogEntry, times: Iterable[datetime], certified: datetime, where: str
    ) -> bytes:
        """Return the root, as JSON, without what was not in service for this signature.

        Args:
            entry: only its log is kept.
            times: every time that somebody vouches for.
            certified: when the certificate was logged.
            where: the bundle.

        Raises:
            SignatureError: nothing is left of a kind that is needed.
        """
        made = tuple(times)
        # A v2 log says no time: it took the entry in within moments of the timestamp.
        logged = made if entry.time is None else (entry.time,)
        kept = {
            "tlogs": self._kept("tlogs", logged, lambda log: _is_of(log, entry)),
            "certificateAuthorities": self._kept("certificateAuthorities", made),
            "ctlogs": self._kept("ctlogs", (certified,)),
            # Each timestamp is looked up by itself: several authorities take turns.
            "timestampAuthorities": self.document["timestampAuthorities"],
        }
        for kind in _LISTS[:3]:
            if not kept[kind]:
                raise SignatureError(
                    "nothing in the trusted root was in service for this signature",
                    where=where,
                    expected=f"one of {kind} of {self.name}",
                    found=f"log {entry.log_id.hex()[:16]}… at "
                    + ", ".join(f"{time:%Y-%m-%dT%H:%M:%SZ}" for time in (*made, certified)),
                    hint="is it of another Sigstore instance, or newer than the root?",
                )
        return json.dumps({"mediaType": MEDIA_TYPE, **kept}, sort_keys=True).encode()

    def _kept(
        self,
        kind: str,
        times: tuple[datetime, ...],
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for each in self.document[kind]:
            start, end = _service(each, kind)
            if wanted(each) and all(start <= time <= end for time in times):
                found.append(each)
        return found


def load(path: Path) -> TrustedRoot:
    """Read a trusted root, or the one inside a client trust config.

    Raises:
        TrustedRootError: it can't be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_ROOT + 1)
    except OSError as error:
        raise TrustedRootError(f"can't read: {error.strerror}", where=str(path)) from error
    return parse(data, str(path))


def parse(data: bytes, name: str) -> TrustedRoot:
    """Parse a trusted root, or the one inside a client trust config.

    Raises:
        TrustedRootError: it is none, or lacks a kind of key that every signature needs.
    """
    try:
        document = canonical.loads(data, where=name, max_bytes=MAX_ROOT)
    except JsonError as error:
        raise TrustedRootError(f"trusted root: {error.what}", where=name) from error
    if isinstance(document, dict) and document.get("mediaType") == CONFIG_TYPE:
        document = document.get("trustedRoot")
    if not isinstance(document, dict) or document.get("mediaType") != MEDIA_TYPE:
        raise TrustedRootError("not a trusted root", where=name, expected=MEDIA_TYPE)
    document = {"timestampAuthorities": [], **document}
    for kind in _LISTS:
        held = document.get(kind)
        usable = isinstance(held, list) and all(isinstance(each, dict) for each in held)
        if not usable or (not held and kind != "timestampAuthorities"):
            raise TrustedRootError("trusted root lacks a list", where=name, expected=kind)
    root = TrustedRoot(document, name)
    for kind in _LISTS:
        for each in document[kind]:
            _service(each, f"{name}: {kind}")
            if kind in _LOGS and not all(isinstance(part, str) for part in _of_log(each)):
                raise TrustedRootError("log without an id or an address", where=f"{name}: {kind}")
    if not any(_service(each, name)[0] <= datetime.now(UTC) for each in document["tlogs"]):
        raise TrustedRootError("no log of the trusted root is in service yet", where=name)
    return root


def _days(length: timedelta) -> str:
    return f"{length / timedelta(days=1):.4g} days"


def _service(entry: dict[str, Any], where: str) -> tuple[datetime, datetime]:
    """Return from when to when a key or authority was in service."""
    holder = entry.get("publicKey", entry)
    period = holder.get("validFor") if isinstance(holder, dict) else None
    if not isinstance(period, dict):
        period = {}
    start, end = period.get("start"), period.get("end")
    return _time(start, where), datetime.max.replace(tzinfo=UTC) if end is None else _time(
        end, where
    )


def _time(value: object, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise TrustedRootError(
            "key or certificate without a time of service",
            where=where,
            expected="validFor.start, such as 2026-01-31T12:00:00Z",
            found=str(value),
        )
    return found


def _of_log(log: dict[str, Any]) -> tuple[object, object]:
    """Return id and address; a log whose checkpoints have a key of their own goes by that one."""
    held = log.get("checkpointKeyId") or log.get("logId")
    return (held.get("keyId") if isinstance(held, dict) else None), log.get("baseUrl")


def _is_of(log: dict[str, Any], entry: LogEntry) -> bool:
    """Say whether an entry is of this log, and its checkpoint signed in this log's name."""
    key, address = _of_log(log)
    own = key == base64.b64encode(entry.log_id).decode()
    return own and bool(entry.names) and all(name in str(address) for name in entry.names)
