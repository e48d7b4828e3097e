"""HTTP with an end: deadlines, retries, bounded answers, and errors that hold no token.

For requests' sessions, as sigstore-python uses them: it sets no timeout on most calls, reads
answers of any size, and loses what a service says when it refuses.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException, Response, Session
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from parentage.attest import waiting
from parentage.attest.waiting import OverdueError
from parentage.manifest.errors import KeylessError

T = TypeVar("T")
#: Largest answer: a Rekor v1 log repeats hashes and certificates, never a payload.
_MAX_ANSWER: Final = 4 << 20
_ATTEMPTS: Final = 5
_FIRST_PAUSE: Final = 0.2
_ONE_CALL: Final = 30.0
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
#: Tokens are JWTs, which begin like this; a service may repeat the one that it was sent.
_TOKEN: Final = re.compile(r"ey[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_=-]*)*")


class RefusedError(KeylessError):
    """A service answered, and refused.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, service: str, where: str, status: int, reason: str) -> None:
        self.status = status
        super().__init__(
            f"the {service} refused", where=where, found=f"HTTP {status}: {scrubbed(reason)}"
        )


class Deadline:
    """A moment by which everything must be done."""

    def __init__(self, seconds: float) -> None:
        """Begin to count."""
        self.seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begin to count anew."""
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds; at least a little, so that who asks fails by timing out."""
        return max(self._end - time.monotonic(), 0.001)

    @property
    def passed(self) -> bool:
        """Whether it is too late."""
        return time.monotonic() >= self._end


def within(deadline: Deadline, service: str, call: Callable[[], T], *, where: str = "") -> T:
    """Return what `call` returns, or give up at the deadline whatever it is waiting for.

    Raises:
        KeylessError: the deadline passed.
    """
    try:
        return waiting.within(deadline.left, call, name=f"waiting for the {service}")
    except OverdueError as error:
        raise _too_late(deadline, service, where) from error


class PatientAdapter(HTTPAdapter):
    """Transport for one service."""

    def __init__(self, service: str, deadline: Deadline) -> None:
        """Name the service for errors; every call ends by the deadline."""
        super().__init__()
        self._service, self._deadline = service, deadline

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002  (requests' signature)
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send until the service answers something final.

        Raises:
            KeylessError: it did not, it refused, or the deadline passed.
        """
        where = _address(request.url or "")
        failure = KeylessError(f"the {self._service} does not answer", where=where)
        pause = _FIRST_PAUSE
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(min(pause, self._deadline.left))
                pause *= 2
            if self._deadline.passed:
                raise _too_late(self._deadline, self._service, where) from failure
            try:
                response = within(
                    self._deadline,
                    self._service,
                    lambda: self._once(request, verify=verify, cert=cert, proxies=proxies),
                    where=where,
                )
            except (RequestException, HTTPError, OSError) as error:
                failure = KeylessError(
                    f"the {self._service} does not answer",
                    where=where,
                    found=scrubbed(_innermost(error)),
                )
                continue
            if response.ok:
                return response
            failure = RefusedError(self._service, where, response.status_code, _reason(response))
            if response.status_code not in _PASSING:
                raise failure
        raise failure

    def _once(self, request: PreparedRequest, **options: Any) -> Response:  # noqa: ANN401
        left = min(self._deadline.left, _ONE_CALL)
        response = super().send(request, stream=True, timeout=left, **options)
        data = bytearray()
        for piece in response.raw.stream(64 << 10, decode_content=True):
            data += piece
            if len(data) > _MAX_ANSWER:
                response.close()
                raise KeylessError(
                    f"the {self._service} answers too much",
                    where=_address(request.url or ""),
                    expected=f"<= {_MAX_ANSWER} bytes",
                )
        response.close()
        response.raw = io.BytesIO(bytes(data))
        return response


def mount(session: Session, service: str, deadline: Deadline) -> None:
    """Make a session patient."""
    for scheme in ("https://", "http://"):
        session.mount(scheme, PatientAdapter(service, deadline))


def scrubbed(text: str) -> str:
    """Return text from a service without the tokens that it may repeat."""
    return _TOKEN.sub("[token]", text)


def _reason(response: Response) -> str:
    text = response.content[:4096].decode("utf-8", "replace")
    try:
        held = json.loads(text)
    except ValueError:
        return text
    return str(held.get("message", text)) if isinstance(held, dict) else text


def _innermost(error: BaseException) -> str:
    """Return what the operating system said, not the five layers around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def _address(url: str) -> str:
    """Return an address without its query, which may hold claims."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _too_late(deadline: Deadline, service: str, where: str) -> KeylessError:
    return KeylessError(
        f"the {service} did not answer in time",
        where=where,
        expected=f"all done within {deadline.seconds:g} s",
        hint="try again, or give it longer: --patience SECONDS",
    )
