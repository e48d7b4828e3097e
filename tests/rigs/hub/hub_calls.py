"""A request to the local Hub, and what is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from hub_repos import Hub, RefusalError

_CHUNK = 1 << 20


@dataclass
class Asked:
    """A line of the log of requests.

    Attributes:
        route: its name in the table of routes; "unknown" for none.
        path: as it came, with its query.
        authorized: whether a token was sent along.
        range: the Range header.
        received, sent: bytes of the bodies.
    """

    method: str
    route: str
    path: str
    authorized: bool
    range: str = ""
    status: int = 0
    received: int = 0
    sent: int = 0


class Call:
    """A request.

    Attributes:
        base: the address under which the client knows the Hub.
        log: its line in the log.
    """

    def __init__(
        self, hub: Hub, method: str, target: str, headers: Any, body: BinaryIO, base: str
    ) -> None:
        split = urlsplit(target)
        self.hub = hub
        self.method = method
        self.path = split.path
        self.query = {key: values[0] for key, values in parse_qs(split.query).items()}
        self.headers = headers
        self.base = base
        self.log = Asked(
            method,
            "unknown",
            target,
            "authorization" in headers,
            headers.get("range", ""),
        )
        self._body = body
        self._left = int(headers.get("content-length") or 0)
        self._chunked = "chunked" in headers.get("transfer-encoding", "")

    def pieces(self) -> Iterator[bytes]:
        """Read the body, a piece at a time."""
        while self._chunked:
            size = int(self._body.readline().split(b";")[0], 16)
            yield self._took(self._body.read(size))
            self._body.readline()
            self._chunked = size > 0
        while self._left:
            piece = self._body.read(min(_CHUNK, self._left))
            if not piece:
                self._left = 0
                raise ConnectionError("the body ended early")
            self._left -= len(piece)
            yield self._took(piece)

    def _took(self, piece: bytes) -> bytes:
        self.log.received += len(piece)
        return piece

    @cached_property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    @property
    def json(self) -> Any:
        """The body, read as JSON; nothing is an empty object."""
        return json.loads(self.body or b"{}")

    def drain(self) -> None:
        """Read what nobody read, so that the connection can be used again."""
        for _ in self.pieces():
            pass

    @property
    def user(self) -> str | None:
        """Who asks; None: somebody without a token."""
        return self._identity()[0]

    def writer(self) -> str:
        """Return who asks, who must be allowed to write."""
        user, role = self._identity()
        if user is None:
            raise RefusalError(401, "Unauthorized", "Invalid username or password.")
        if role != "write":
            raise RefusalError(403, "Forbidden", "Your token has no write permission")
        return user

    def _identity(self) -> tuple[str | None, str]:
        header = self.headers.get("authorization")
        if header is None:
            return None, ""
        known = self.hub.tokens.get(header.removeprefix("Bearer "))
        if known is None:
            raise RefusalError(401, "Unauthorized", "Invalid credentials in Authorization header")
        return known


@dataclass
class Content:
    """Bytes of a file: in memory or on disk."""

    source: bytes | Path
    size: int


@dataclass
class Answer:
    """What is sent back: a document, or a content that may be asked for in ranges.

    Attributes:
        file: the name in its repository of the file that this is about, for faults.
    """

    status: int = 200
    document: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content: Content | None = None
    file: str = ""

    @property
    def body(self) -> bytes:
        """The document's bytes."""
        if isinstance(self.document, bytes):
            return self.document
        return json.dumps({} if self.document is None else self.document).encode()


def refused(refusal: RefusalError) -> Answer:
    """Say no, with the headers by which the client tells why."""
    told = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
    return Answer(refusal.status, {"error": refusal.message}, {**told, **refusal.headers})


def asked_range(header: str, size: int) -> tuple[int, int] | None:
    """Read a Range header (RFC 9110, 14.1.2); return start and end, or None for the whole.

    Raises:
        RefusalError: 416, nothing of the file lies there.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if not found or found[0] == "bytes=-":
        return None
    if not found[1]:
        return max(size - int(found[2]), 0), size
    start, end = int(found[1]), min(int(found[2] or size), size - 1) + 1
    if start >= size:
        range_header = {"Content-Range": f"bytes */{size}"}
        raise RefusalError(416, "RangeNotSatisfiable", "", **range_header)
    return start, end
