"""HTTP with an end: deadlines, retries, bounded answers, and no token where it does not belong.

For huggingface_hub's session, of which only what httpx and httpx2 share is touched. The client sets no
timeout of its own, follows redirects by itself and reads answers of any size; here each is decided.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec

from parentage.attest.waiting import OverdueError, within
from parentage.manifest.errors import HubAnswerError, HubError, HubUnreachableError

T = TypeVar("T")
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
#: Bytes that a stream must bring in the time that a stall may last.
_TRICKLE: Final = 64 << 10
_TOKEN: Final = re.compile(r"hf_[A-Za-z0-9]{8,}|ey[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_=-]*)*")


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for what.

    Attributes:
        attempts: of one request before it is given up.
        pause: seconds before the second attempt; doubled for each further one.
        longest: seconds of one pause, whatever Retry-After says.
        stall: seconds without a byte, or without a trickle of 64 KiB while streaming.
        answer: seconds for one whole answer that is not streamed.
    """

    attempts: int = 5
    pause: float = 0.5
    longest: float = 30.0
    stall: float = 30.0
    answer: float = 120.0


class Traffic:
    """Requests that were sent and bytes of bodies that came, counted from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = self.bytes = 0

    def asked(self) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1

    def came(self, nbytes: int) -> None:
        """Count bytes."""
        with self._lock:
            self.bytes += nbytes


class Answer(msgspec.Struct, frozen=True):
    """The head of an answer, after redirects.

    Attributes:
        status: HTTP status code.
        headers: by name in small letters; those of a redirect on the way where the end has none such.
        url: that answered at the end.
    """

    status: int
    headers: Mapping[str, str]
    url: str


class PassingError(Exception):
    """What may go well the next time.

    Attributes:
        error: to raise when there is no next time.
        wait: seconds that the server asks for; 0: it doesn't say.
    """

    def __init__(self, error: HubError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.wait = error, wait


class Web:
    """One session with one endpoint."""

    def __init__(
        self,
        session: Callable[[], Any],
        headers: Mapping[str, str],
        failures: tuple[type[Exception], ...],
        patience: Patience,
    ) -> None:
        """Take the client's session and headers, and the exceptions that its transport raises."""
        self._session, self._failures = session, failures
        self._headers = {name.lower(): value for name, value in headers.items()}
        # A body that was compressed on the way has another length, and no ranges.
        self._headers["accept-encoding"] = "identity"
        self.patience, self.traffic = patience, Traffic()

    @property
    def has_token(self) -> bool:
        """Whether requests carry a token."""
        return "authorization" in self._headers

    def scrubbed(self, text: str) -> str:
        """Return text from outside without the tokens that it may repeat."""
        _, _, token = self._headers.get("authorization", "").partition(" ")
        return scrubbed(text.replace(token, "[token]") if token else text)

    def patiently(self, once: Callable[[], T]) -> T:
        """Return what `once` returns, trying again while it fails in passing.

        Raises:
            HubError: whatever it failed with the last time.
        """
        pause = self.patience.pause
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return once()
            except PassingError as error:
                if attempt == self.patience.attempts:
                    raise error.error from error
                time.sleep(min(max(pause, error.wait), self.patience.longest))
                pause *= 2
        raise AssertionError("no attempt")

    def read(
        self, url: str, check: Callable[[Answer], int], *, headers: Mapping[str, str] | None = None
    ) -> tuple[Answer, bytes]:
        """Return one answer, whole; `check` looks at its head and says how many bytes may follow.

        Raises:
            PassingError: a transport that failed, or was too slow.
            HubError: what `check` raises, or more bytes than it allows.
        """

        def whole() -> tuple[Answer, bytes]:
            with self._opened(url, headers or {}) as (answer, pieces):
                limit = check(answer)
                data = bytearray()
                for piece in pieces:
                    data += piece
                    if len(data) > limit:
                        raise HubAnswerError(
                            "the Hub answers too much",
                            where=address(url),
                            expected=f"at most {limit} bytes",
                        )
                return answer, bytes(data)

        return self._in_time(self.patience.answer, whole, url)

    @contextmanager
    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Yield the head of an answer and its pieces, each at most as late as a stall may last.

        Raises:
            PassingError: a transport that failed, or was too slow.
        """
        with ExitStack() as stack:
            opened = self._in_time(
                self.patience.answer,
                lambda: stack.enter_context(self._opened(url, headers or {})),
                url,
            )
            yield opened[0], self._paced(opened[1], url)

    def _in_time(self, seconds: float, call: Callable[[], T], url: str) -> T:
        try:
            return within(seconds, call, name="waiting for the Hub")
        except OverdueError as error:
            raise PassingError(_unreachable(url, f"no answer in {seconds:g} s")) from error

    @contextmanager
    def _opened(
        self, url: str, headers: Mapping[str, str]
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Ask, and follow redirects; the token stays with the origin that it is for."""
        sent = {**self._headers, **headers}
        seen: dict[str, str] = {}
        first = url
        for _ in range(_MAX_REDIRECTS + 1):
            self.traffic.asked()
            with ExitStack() as stack:
                with self._guarded(first):
                    response = stack.enter_context(
                        self._session().stream(
                            "GET",
                            url,
                            headers=sent,
                            follow_redirects=False,
                            timeout=self.patience.stall,
                        )
                    )
                found = {name.lower(): value for name, value in response.headers.items()}
                status = int(response.status_code)
                if status not in _MOVED:
                    self._check(first, status, found)
                    # What stood in a redirect counts where the end says nothing else; lengths never do.
                    yield Answer(status, seen | found, url), self._counted(response, first)
                    return
                seen |= {n: v for n, v in found.items() if n.startswith("x-")}
                target = redirected(url, found.get("location", ""))
                if _origin(target) != _origin(url):
                    sent.pop("authorization", None)
                url = target
        raise HubAnswerError("the Hub redirects in circles", where=address(first))

    def _check(self, url: str, status: int, headers: Mapping[str, str]) -> None:
        if status in _PASSING:
            raise PassingError(self._busy(url, status, headers), _wait(headers))
        if headers.get("content-encoding", "identity") != "identity":
            raise HubAnswerError(
                "the Hub answers compressed, which it was asked not to",
                where=address(url),
                found=headers["content-encoding"],
            )

    @contextmanager
    def _guarded(self, url: str) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise PassingError(_unreachable(url, self.scrubbed(_innermost(error)))) from error

    def _busy(self, url: str, status: int, headers: Mapping[str, str]) -> HubError:
        said = self.scrubbed(headers.get("x-error-message", ""))
        return HubUnreachableError(
            "the Hub is busy or broken",
            where=address(url),
            found=f"HTTP {status} {said}".strip(),
            hint="try again later",
        )

    def _counted(self, response: Any, url: str) -> Iterator[bytes]:  # noqa: ANN401  (httpx's or httpx2's)
        pieces = response.iter_raw()
        while True:
            with self._guarded(url):
                piece = next(pieces, None)
            if piece is None:
                return
            self.traffic.came(len(piece))
            yield piece

    def _paced(self, pieces: Iterator[bytes], url: str) -> Iterator[bytes]:
        since, came = time.monotonic(), 0
        for piece in pieces:
            yield piece
            came += len(piece)
            now = time.monotonic()
            if came >= _TRICKLE:
                since, came = now, 0
            elif now - since > self.patience.stall:
                raise PassingError(_unreachable(url, f"{came} bytes in {now - since:.0f} s"))


def scrubbed(text: str) -> str:
    """Return text from outside without what looks like a token."""
    return _TOKEN.sub("[token]", text)


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads.

    Raises:
        HubAnswerError: to no address, to another scheme than HTTP, or out of TLS.
    """
    try:
        target = urljoin(url, location)
        scheme, _, _ = _origin(target)
        named = bool(urlsplit(target).hostname)
    except ValueError:  # brackets or a port that are none
        target, scheme, named = "", "", False
    if (
        not named
        or scheme not in {"http", "https"}
        or (scheme == "http" and urlsplit(url).scheme == "https")
    ):
        raise HubAnswerError(
            "the Hub redirects to where nothing is read from",
            where=address(url),
            expected="an https address",
            found=address(target) if target else location,
        )
    return target


def address(url: str) -> str:
    """Return an address without user, query and fragment, which may hold signatures."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, (parts.hostname or "").lower(), port


def _unreachable(url: str, why: str) -> HubUnreachableError:
    return HubUnreachableError(
        "the Hub does not answer",
        where=address(url),
        found=why,
        hint="check the network and HF_ENDPOINT, then try again: what is there already is kept",
    )


def _wait(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0.0


def _innermost(error: BaseException) -> str:
    """Return what the operating system said, not the layers around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__
