"""Verify a repository again whenever it changes: from a webhook of the Hub to a gate's verdict.

As a Job of the Hub, started by a webhook, which puts the event into the environment:

    python recheck.py job --gate gate.yaml

As a small server of one's own, behind something that speaks TLS (the secret comes from WEBHOOK_SECRET):

    python recheck.py serve --gate gate.yaml --port 8080 --reports reports/

A branch that moved is checked at the commit it moved to, not at whatever it names later. An event is a
hint that there is something to look at, never evidence: nothing in it is believed but a repository's
name and a commit, and both are checked by the gate. The format of events:
https://huggingface.co/docs/hub/webhooks (version 3).
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import queue
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

MAX_EVENT: Final = 1 << 20
MAX_WAITING: Final = 1000
COMMIT: Final = re.compile("[0-9a-f]{40}")


def places(event: object) -> list[str]:
    """Return the places that an event says have changed: one for each branch or pull request that moved.

    Raises:
        ValueError: not an event of a repository, or names that no repository or commit has.
    """
    from parentage.manifest.errors import UsageError
    from parentage.verify.sources.place import parse_place

    if not isinstance(event, dict) or not isinstance(event.get("repo"), dict):
        raise ValueError("not an event of a repository")  # noqa: TRY004
    repo, moved = event["repo"], event.get("updatedRefs") or []
    if repo.get("type") != "model" or not isinstance(moved, list):
        return []
    found = []
    for ref in moved:
        commit = ref.get("newSha") if isinstance(ref, dict) else None
        if commit is None:  # a branch that was deleted
            continue
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise ValueError("not a commit")
        try:
            found.append(str(parse_place(f"hf://{repo.get('name')}@{commit}")))
        except UsageError as error:
            raise ValueError("not a repository's name") from error
    return sorted(set(found))


def check(place: str, gate: Path, reports: Path) -> int:
    """Let the gate decide about a place, leave its report, and return the exit code."""
    report = reports / (re.sub("[^A-Za-z0-9._-]", "-", place.removeprefix("hf://")) + ".json")
    done = subprocess.run(
        ["parentage", "gate", "download", f"--gate={gate}", f"--output=json={report}", "--", place],
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode


class Server(ThreadingHTTPServer):
    """Takes events, and checks one place after the other."""

    def __init__(self, port: int, secret: str, gate: Path, reports: Path) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.secret = secret.encode()
        self.waiting: queue.Queue[str] = queue.Queue(MAX_WAITING)
        self._options = (gate, reports)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            place = self.waiting.get()
            print(f"{place}: exit code {check(place, *self._options)}", flush=True)
            self.waiting.task_done()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 10

    def do_POST(self) -> None:
        """Take an event whose sender knows the secret."""
        given = self.headers.get("X-Webhook-Secret", "").encode("utf-8", "surrogateescape")
        length = self.headers.get("Content-Length", "")
        if not hmac.compare_digest(given, self.server.secret):
            self._say(403, "the secret is not ours")
        elif not length.isdecimal() or int(length) > MAX_EVENT:
            self._say(413, f"an event has at most {MAX_EVENT} bytes")
        else:
            self._take(self.rfile.read(int(length)))

    def _take(self, body: bytes) -> None:
        try:
            found = places(json.loads(body))
        except (ValueError, RecursionError):
            self._say(400, "not an event")
            return
        try:
            for place in found:
                self.server.waiting.put_nowait(place)
        except queue.Full:
            self._say(503, "too much is waiting")
            return
        self._say(202, f"{len(found)} to check")

    def _say(self, status: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Log nothing that a stranger sends."""


def _job(options: argparse.Namespace) -> int:
    codes = [
        check(place, options.gate, options.reports)
        for place in places(json.loads(os.environ["WEBHOOK_PAYLOAD"]))
    ]
    return next((code for code in codes if code), 0)


def _serve(options: argparse.Namespace) -> int:
    secret = os.environ.get("WEBHOOK_SECRET", "")
    if not secret:
        print("WEBHOOK_SECRET is not set: anybody could ask for checks", file=sys.stderr)
        return 2
    server = Server(options.port, secret, options.gate, options.reports)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
    return 0


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    modes = parser.add_subparsers(required=True)
    for name, run in (("job", _job), ("serve", _serve)):
        mode = modes.add_parser(name)
        mode.set_defaults(run=run)
        mode.add_argument("--gate", type=Path, required=True)
        mode.add_argument("--reports", type=Path, default=Path())
        mode.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
