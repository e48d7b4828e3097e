"""olah 0.5.4, a mirror of the Hub by other people, serving a git repository of this machine.

It reads commits that git made and ignores Range, as it does in the wild: a witness of what the local
Hub says, and a mirror not to be trusted. `make peers` installs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from absent import absent
from hub_repos import is_large, pointer

ROOT = Path(__file__).resolve().parents[3]
_AUTHOR = {
    "GIT_AUTHOR_NAME": "acme",
    "GIT_AUTHOR_EMAIL": "acme@example.com",
    "GIT_COMMITTER_NAME": "acme",
    "GIT_COMMITTER_EMAIL": "acme@example.com",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def require_olah() -> Path:
    """Return olah's Python; skip where it isn't installed, and fail where it must be."""
    python = Path(os.environ.get("PARENTAGE_OLAH", ROOT / ".peers/olah/bin/python"))
    if not python.exists():
        absent("olah", "make peers")
    return python


def commit_with_git(folder: Path, contents: Mapping[str, bytes]) -> str:
    """Make a repository in which git keeps contents, large ones as git-lfs does; return the commit."""
    folder.mkdir(parents=True)
    for path, data in contents.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_large(path, len(data)):
            sha256 = hashlib.sha256(data).hexdigest()
            kept = folder / ".git/lfs/objects" / sha256[:2] / sha256[2:4] / sha256
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            data = pointer(sha256, len(data))  # noqa: PLW2901
        target.write_bytes(data)
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message", "contents")
    return _git(folder, "rev-parse", "HEAD").strip()


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **_AUTHOR},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextlib.contextmanager
def running_olah(folder: Path) -> Iterator[str]:
    """Serve the repositories below a folder's `models/<org>/<name>`; give the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "olah.toml"
    config.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{folder}/cache"\n'
        f'mirrors-path = ["{folder}"]\n[accessibility]\noffline = true\n'
    )
    with (folder / "olah.log").open("w") as log:
        process = subprocess.Popen(
            [
                require_olah(),
                "-m",
                "olah.server",
                "--config",
                config,
                "--log-path",
                folder / "logs",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/", process, folder / "olah.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as answered:
            answered.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text()[-2000:])
