"""The loopback Sigstore, from Python: started once a session, ended when pytest is.

`make rig` installs what it needs. Without it tests that use it are skipped, and fail where CI=true.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
CONFIG_TYPE = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
ISSUER = "https://accounts.example"
ALICE = "alice@example.com"


def require_node() -> str:
    """Return Node's path; skip where the rig can't run, and fail where it must."""
    node = shutil.which("node")
    missing = None if node else "Node is not installed"
    if node and not (HERE / "node_modules" / ".package-lock.json").exists():
        missing = "the rig's packages are not installed"
    if missing is None:
        assert node is not None
        return node
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing}: make rig")
    pytest.skip(f"{missing}: make rig")


class Rig:
    """A running Sigstore.

    Attributes:
        url: of every service.
        root: the trusted root, as a verifier is given it.
    """

    def __init__(self, node: str) -> None:
        self._process = subprocess.Popen(
            [node, "server.cjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the rig did not start; its standard error says why"
        held = json.loads(line)
        self.url: str = held["url"]
        self._held = held
        self.root = json.dumps(held["trustedRoot"]).encode()

    def config(self, version: int, **changes: Any) -> bytes:
        """Return the client trust config whose log is Rekor v1 or v2."""
        signing = {**self._held["signingConfig"][str(version)], **changes}
        document = {
            "mediaType": CONFIG_TYPE,
            "trustedRoot": self._held["trustedRoot"],
            "signingConfig": signing,
        }
        return json.dumps(document).encode()

    def mint(self, **claims: Any) -> str:
        """Return an identity token; Alice's, where nothing else is said."""
        alice = {"sub": "u1", "email": ALICE, "email_verified": True, "iss": ISSUER}
        token: str = self._post("/mint", claims or alice)["token"]
        return token

    def login(self, **claims: Any) -> None:
        """Say who signs in next in a browser."""
        self._post("/login", claims)

    def skew(self, **seconds: int) -> None:
        """Put a service's clock off; the others' right."""
        self._post("/skew", {"fulcio": 0, "rekor": 0, "tsa": 0, **seconds})

    def fault(self, *faults: dict[str, Any]) -> None:
        """Break services, for ever where `times` is not given; mend all others."""
        self._post("/fault", [{"times": -1, **fault} for fault in faults])

    def hits(self) -> list[str]:
        """Return the paths that met a fault."""
        with urllib.request.urlopen(f"{self.url}/fault") as answer:
            hits: list[str] = json.load(answer)["hits"]
            return hits

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _post(self, path: str, document: object) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(document).encode())
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


def judge(cases: Iterable[tuple[bytes, bytes, str, str]]) -> list[dict[str, Any]]:
    """Ask @sigstore/verify about (root, bundle, identity, issuer), in one process."""
    lines = "".join(
        json.dumps(
            {"root": root.decode(), "bundle": data.decode(), "identity": who, "issuer": issuer}
        )
        + "\n"
        for root, data, who, issuer in cases
    )
    done = subprocess.run(
        [require_node(), "verify.cjs"],
        cwd=HERE,
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
