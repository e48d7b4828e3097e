"""What tests of integrations share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate, parents, a release that holds and one that does not: what the example makes."""
    made = tmp_path_factory.mktemp("case") / "made"
    subprocess.run(
        [sys.executable, ROOT / "examples" / "ci_gate.py", "--make", made], check=True, timeout=120
    )
    return made


@pytest.fixture
def workspace(case: Path, tmp_path: Path) -> Path:
    """A checkout in which a job runs."""
    return Path(shutil.copytree(case, tmp_path / "workspace", dirs_exist_ok=True))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The folder of programs of an environment in which this checkout is installed."""
    folder = tmp_path / "installed" / "bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    script = f'#!/bin/sh\nexec "{sys.executable}" -m parentage "$@"\n'
    (folder / "parentage").write_text(script)
    (folder / "parentage").chmod(0o755)
    return folder
