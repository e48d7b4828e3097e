"""The local Hub: what a test starts, or a person (`make hub`).

It is a stand-in: it speaks what huggingface_hub's own client says, and knows models only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hub_events import update
from hub_repos import Change, Hub
from hub_server import Server

#: Tokens of two users; "acme" owns what is made by default.
WRITE_TOKEN = "hf_local_write"  # noqa: S105
READ_TOKEN = "hf_local_read"  # noqa: S105
STRANGER_TOKEN = "hf_local_stranger"  # noqa: S105


class LocalHub:
    """A running Hub.

    Attributes:
        hub: its state, to be looked at and changed behind the client's back.
        faults: what goes wrong.
        log: requests, and bytes served.
        url: its address, for HF_ENDPOINT.
        events: what a webhook would have been told.
    """

    def __init__(self, folder: Path, *, port: int = 0, xet: bool = False) -> None:
        self.folder = folder
        self.hub = Hub(folder / "store")
        self.hub.tokens = {
            WRITE_TOKEN: ("acme", "write"),
            READ_TOKEN: ("acme", "read"),
            STRANGER_TOKEN: ("stranger", "write"),
        }
        if xet:
            self.hub.objects.offer_xet()
        self.xet = xet
        self.server = Server(self.hub, port)
        self.faults = self.server.faults
        self.log = self.server.log
        self.url = self.server.url
        self.events: list[dict[str, Any]] = []
        self.hub.listeners.append(lambda *moved: self.events.append(update(self.url, *moved)))
        self.server.start()

    def put(self, repo: str, changes: Mapping[str, Change], revision: str = "main") -> str:
        """Commit contents without HTTP (bytes, a file on disk, None to delete); return the commit."""
        return self.hub.put(repo, changes, revision=revision)

    def put_folder(self, repo: str, folder: Path, revision: str = "main") -> str:
        """Commit a folder without HTTP; return the commit."""
        found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
        return self.put(repo, found, revision)

    def head(self, repo: str, revision: str = "main") -> str:
        """Return the commit that a revision names."""
        return self.hub.repo(repo).find(revision).oid

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know to use this Hub and no other, with a cache of its own."""
        home = self.folder / "home"
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_XET_CACHE": str(home / "xet"),
            "HF_TOKEN_PATH": str(home / "token"),
            "PARENTAGE_CACHE": str(home / "parentage"),
            "HF_TOKEN": WRITE_TOKEN,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "0" if self.xet else "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def close(self) -> None:
        """End it; what it did wrong itself is raised."""
        self.server.close()
        if self.server.errors:
            raise ExceptionGroup(
                "the local Hub failed", [e for e in self.server.errors if isinstance(e, Exception)]
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="A Hub on this machine, for trying things out; prints the environment to use."
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--folder", type=Path, help="where it keeps files (default: a new one)")
    parser.add_argument(
        "--detach", action="store_true", help="leave it running; kill $LOCAL_HUB_PID ends it"
    )
    options = parser.parse_args()
    if options.detach:
        _detach([word for word in sys.argv[1:] if word != "--detach"])
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="local-hub-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with LocalHub(folder, port=options.port) as hub:
        known = {**hub.environment, "LOCAL_HUB_PID": str(os.getpid())}
        for name, value in known.items():
            print(f"export {name}={shlex.quote(value)}")
        print(flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _detach(arguments: list[str]) -> None:
    """Start another process, which serves, and print what it says at its start."""
    started = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert started.stdout is not None
    while (line := started.stdout.readline()).strip():
        sys.stdout.write(line)
    if started.poll() is not None:
        sys.exit(1)


if __name__ == "__main__":
    _main()
