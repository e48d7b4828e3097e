"""The example is run as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wrong_weights_stay_out_and_right_ones_land() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "ci_gate.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = done.stdout.split("Pull request 2")
    assert "[recipe-mismatch]" in first
    assert "exit 1: not merged" in first
    assert "exit 0: merged" in second
    assert "On main now: .parentage/" in second
