"""A journal: whatever is torn, killed, foreign or open to others; and what is found is the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from worlds import MERGE, World, command

from parentage.manifest.errors import JournalError, WriteFailedError
from parentage.verify.journal import Journal
from parentage.verify.way import Way

INPUTS = {"release": "r", "lineage": "l"}


@given(
    st.dictionaries(st.text(max_size=20), st.integers(), max_size=8),
    st.integers(0, 1 << 12),
    st.one_of(st.none(), st.integers(0, 7)),
)
def test_any_cut_and_any_bit_leaves_whole_entries_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, int], at: int, bit: int | None
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    with Journal(path, INPUTS) as journal:
        for task, result in entries.items():
            journal.add(task, json.dumps(result).encode())
    data = bytearray(path.read_bytes())
    if bit is None:
        data = data[:at]
    elif at < len(data):
        data[at] ^= 1 << bit
    path.write_bytes(data)
    try:
        with Journal(path, INPUTS) as journal:
            known = {task: json.loads(result) for task, result in journal.known.items()}
            journal.add("more", b"1")
    except JournalError:
        assert bit is not None  # the first line only
        return

    order = list(entries.items())
    assert list(known.items()) == order[: len(known)]
    with Journal(path, INPUTS) as journal:
        assert journal.known.keys() == {*known, "more"}


def test_a_journal_of_other_inputs_is_refused_by_name(tmp_path: Path) -> None:
    Journal(tmp_path / "j", INPUTS).__exit__(None, None, None)
    before = (tmp_path / "j").read_bytes()

    with pytest.raises(JournalError, match="lineage differs"):
        Journal(tmp_path / "j", {**INPUTS, "lineage": "another"})
    assert (tmp_path / "j").read_bytes() == before


def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    for content in (b"a letter\n", b"a letter", b"0" * 32 + b" {}\n", b"\n"):
        (tmp_path / "j").write_bytes(content)
        (tmp_path / "j").chmod(0o600)
        with pytest.raises(JournalError, match="not a journal"):
            Journal(tmp_path / "j", INPUTS)
        assert (tmp_path / "j").read_bytes() == content


def _writable_by_others(path: Path) -> None:
    path.chmod(0o622)


def _a_link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to(path.with_name("target"))


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_writable_by_others, _a_link, _a_pipe, _a_folder])
def test_what_is_not_ours_alone_is_not_believed(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    Journal(tmp_path / "j", INPUTS).__exit__(None, None, None)
    spoil(tmp_path / "j")

    with pytest.raises((JournalError, WriteFailedError)):
        Journal(tmp_path / "j", INPUTS)


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", INPUTS), pytest.raises(JournalError, match="another process"):
        Journal(tmp_path / "j", INPUTS)


def test_a_resumed_report_is_the_same_bytes(world: World, tmp_path: Path) -> None:
    world.merge()
    whole = world.verify("merged", ["a", "b"]).to_json()
    way = Way(resume=tmp_path / "j")

    assert world.verify("merged", ["a", "b"], way=way).to_json() == whole
    lines = (tmp_path / "j").read_bytes()
    assert world.verify("merged", ["a", "b"], way=way).to_json() == whole
    assert (tmp_path / "j").read_bytes() == lines


def test_a_resumed_refutation_is_the_same_bytes(world: World, tmp_path: Path) -> None:
    """With an engine that leaves room, so that rungs below A are in the journal, too."""
    step = {**MERGE, "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"}}
    world.merge("merged", step)
    tensors = world.weights("merged")
    tensors["layers.2.w"].view(torch.int32)[5, 7] += 1 << 12
    world.save("merged", tensors)
    world.declare("merged", ["a", "b"], [step])
    whole = world.verify("merged", ["a", "b"])
    way = Way(resume=tmp_path / "j")

    assert whole.verdict == "refuted"
    assert world.verify("merged", ["a", "b"], way=way).to_json() == whole.to_json()
    assert world.verify("merged", ["a", "b"], way=way).to_json() == whole.to_json()
    assert b'"job\\":\\"lower' in (tmp_path / "j").read_bytes()


def test_a_chain_is_resumed_with_its_intermediate(world: World, tmp_path: Path) -> None:
    steps = world.chain("chained")
    whole = world.verify("chained", ["a", "b"]).to_json()
    way = Way(resume=tmp_path / "j")

    assert world.verify("chained", ["a", "b"], way=way).to_json() == whole
    assert world.verify("chained", ["a", "b"], way=way).to_json() == whole
    assert (tmp_path / "j").read_bytes().count(b"identify") == 5 * (len(steps) - 1)


def test_a_journal_of_another_release_is_refused(world: World, tmp_path: Path) -> None:
    world.merge()
    world.merge("other", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}})
    world.verify("merged", ["a", "b"], way=Way(resume=tmp_path / "j"))

    with pytest.raises(JournalError, match="the journal is of another run"):
        world.verify("other", ["a", "b"], way=Way(resume=tmp_path / "j"))
    with pytest.raises(JournalError, match="parents differs"):
        world.verify("merged", ["a"], way=Way(resume=tmp_path / "j"))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A merge that takes long enough to be killed in."""
    generator = np.random.default_rng(5)
    world = World(tmp_path)
    for name in ("a", "b"):
        tensors = {
            f"w{n:02}": generator.standard_normal((1024, 1024), np.float32) for n in range(40)
        }
        save_file(tensors, tmp_path / name / "model.safetensors")
    world.merge()
    (tmp_path / "k.pub").write_bytes(world.key.public.pem)
    return tmp_path


def verify(where: Path, *more: str) -> list[str]:
    return [
        "verify", str(where / "merged"), "--key", str(where / "k.pub"), "--device", "cpu", "--json",
        "--parent", str(where / "a"), "--parent", str(where / "b"), "--threads", "1", *more,
    ]  # fmt: skip


def test_kill_9_loses_only_what_was_unfinished(large: Path) -> None:
    whole = command(*verify(large)).stdout
    journal = large / "j"
    kept = b""
    for wanted in (3, 12, 25):
        process = subprocess.Popen(
            [sys.executable, "-m", "parentage", *verify(large, "--resume", str(journal))],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") <= wanted:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        lines = journal.read_bytes()
        assert lines.startswith(kept)
        kept = lines[: lines.rindex(b"\n") + 1]
    assert kept.count(b"\n") < 41

    done = command(*verify(large, "--resume", str(journal)))

    assert done.stdout == whole
    assert json.loads(whole)["verdict"] == "verified"
    # Nothing was done twice: a head, and one line for each of the 40 tensors.
    assert journal.read_bytes().startswith(kept)
    assert journal.read_bytes().count(b"\n") == 41


def test_no_room_for_the_journal(world: World, tmp_path: Path) -> None:
    import resource

    world.merge()
    (tmp_path / "k.pub").write_bytes(world.key.public.pem)
    done = command(
        *verify(tmp_path, "--resume", str(tmp_path / "j")),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )

    assert done.returncode == 4, done.stdout
    assert "write-failed" in done.stdout
