"""One HTTP request with an end: a deadline for all of it, a bounded answer, retries, no redirect."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from functools import partial
from http import HTTPStatus
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

from parentage.attest import waiting
from parentage.attest.waiting import OverdueError
from parentage.manifest.errors import SigningFailedError, UsageError

_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.2
_PASSING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class _PassingError(Exception):
    """What may be better in a moment."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The service that was named is the one that answers."""

    def redirect_request(self, *_: object) -> None:
        """Take no redirect: its status is the answer."""
        return


def check_url(url: str, option: str) -> None:
    """Refuse what is no plain web address.

    Raises:
        UsageError: another scheme, no host, or a password in it (that would be in argv, too).
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise UsageError(
            "not a web address",
            where=option,
            expected="http(s)://host/path, without user or password",
            found="an address with a user" if parts.username is not None else url,
        )


def post(url: str, body: bytes, *, kind: str, most: int, seconds: float) -> bytes:
    """Post `body` and return the answer, at most `most` bytes, within `seconds` in all.

    Args:
        url: as `check_url` accepts it.
        body: what is sent.
        kind: its content type.
        most: bytes that the answer may have.
        seconds: for all attempts together, looking up the name included.

    Raises:
        SigningFailedError: no answer in time, a refusal, or too large an answer.
    """
    end = time.monotonic() + seconds
    request = urllib.request.Request(  # noqa: S310  (`check_url` lets only http and https pass)
        url, data=body, headers={"Content-Type": kind, "Connection": "close"}, method="POST"
    )
    pause, failure = _FIRST_PAUSE, "no answer"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(max(min(pause, end - time.monotonic()), 0))
            pause *= 2
        left = end - time.monotonic()
        if left <= 0:
            break
        try:
            return waiting.within(left, partial(_once, left, request, most))
        except OverdueError:
            failure = "no answer in time"
        except _PassingError as error:
            failure = str(error)
    raise SigningFailedError(
        "service does not answer",
        where=url,
        expected=f"an answer within {seconds:g} s and {_ATTEMPTS} attempts",
        found=failure,
        hint="try again later",
    )


def _once(left: float, request: urllib.request.Request, most: int) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect())
    try:
        with opener.open(request, timeout=left) as response:
            data: bytes = response.read(most + 1)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _PASSING:
                raise _PassingError(f"HTTP {error.code}") from error
            raise SigningFailedError(
                "service refuses",
                where=request.full_url,
                expected="HTTP 200",
                found=f"HTTP {error.code}",
            ) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise _PassingError(str(reason) or type(reason).__name__) from error
    if len(data) > most:
        raise SigningFailedError(
            "answer too large", where=request.full_url, expected=f"<= {most} bytes"
        )
    return data
