"""Observe a benchmark run: the weights digested before and after, and whatever touched them found.

What this shows: the command was given this release, no file of it was written meanwhile, and these results
appeared. What it does not: that the command read the weights, or that its program is honest.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import clock
from parentage.attest.claims import Found
from parentage.attest.statements.benchmark import (
    MAX_ARGUMENTS,
    Environment,
    Observed,
)
from parentage.attest.trust import Trust
from parentage.manifest import canonical
from parentage.manifest.errors import CannotRunError, FileSetError, ResultsError, UsageError
from parentage.verify.benchmarks import isolation
from parentage.verify.benchmarks.claim import Bound, bound, claim
from parentage.verify.benchmarks.documents import read_file
from parentage.verify.benchmarks.readers import read_results
from parentage.verify.benchmarks.result import Result
from parentage.verify.benchmarks.samples import digest_log
from parentage.verify.benchmarks.traces import matching, new_files, one_new, stamps, untouched
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination
from parentage.verify.loading import RefusedError

#: Stands for the release's path in the command, and in what is recorded of it.
RELEASE: Final = "{release}"
_DISTRIBUTION: Final = re.compile(r"(.+)\.dist-info")


class HarnessFailedError(CannotRunError):
    """The benchmark command ended with an error; nothing was signed.

    Attributes:
        status: its exit code, or 128 and the signal's number.
    """

    code = "harness-failed"

    def __init__(self, status: int, command: str) -> None:
        self.status = status
        super().__init__(
            "the command failed, and nothing was signed",
            where=command,
            expected="exit code 0",
            found=str(status),
        )


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and where it leaves what.

    Attributes:
        argv: the command; `{release}` in it is replaced by the release's path.
        results: pattern of the results file, from the current folder.
        samples: patterns of logs.
        words: for people.
    """

    argv: tuple[str, ...]
    results: str
    samples: tuple[str, ...] = ()
    words: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        payload: of the statement, to be signed.
        isolation: that was had.
        results: the file.
        result: what it says.
        logs: how many.
    """

    payload: bytes
    isolation: isolation.Kind
    results: Path
    result: Result
    logs: int


def observe(release: Path, run: Run, trust: Trust, *, demands: Demands | None = None) -> Outcome:
    """Run a benchmark on a release between two digests of all of it.

    Args:
        release: its folder.
        run: the command.
        trust: whom to believe about the release.
        demands: threads and progress of the digests.

    Raises:
        UsageError: the command does not name the release, can't be found, or holds a secret.
        RefusedError: the release is not what was signed, before or after.
        HarnessFailedError: the command failed.
        FileSetError: a file of the release was written meanwhile, whatever is in it now.
        ResultsError, JsonError: no new results file, several, or one that can't be read.
    """
    folder = release.resolve()
    argv, program = _command(run.argv, release, folder)
    before, stamped = _digested(release, trust, demands), stamps(folder)
    there = {pattern: matching(pattern) for pattern in (run.results, *run.samples)}
    walls = isolation.strongest()
    started = clock.now()
    status = _run([*walls.prefix, *argv])
    if status:
        raise HarnessFailedError(status, argv[0])
    finished = clock.now()
    after = _digested(release, trust, demands)
    untouched(stamped, stamps(folder))
    if after.named() != before.named():
        raise FileSetError("another release lies here after the run", where=str(release))
    path = one_new(run.results, there[run.results])
    logs = [log for pattern in run.samples for log in new_files(pattern, there[pattern])]
    return _said(release, run, before, path, logs, program, walls.kind, (started, finished))


def _said(
    release: Path,
    run: Run,
    named: Bound,
    path: Path,
    logs: Sequence[Path],
    program: Path,
    kind: isolation.Kind,
    times: tuple[datetime, datetime],
) -> Outcome:
    data = read_file(path)
    result = read_results(data, str(path))
    _check_model(result, release)
    payload = claim(
        named,
        result,
        data,
        samples=[digest_log(log) for log in logs],
        times=times,
        observed=Observed(
            argv=_recorded(run.argv, release), isolation=kind, environment=_environment(program)
        ),
        words=run.words,
    )
    return Outcome(payload, kind, path, result, len(logs))


def _command(given: Sequence[str], release: Path, folder: Path) -> tuple[list[str], Path]:
    """Return the arguments with the release's path in them, and the program's file."""
    if not given or len(given) > MAX_ARGUMENTS:
        raise UsageError("no command to run, or too many arguments", hint="-- COMMAND ARGUMENT…")
    argv = [argument.replace(RELEASE, str(folder)) for argument in given]
    if not any(str(folder) in argument or str(release) in argument for argument in argv[1:]):
        raise UsageError(
            "the command does not name the release",
            expected=f"{RELEASE} in an argument",
            found=" ".join(given),
            hint=f"-- lm_eval --model hf --model_args pretrained={RELEASE} …",
        )
    held = isolation.secrets_in(argv)
    if held:
        raise UsageError(
            "an argument looks like a secret, and arguments are published",
            where=f"argument {held[0]}",
            hint="let the program read it from a file",
        )
    found = shutil.which(argv[0])
    if found is None:
        raise UsageError("no such program", found=argv[0])
    return argv, Path(found)


def _recorded(given: Sequence[str], release: Path) -> tuple[str, ...]:
    paths = sorted({str(release.resolve()), str(release)}, key=len, reverse=True)
    found = []
    for argument in given:
        for path in paths:
            if len(path) > 1:
                argument = argument.replace(path, RELEASE)  # noqa: PLW2901
        found.append(argument)
    return tuple(found)


def _digested(release: Path, trust: Trust, demands: Demands | None) -> Bound:
    seen: list[Bound] = []

    def told(one: Seen) -> None:
        seen.append(bound(one.signature, Found(one.lineage, one.statement)))

    asked = msgspec.structs.replace(demands or Demands(), level="integrity", whole_files=True)
    report = examination(release, trust, asked, lambda _state, _seen: None, told=told)
    if not report.verified or not seen:
        raise RefusedError(report)
    return seen[0]


def _run(argv: Sequence[str]) -> int:
    """Run a command; what it prints is the story, not the result."""
    sys.stderr.flush()
    with subprocess.Popen(  # noqa: S603  (the command that was asked for; no shell)
        argv, stdin=subprocess.DEVNULL, stdout=_stderr(), env=isolation.environment(os.environ)
    ) as child:
        status = child.wait()
    return 128 - status if status < 0 else status


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError):  # a test's, or nobody's
        return subprocess.DEVNULL


def _check_model(result: Result, release: Path) -> None:
    """Refuse results that name a model, and not this one."""
    folder = release.resolve()
    if result.model and not any(_is(name, folder) for name in result.model):
        raise ResultsError(
            "the results are of another model",
            expected=str(folder),
            found=", ".join(result.model),
            hint=f"name the release in the command: {RELEASE}",
        )


def _is(name: str, folder: Path) -> bool:
    parts = (name, name.partition("/")[2])  # "hf/PATH", as inspect_ai has it
    return any(part and Path(part).resolve() == folder for part in parts)


def _environment(program: Path) -> Environment:
    """Return what can be said of a program without running it."""
    beside = sorted(
        found.group(1)
        for path in program.parent.parent.glob("lib/python3*/site-packages/*.dist-info")
        if (found := _DISTRIBUTION.fullmatch(path.name))
    )
    with program.open("rb") as stream:
        executable = hashlib.file_digest(stream, "sha256").hexdigest()
    listed = hashlib.sha256(canonical.dumps(beside)).hexdigest() if beside else None
    return Environment(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        executable=executable,
        packages=listed,
        distributions=len(beside),
    )
