"""What tests of the command line share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from boards import Board, make
from commandline import Run, ok

from parentage.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process and return exit code, stdout and stderr."""

    def runner(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(left.value.code or 0), out, err

    return runner


@pytest.fixture(scope="session")
def finished_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with a verifier's word, made once."""
    return make(tmp_path_factory.mktemp("board"))


@pytest.fixture
def board(finished_board: Path, tmp_path: Path, run: Run) -> Board:
    """A copy of it whose scores `lab` signed, and a gate."""
    shutil.copytree(finished_board, tmp_path / "w")
    found = Board(tmp_path / "w", run)
    found.gate()
    ok(run("bench", "attach", found.release, found.results, "--key", found.root / "lab.key",
           "--publisher", found.root / "owner.pub"))  # fmt: skip
    return found
