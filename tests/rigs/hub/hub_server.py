"""The local Hub on HTTP: one thread a connection, kept alive, contents sent by the kernel."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hub_calls import Answer, Asked, Call, Content, asked_range, refused
from hub_faults import Fault, Faults
from hub_repos import Hub, RefusalError
from hub_routes import find_route

_SMALL = 64 << 10


class Log:
    """Every request, in order of arrival. Who reads it waits for answers that are being sent."""

    def __init__(self) -> None:
        self._requests: list[Asked] = []
        self._busy: set[int] = set()
        self._changed = threading.Condition()

    def began(self, asked: Asked) -> None:
        """Note a request."""
        with self._changed:
            self._requests.append(asked)
            self._busy.add(id(asked))

    def ended(self, asked: Asked) -> None:
        """Note that all is sent that will be for now."""
        with self._changed:
            self._busy.discard(id(asked))
            self._changed.notify_all()

    @property
    def requests(self) -> list[Asked]:
        """All of them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, timeout=10)
            return list(self._requests)

    def clear(self) -> None:
        """Forget all."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, timeout=10)
            self._requests.clear()

    def of(self, *routes: str) -> list[Asked]:
        """Return the requests of some routes."""
        return [asked for asked in self.requests if asked.route in routes]

    def counts(self) -> Counter[str]:
        """Return how many requests each route had."""
        return Counter(asked.route for asked in self.requests)

    def sent(self, *routes: str) -> int:
        """Return the bytes of bodies sent, by some routes or all."""
        return sum(a.sent for a in self.requests if not routes or a.route in routes)


class Server(ThreadingHTTPServer):
    """Serves a Hub until it is closed.

    Attributes:
        errors: what the Hub itself did wrong; tests must find it empty.
    """

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, hub: Hub, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.hub = hub
        self.faults = Faults()
        self.log = Log()
        self.errors: list[BaseException] = []
        self.closing = threading.Event()
        self._open: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def close(self) -> None:
        """End all connections, stalled ones too."""
        self.closing.set()
        self.shutdown()
        for connection in list(self._open):
            try:
                connection.shutdown(2)
            except OSError:  # it went first
                continue
        self.server_close()
        self._thread.join()

    def get_request(self) -> Any:
        """Remember a connection, to be able to end it."""
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Forget it."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong here; what a client breaks off is none of it."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *args: object) -> None:
        """Say nothing; the log of requests has it."""

    def version_string(self) -> str:
        """Say who answers."""
        return "local-hub"

    def __getattr__(self, name: str) -> Any:
        """Every method of HTTP is answered in one place."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        server = self.server
        base = f"http://{self.headers.get('host', '')}"
        call = Call(server.hub, self.command, self.path, self.headers, self.rfile, base)
        server.log.began(call.log)
        try:
            answer = self._answer(call)
            call.drain()
            server.faults.act(call.log.route, answer.file or "")
            self._send(call, answer)
        finally:
            server.log.ended(call.log)

    def _answer(self, call: Call) -> Answer:
        faults = self.server.faults
        try:
            call.log.route, handler, named = find_route(call)
            file = named.get("path") or call.query.get("file", "")
            fault = faults.answer(call.log.route, file)
            if fault is not None and fault.kind != "endless":
                return self._faulty(call, fault)
            answer = handler(call, **named)
            return _endless(call, answer) if fault is not None else answer
        except RefusalError as refusal:
            return refused(refusal)

    def _faulty(self, call: Call, fault: Fault) -> Answer:
        values = fault.values
        if fault.kind == "garbage":
            return Answer(document=values.get("data", b'{"id": [}'))
        if fault.kind == "redirect":
            elsewhere = call.base.replace("127.0.0.1", "localhost")
            to = values.get("to", f"{elsewhere}/_elsewhere{call.path}")
            return Answer(302, headers={"Location": to}, document=b"")
        if fault.kind == "stall":
            self._wait(call, values)
            raise ConnectionAbortedError("stalled to the end")
        code = values.get("code", 503)
        told = {"X-Error-Message": values.get("message", f"fault {code}")}
        return Answer(
            code, {"error": told["X-Error-Message"]}, {**told, **values.get("headers", {})}
        )

    def _send(self, call: Call, answer: Answer) -> None:
        call.log.status = answer.status
        if answer.content is not None:
            self._send_content(call, answer, answer.content)
            return
        body = answer.body
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._head(answer.status, {**headers, **answer.headers})
        if call.method != "HEAD":
            self._write(call, [body])

    def _send_content(self, call: Call, answer: Answer, content: Content) -> None:
        faults = self.server.faults.content(call.log.route, answer.file)
        if "replace" in faults:
            data = faults["replace"]["data"]
            content = Content(data, len(data))
        try:
            asked = call.log.range if self._wants(call, faults) else ""
            ranged = asked_range(asked, content.size)
        except RefusalError as refusal:
            self._send(call, refused(refusal))
            return
        start, end = ranged or (0, content.size)
        if ranged and "fewer" in faults:
            end = start + max((end - start) // 2, 1)
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        headers["Content-Length"] = str(end - start)
        if ranged:
            off = 1 if "wrong-range" in faults else 0
            headers["Content-Range"] = f"bytes {start + off}-{end + off - 1}/{content.size + off}"
        answer.status = call.log.status = 206 if ranged else answer.status
        self._head(answer.status, {**headers, **answer.headers})
        if call.method == "HEAD":
            return
        cut = faults.get("truncate") or faults.get("stop")
        stop = min(start + cut.get("keep", 0), end) if cut is not None else end
        flip = faults["corrupt"].get("at", content.size - 1) if "corrupt" in faults else None
        self._copy(call, content, start, stop, flip)
        if "stop" in faults:
            self._wait(call, faults["stop"])
        if stop < end:
            self.close_connection = True

    def _wait(self, call: Call, values: dict[str, Any]) -> None:
        self.server.log.ended(call.log)
        self.server.closing.wait(values.get("seconds"))

    def _wants(self, call: Call, faults: dict[str, Any]) -> bool:
        return bool(call.log.range) and call.method == "GET" and "ignore-range" not in faults

    def _copy(self, call: Call, content: Content, start: int, end: int, flip: int | None) -> None:
        """Send bytes of a content, one of them with its lowest bit flipped."""
        if flip is None or not start <= flip < end:
            self._send_slice(call, content, start, end)
            return
        self._send_slice(call, content, start, flip)
        self._write(call, [bytes([_byte(content, flip) ^ 1])])
        self._send_slice(call, content, flip + 1, end)

    def _send_slice(self, call: Call, content: Content, start: int, end: int) -> None:
        if isinstance(content.source, bytes):
            view = memoryview(content.source)[start:end]
            self._write(call, (view[i : i + _SMALL] for i in range(0, len(view), _SMALL)))
        elif end > start:
            with content.source.open("rb") as file:
                call.log.sent += self.connection.sendfile(file, start, end - start)

    def _write(self, call: Call, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self.wfile.write(piece)
            call.log.sent += len(piece)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _byte(content: Content, at: int) -> int:
    if isinstance(content.source, Path):
        with content.source.open("rb") as file:
            file.seek(at)
            return file.read(1)[0]
    return content.source[at]


def _endless(call: Call, answer: Answer) -> Answer:
    """Fill a listing's page with names that nobody committed, and name a next page, for ever."""
    page = int(call.query.get("cursor") or 0)
    made = [
        {"type": "file", "oid": "0" * 40, "size": 1, "path": f"endless/{page:09}/{i:04}"}
        for i in range(1000)
    ]
    separator = "&" if "?" in call.log.path else "?"
    there = call.log.path.split("cursor=")[0].rstrip("&?")
    answer.headers["Link"] = f'<{call.base}{there}{separator}cursor={page + 1}>; rel="next"'
    answer.document = made
    return answer
