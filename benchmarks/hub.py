"""What a release on a Hub costs to check: a local Hub, 94 shards, whole processes.

    python benchmarks/hub.py [--only remote|pull] [--shard-mb 8] [--rounds N]

The Hub is tests/rigs/hub, in this process; what it counted itself is printed beside what the command says.
To add a row: a function of `Scene`, and its name in ROWS.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "rigs" / "hub"))
from data import block
from hub_rig import LocalHub
from measure import HEAD, Case, Row
from run import parentage

from parentage.manifest.tensor import TensorSpec
from parentage.manifest.writer import write_file, write_index

SHARDS = 94
TENSORS = 64  # a shard
REPO = "bench/rio"
LARGE = 1 << 30


@dataclass
class Scene:
    """A signed release on a Hub.

    Attributes:
        hub: where it lies, as REPO.
        folder: the same files.
        key: public, of its signer.
        work: a folder for whatever a row needs.
        rounds: how often to measure.
        weights: bytes of its shards.
    """

    hub: LocalHub
    folder: Path
    key: Path
    work: Path
    rounds: int
    weights: int

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a process needs to use this Hub and no other."""
        return {**os.environ, **self.hub.environment, **more}

    def command(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[float, str]:
        """Run `parentage`; return seconds of wall time and what it printed."""
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "parentage", *arguments],
            env=dict(env or self.environment()),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(
                f"{arguments}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return time.perf_counter() - start, done.stdout


def remote(scene: Scene) -> list[Row]:
    """Check without a download, with and without slices."""
    return [_remote(scene, 0), _remote(scene, 32)]


def _remote(scene: Scene, slices: int) -> Row:
    more = ["--slices", str(slices)] if slices else []
    seconds: list[float] = []
    for _ in range(scene.rounds):
        scene.hub.log.clear()
        took, out = scene.command(
            *("verify", f"hf://{REPO}", "--key", str(scene.key), "--level", "remote", "--json"),
            *more,
        )
        seconds.append(took)
    found: dict[str, Any] = json.loads(out)["remote"]
    counted = len(scene.hub.log.requests), scene.hub.log.sent()
    if (found["requests"], found["bytes"]) != counted:
        sys.exit(f"the command says {found}, the Hub counted {counted}")
    share = 100 * found["bytes"] / scene.weights
    what = f"check {SHARDS} shards without a download" + (
        f", {slices} slices of 1 MiB" if slices else ""
    )
    routes = ", ".join(f"{n} {route}" for route, n in sorted(scene.hub.log.counts().items()))
    print(f"{what}: {found['requests']} requests ({routes}), {found['bytes']:,} bytes")
    goal = 1.0 if not slices else 1.0 + 100 * slices * (1 << 20) / scene.weights
    return Row(
        what,
        f"{found['requests']} requests, {found['bytes'] / 1e6:.1f} MB, {statistics.median(seconds):.2f} s",
        f"{scene.weights / 1e6:.0f} MB of weights",
        share,
        f"<= {goal:.2f} %",
        share <= goal,
    )


def pull(scene: Scene) -> list[Row]:
    """Download and verify, beside `hf download` of the same files, in turn; both over HTTP, without Xet."""
    large = scene.work / "large"
    release(large, LARGE, shards=1)
    parentage("sign", str(large), "--observed", "--key", str(scene.key.with_suffix(".key")))
    scene.hub.put_folder("bench/large", large)
    many = f"{SHARDS} files of {scene.weights / SHARDS / 1e6:.0f} MB"
    return [
        _pull(scene, REPO, many),
        _pull(scene, "bench/large", f"one file of {LARGE / 1e6:.0f} MB"),
    ]


def _pull(scene: Scene, repo: str, what: str) -> Row:
    hf = str(Path(sys.executable).with_name("hf"))
    ours, theirs = scene.work / "ours", scene.work / "theirs"
    pulling = (sys.executable, "-m", "parentage", "pull", f"hf://{repo}", "--key", str(scene.key))
    cases = [
        Case("pull", [*pulling, "-o", str(ours)]),
        Case("hf download", [hf, "download", repo, "--local-dir", str(theirs)]),
    ]
    with patched(scene.environment()):
        for turn in range(scene.rounds + 1):  # the first round warms up both, and is not counted
            for case in cases if turn % 2 else reversed(cases):
                case.run()
                shutil.rmtree(ours, ignore_errors=True)
                shutil.rmtree(theirs, ignore_errors=True)
            if not turn:
                for case in cases:
                    case.samples.clear()
    mine, peer = cases
    print(f"pull {what}: CPU {mine.cpu:.2f} s, hf download {peer.cpu:.2f} s (medians)")
    ratio = peer.seconds / mine.seconds
    return Row(
        f"pull and verify {what}",
        f"{mine.seconds:.2f} s",
        f"hf download {peer.seconds:.2f} s",
        ratio,
        ">= 0.9 of its speed",
        ratio >= 0.9,
    )


@contextmanager
def patched(environment: Mapping[str, str]) -> Iterator[None]:
    """Run processes in an environment."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


ROWS: dict[str, Callable[[Scene], list[Row]]] = {"remote": remote, "pull": pull}


def release(folder: Path, shard_bytes: int, *, shards: int = SHARDS) -> int:
    """Write shards of bf16 numbers, and return their bytes."""
    folder.mkdir(parents=True)
    base, rows = block(3), max(shard_bytes // TENSORS // 2048, 1)
    plan = {
        f"model-{s + 1:05}-of-{shards:05}.safetensors": [
            TensorSpec(f"model.layers.{s}.mlp.experts.{t}.down_proj.weight", "BF16", (rows, 1024))
            for t in range(TENSORS)
        ]
        for s in range(shards)
    }
    nbytes = rows * 2048
    for number, (name, part) in enumerate(plan.items()):
        pieces = (
            (number * TENSORS + t).to_bytes(4, "little")
            + base[4:nbytes]
            + bytes(nbytes)[len(base) :]
            for t in range(TENSORS)
        )
        write_file(folder / name, part, pieces, {"format": "pt"})
    write_index(folder, plan)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "tokenizer.json").write_text(json.dumps({str(i): i for i in range(30_000)}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=sorted(ROWS))
    parser.add_argument("--shard-mb", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parentage-bench-") as name:
        work = Path(name)
        folder, private, public = work / "rio", work / "k.key", work / "k.pub"
        parentage("keygen", "-o", str(private), "--no-passphrase")
        weights = release(folder, given.shard_mb << 20)
        parentage("sign", str(folder), "--observed", "--key", str(private))
        with LocalHub(work / "hub") as hub:
            hub.put_folder(REPO, folder)
            scene = Scene(hub, folder, public, work, given.rounds, weights)
            rows = [r for name, f in ROWS.items() if given.only in {None, name} for r in f(scene)]
    print(
        f"\n{platform.machine()}, {os.cpu_count()} cores, {SHARDS} shards of {given.shard_mb} MB\n"
    )
    print(HEAD)
    for row in rows:
        print(row)
    sys.exit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
