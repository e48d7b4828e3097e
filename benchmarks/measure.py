"""Run commands side by side: whole processes, interleaved, medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Sample:
    """One finished process: seconds of wall and CPU, peak resident MB, and what it printed."""

    wall: float
    cpu: float
    rss: float
    output: str


@dataclass
class Case:
    """A command to measure; `inner` means that it prints {"seconds": ...} itself."""

    name: str
    command: Sequence[str]
    inner: bool = False
    accept: tuple[int, ...] = (0,)
    cold: Sequence[Path] = ()
    samples: list[Sample] = field(default_factory=list)

    def run(self) -> None:
        os.sync()  # what the case before wrote is not written back during this one
        drop(self.cold)
        read, write = os.pipe()
        start = time.perf_counter()
        process = subprocess.Popen(self.command, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        with os.fdopen(read) as stream:
            output = stream.read()
        error = process.stderr.read().decode() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in self.accept:
            sys.exit(f"{self.name}: exit {process.returncode}\n{output[-2000:]}{error[-3000:]}")
        self.samples.append(
            Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)
        )

    @property
    def seconds(self) -> float:
        if self.inner:
            return statistics.median(
                json.loads(s.output.splitlines()[-1])["seconds"] for s in self.samples
            )
        return statistics.median(s.wall for s in self.samples)

    @property
    def cpu(self) -> float:
        return statistics.median(s.cpu for s in self.samples)

    @property
    def rss(self) -> float:
        if self.inner:
            return statistics.median(
                json.loads(s.output.splitlines()[-1]).get("rss", 0) for s in self.samples
            )
        return statistics.median(s.rss for s in self.samples)


def drop(files: Sequence[Path]) -> None:
    """Drop files from the page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def interleave(cases: Sequence[Case], rounds: int) -> None:
    """Run A B C A B C ...; one uncounted round first, which also compiles what is not compiled yet."""
    # Peers were compiled by pip; a checkout that may not be is compared by its compiler otherwise.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for number in range(rounds + 1):
        for case in cases:
            case.run()
            if number == 0:
                case.samples.clear()


@dataclass
class Row:
    """One line of the table: a ratio against a goal."""

    what: str
    ours: str
    peer: str
    ratio: float
    goal: str
    met: bool

    def __str__(self) -> str:
        return f"| {self.what} | {self.ours} | {self.peer} | {self.ratio:.2f} | {self.goal} | {'yes' if self.met else '**no**'} |"


HEAD = "| what | ours | against | ratio | goal | met |\n|---|---|---|---|---|---|"
