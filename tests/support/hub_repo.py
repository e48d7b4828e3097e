"""A small repository on the local Hub, read with little patience, and other servers beside it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from parentage.verify.sources.hub import (
    Repo,
    resolve,
)
from parentage.verify.sources.place import parse_place
from parentage.verify.sources.web import Patience

QUICK = Patience(attempts=3, pause=0.01, stall=0.4, answer=0.6, longest=0.05)
QUICKEST = Patience(attempts=3, pause=0.0, stall=0.4, answer=0.6, longest=0.0)
REPO = "acme/m"
BIG = bytes(range(256)) * 20_000  # 5 MB: several buffers of a fetch
FILES = {
    "model.safetensors": BIG,
    "config.json": b'{"a": 1}',
    "sub/notes.txt": b"n" * 1000,
    "empty.txt": b"",
}


def at_hub(revision: str = "") -> Repo:
    return resolve(
        parse_place(f"hf://{REPO}" + (f"@{revision}" if revision else "")), waiting=QUICK
    )


class serving:  # noqa: N801  (used like a function)
    """One more server on loopback."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
