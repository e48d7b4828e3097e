"""Times as statements write them, and lengths of time as policies do. The clock itself is an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from parentage.manifest.errors import StatementError

Time = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$(?!\n)")
]
Duration = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[1-9][0-9]{0,4}[hd]$(?!\n)",
        description="a whole number of hours or days: 12h, 30d",
    ),
]
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


def parse_time(text: str, where: str) -> datetime:
    """Return a UTC time from its one spelling, `2026-06-14T09:00:00Z`.

    Raises:
        StatementError: another spelling, or no day or hour that there is.
    """
    try:
        time = datetime.strptime(text, _FORM).replace(tzinfo=UTC)
    except ValueError as error:
        raise StatementError(
            "not a time", where=where, expected="2026-06-14T09:00:00Z", found=text
        ) from error
    if to_text(time) != text:
        raise StatementError("not a time", where=where, expected=to_text(time), found=text)
    return time


def to_text(time: datetime) -> str:
    """Return a time as statements write it; fractions of a second are cut off."""
    moved = time.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return f"{moved.isoformat()}Z"


def now() -> datetime:
    """Return the time. Called where a command or a call begins, and handed down from there."""
    return datetime.now(UTC).replace(microsecond=0)


def length(duration: str) -> timedelta:
    """Return the length of a `Duration`."""
    count = int(duration[:-1])
    return timedelta(days=count) if duration.endswith("d") else timedelta(hours=count)
