"""A command in a fork says what it says in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import forked
import pytest

CASE = Path(__file__).parent / "vectors" / "honest-linear"
VERIFY = ["verify", str(CASE / "release"), "--key", str(CASE / "release.pub")]


@pytest.mark.parametrize(
    "words",
    [
        [*VERIFY, "--level", "integrity"],
        [*VERIFY, "--level", "integrity", "--json"],
        [*VERIFY, "--level", "nonsense"],
        ["verify", str(CASE / "nowhere"), "--key", str(CASE / "release.pub")],
        ["--version"],
    ],
)
def test_a_fork_is_like_a_process(words: list[str], tmp_path: Path) -> None:
    whole = subprocess.run(
        [sys.executable, "-m", "parentage", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    fork = forked.run(words, dict(os.environ), timeout=60, cwd=tmp_path)

    assert (fork.returncode, fork.stdout, fork.stderr) == (
        whole.returncode,
        whole.stdout,
        whole.stderr,
    )
    assert whole.stdout or whole.stderr


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1300, reason="too few open files are allowed"
)
def test_many_open_files_are_no_matter() -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert forked.run(["--version"], dict(os.environ), timeout=60).returncode == 0
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_what_is_read_before_a_fork_is_no_matter_for_forks() -> None:
    assert forked.possible(["verify"], {"PARENTAGE_PASSPHRASE": "x"}, {"cwd": "."})
    assert not forked.possible(["verify"], {"PYTHONPATH": "x"}, {})
    assert not forked.possible(["verify"], {}, {"preexec_fn": print})
