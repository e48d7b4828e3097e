"""The same tasks on Ray, for real, on this machine: the same bytes, also when a worker is killed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from worlds import MERGE, World, command

pytest.importorskip("ray", reason="needs Ray: pip install 'parentage[ray]'")


def verify(where: Path, *more: str) -> list[str]:
    return [
        "verify", str(where / "merged"), "--key", str(where / "k.pub"), "--device", "cpu", "--json",
        "--parent", str(where / "a"), "--parent", str(where / "b"), "--threads", "2", *more,
    ]  # fmt: skip


def children(root: int) -> Iterator[int]:
    """Yield the processes below one, from /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    known = {root}
    for _ in range(8):
        known |= {pid for pid, parent in parents.items() if parent in known}
    yield from sorted(known - {root})


def workers(root: int) -> list[int]:
    """Return Ray's worker processes that are at a task of ours."""
    found = []
    for pid in children(root):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::_perform"):
            found.append(pid)
    return found


def listening(root: int) -> set[str]:
    """Return the addresses, in /proc's hex, that a process and those below it listen on."""
    sockets: set[str] = set()
    for pid in [root, *children(root)]:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                sockets.add(os.readlink(link))  # noqa: PTH115
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.fixture
def large(world: World) -> Path:
    generator = np.random.default_rng(5)
    for name in ("a", "b"):
        tensors = {
            f"w{n:02}": generator.standard_normal((1024, 1024), np.float32) for n in range(60)
        }
        save_file(tensors, world.root / name / "model.safetensors")
    world.merge()
    (world.root / "k.pub").write_bytes(world.key.public.pem)
    return world.root


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_killed_worker_loses_nothing(large: Path) -> None:
    whole = command(*verify(large)).stdout
    journal = large / "j"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "parentage",
            *verify(large, "--engine", "ray", "--resume", str(journal)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    killed: list[int] = []
    while not killed:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        if journal.exists() and journal.read_bytes().count(b"\n") > 5:
            heard = listening(process.pid)
            for pid in workers(process.pid)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        time.sleep(0.001)
    done = journal.read_bytes().count(b"\n")
    stdout, _ = process.communicate(timeout=240)

    assert done < 61
    # 127.0.0.1, as IPv4 and as IPv6 writes it: nobody else can reach what Ray opens.
    assert heard
    assert heard <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert stdout == whole
    assert json.loads(stdout)["verdict"] == "verified"
    assert journal.read_bytes().count(b"\n") == 61


def test_a_refutation_on_ray_is_the_same_bytes(world: World) -> None:
    """With an engine that leaves room, so that workers do what is below rung A, too."""
    step = {**MERGE, "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"}}
    world.merge("merged", step)
    tensors = world.weights("merged")
    flat = tensors["layers.2.w"].numpy().view(np.int32)
    flat[5, 7] += 1 << 12
    world.save("merged", tensors)
    world.declare("merged", ["a", "b"], [step])
    (world.root / "k.pub").write_bytes(world.key.public.pem)

    whole = command(*verify(world.root))
    on_ray = command(*verify(world.root, "--engine", "ray"))

    assert whole.returncode == on_ray.returncode == 1, on_ray.stderr
    assert on_ray.stdout == whole.stdout


def test_a_chain_on_ray_is_the_same_bytes(world: World) -> None:
    world.chain("merged")
    (world.root / "k.pub").write_bytes(world.key.public.pem)

    assert (
        command(*verify(world.root, "--engine", "ray")).stdout
        == command(*verify(world.root)).stdout
    )


def test_a_file_replaced_after_it_was_hashed_is_refused(world: World) -> None:
    """What a worker opens must be what was hashed: the same inode, size and time."""
    from parentage.manifest.errors import FileSetError
    from parentage.manifest.model import open_model
    from parentage.verify.on_ray import _opened, _place

    with open_model(world.root / "a") as model:
        place = _place(model)
    _opened(place).files.close()
    weights = world.root / "a" / "model.safetensors"
    copy = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(copy)

    with pytest.raises(FileSetError, match="other files than those that were hashed"):
        _opened(place)


def test_without_ray_it_says_what_to_install(world: World, tmp_path: Path) -> None:
    world.merge()
    (world.root / "k.pub").write_bytes(world.key.public.pem)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "ray.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')"
    )
    path = os.pathsep.join([str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")])
    done = command(*verify(world.root, "--engine", "ray"), env={"PYTHONPATH": path})

    assert done.returncode == 4
    assert "parentage[ray]" in done.stdout


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster of two nodes on this machine that asks for a token, as `ray start` sets it up."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    # Sockets lie in the temporary folder, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray-")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    outside = os.environ | token | {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    ray += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    heads = ["--head", f"--port={address.partition(':')[2]}", f"--temp-dir={folder}"]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for more in ([*heads, "--include-dashboard=false"], [f"--address={address}"]):
            log = tmp_path / f"node-{len(nodes)}"
            with log.open("wb") as stream:
                nodes.append(
                    subprocess.Popen([*ray, *more], env=outside, stdout=stream, stderr=stream)
                )
            deadline = time.monotonic() + 120
            while "Ray runtime started" not in log.read_text():
                assert nodes[-1].poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield address, token
    finally:
        for node in reversed(nodes):
            below = list(children(node.pid))
            node.terminate()
            node.wait(60)
            for pid in below:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_of_two_nodes_gives_the_same_report(
    world: World, two_nodes: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.merge()
    (world.root / "k.pub").write_bytes(world.key.public.pem)
    whole = command(*verify(world.root)).stdout
    address, token = two_nodes
    for name, value in token.items():
        monkeypatch.setenv(name, value)

    there = command(*verify(world.root, "--engine", "ray", "--ray-address", address))

    assert there.stdout == whole
    assert json.loads(whole)["verdict"] == "verified"
