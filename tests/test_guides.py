"""The guides are run as a new user would run them, and what they say is seen is seen."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDES = ["gate-your-uploads.md", "verify-a-download.md"]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HIDDEN = ("HF_", "HTTP", "http", "ALL_PROXY", "all_proxy")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder inside something like a checkout; whatever Hub was started in it is ended."""
    for name in ("examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "try").mkdir()
    yield tmp_path / "try"
    for name in (tmp_path / "try").glob("*.pid"):
        try:
            os.kill(int(name.read_text()), signal.SIGTERM)
        except ProcessLookupError:  # the guide ended it
            continue


@pytest.mark.parametrize("guide", GUIDES)
def test_a_new_user_sees_what_the_guide_says(guide: str, folder: Path) -> None:
    blocks = _BLOCK.findall((ROOT / "docs" / guide).read_text())
    script = "".join(text for kind, text in blocks if kind == "sh")
    script = script.replace('--detach)"\n', '--detach)"\necho "$LOCAL_HUB_PID" >hub.pid\n')
    assert "hub.pid" in script
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    seen = done.stdout
    expected = [
        line.strip() for kind, text in blocks if kind == "text" for line in text.splitlines()
    ]
    assert expected
    for line in expected:
        before, found, seen = seen.partition(line)
        assert found, f"{line}\n\nis not in\n\n{before[-3000:]}"
