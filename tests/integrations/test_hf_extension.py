"""`hf parentage`: the Hub's own command line hands over, and hands the exit code back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_rig import LocalHub
from hubs import outside

SHIM = Path(__file__).parents[2] / "integrations" / "hf-parentage" / "hf-parentage"
BIN = Path(sys.executable).parent


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """A home in which the extension is installed, as `hf extensions install` leaves it."""
    folder = tmp_path / ".local/share/hf/extensions/hf-parentage"
    folder.mkdir(parents=True)
    (folder / "hf-parentage").symlink_to(SHIM)
    manifest = {
        "owner": "acme",
        "repo": "hf-parentage",
        "repo_id": "acme/hf-parentage",
        "short_name": "parentage",
        "executable_path": str(folder / "hf-parentage"),
        "type": "binary",
        "installed_at": "2026-01-01T00:00:00+00:00",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def hf(hub: LocalHub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    changes = {
        "HOME": str(home),
        "PATH": f"{BIN}{os.pathsep}/usr/bin:/bin",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }
    return subprocess.run(
        [BIN / "hf", *arguments],
        env=outside(hub, **changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_output_and_exit_code_come_through(hub: LocalHub, registered: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = hf(hub, registered, "parentage", "show", str(tmp_path / "empty"), "--json")
    own = subprocess.run(
        [BIN / "parentage", "show", tmp_path / "empty", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (own.returncode, own.stdout)
    assert done.returncode == 3
    assert "parentage" in hf(hub, registered, "--help").stdout


def test_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [SHIM, "verify"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "pip install 'parentage[hub]'" in done.stderr) == (2, True)
