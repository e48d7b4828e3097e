"""Ctrl-C, a full disk, a missing folder: a named error, the exit code, and nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from worlds import World, command

RECIPE = """
version: "0.1"
parents: [{id: a}, {id: b}]
steps:
  - {id: merge, op: weighted_sum/v1, inputs: [a, b], params: {weights: [0.6, 0.4], normalize: true},
     arithmetic: {profile: parentage-1}}
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tensors = {f"w{n}": np.full((1024, 4096), n, np.float32) for n in range(5)}
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "x"}')
    return tmp_path


def merge(where: Path) -> list[str]:
    return [
        sys.executable, "-m", "parentage", "merge", str(where / "recipe.yaml"), "-o", str(where / "out"),
        "--parent", f"a={where / 'a'}", "--parent", f"b={where / 'b'}", "--device", "cpu",
    ]  # fmt: skip


def names(where: Path) -> set[str]:
    return {path.name for path in where.iterdir()}


def start(where: Path) -> subprocess.Popen[str]:
    """Start a merge that hears Ctrl-C even if this process was started in the background."""
    return subprocess.Popen(
        merge(where),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def test_ctrl_c_in_the_middle_of_a_merge(workplace: Path) -> None:
    before = names(workplace)
    process = start(workplace)
    deadline = time.monotonic() + 60
    while not (workplace / ".out.partial").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)

    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert names(workplace) == before


def test_ctrl_c_at_any_time_leaves_all_or_nothing(workplace: Path) -> None:
    """Whatever the moment: while Python starts, while torch is imported, while files are written."""
    for delay in (0.05, 0.2, 0.5, 1.0, 1.3, 1.6):
        process = start(workplace)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

        assert not (workplace / ".out.partial").exists()
        assert (
            not (workplace / "out").exists() or (workplace / "out/.parentage/draft.json").exists()
        )
        shutil.rmtree(workplace / "out", ignore_errors=True)


def limited(size: int) -> Callable[[], None]:
    """Let the child write no file larger than `size`: what a full disk looks like to a program."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_no_room_for_the_merge(workplace: Path) -> None:
    before = names(workplace)
    done = command(*merge(workplace)[3:], preexec_fn=limited(1 << 20))

    assert done.returncode == 4, done.stderr
    assert "[write-failed]" in done.stderr
    assert "model.safetensors" in done.stderr
    assert names(workplace) == before


def test_no_room_for_the_table(world: World) -> None:
    done = command("declare", world.root / "a", "--observed", preexec_fn=limited(100))

    assert done.returncode == 4
    assert "tensors.jsonl" in done.stderr
    assert list((world.root / "a" / ".parentage").iterdir()) == []


def test_no_room_for_the_signature(world: World) -> None:
    (world.root / "k").write_bytes(world.key.to_pem(None))
    assert command("declare", world.root / "a", "--observed").returncode == 0
    done = command("sign", world.root / "a", "--key", world.root / "k", preexec_fn=limited(600))

    assert done.returncode == 4
    assert not (world.root / "a" / "model.sig").exists()
    # The draft is still there, so that the same command may be given again.
    assert command("sign", world.root / "a", "--key", world.root / "k").returncode == 0


def test_a_place_that_can_not_be_written(workplace: Path) -> None:
    (workplace / "file").write_text("")
    arguments = merge(workplace)[3:]
    arguments[arguments.index(str(workplace / "out"))] = str(workplace / "file" / "out")
    done = command(*arguments)

    assert done.returncode == 4
    assert "[write-failed]" in done.stderr


def test_a_file_that_may_not_be_read(world: World) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (world.root / "a" / "model.safetensors").chmod(0)
    done = command("declare", world.root / "a", "--observed")

    assert done.returncode == 1
    assert "can't open" in done.stderr


def test_the_reader_of_our_output_goes_away(world: World) -> None:
    release = world.merge()
    done = subprocess.run(  # noqa: S602
        f"{sys.executable} -m parentage show {release} --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
