"""Logs of samples: JSON lines, by digest; and the log-likelihood requests in them.

The shape is lm-evaluation-harness's `samples_*.jsonl`: a line for each document (and filter), with the
arguments of its requests and the answers to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest.statements.benchmark import SampleLog
from parentage.manifest import canonical
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import get, number

MAX_LOG: Final = 8 << 30
MAX_LINE: Final = 16 << 20


class Request(msgspec.Struct, frozen=True):
    """A log-likelihood that was asked for.

    Attributes:
        where: line and number in it.
        context, continuation: the texts.
        logged: log-likelihood of the continuation given the context, nats.
    """

    where: str
    context: str
    continuation: str
    logged: Decimal


class Log(msgspec.Struct, frozen=True):
    """A log, read once.

    Attributes:
        log: its digest and lines.
        requests: log-likelihood requests in it.
        others: answers that are no log-likelihood of a continuation: they can't be scored again.
    """

    log: SampleLog
    requests: int
    others: int


def digest_log(path: Path) -> SampleLog:
    """Return digest and number of lines of a log.

    Raises:
        ResultsError: it can't be read, is empty, or is too large.
    """
    return _scan(path, lambda _line, _where: None)


def read_log(path: Path) -> Log:
    """Count what a log holds.

    Raises:
        ResultsError, JsonError: it is no log of samples.
    """
    found: list[int] = [0, 0]

    def visit(line: bytes, where: str) -> None:
        requests, others = _requests(line, where)
        found[0] += len(requests)
        found[1] += others

    log = _scan(path, visit)
    return Log(log, *found)


def pick(path: Path, wanted: Collection[int], log: SampleLog) -> list[Request]:
    """Return some requests of a log, in its order, counted from 0.

    Raises:
        ResultsError: the file is not any more the one that was counted.
    """
    chosen = frozenset(wanted)
    found: list[Request] = []
    at = 0

    def visit(line: bytes, where: str) -> None:
        nonlocal at
        for request in _requests(line, where)[0]:
            if at in chosen:
                found.append(request)
            at += 1

    if _scan(path, visit) != log or len(found) != len(chosen):
        raise ResultsError("log changed while it was read", where=str(path))
    return found


def _scan(path: Path, visit: Callable[[bytes, str], None]) -> SampleLog:
    digest, lines = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            for line in _lines(stream.readline, str(path)):
                digest.update(line)
                lines += 1
                if line.strip():
                    visit(line, f"{path}:{lines}")
    except OSError as error:
        raise ResultsError(f"can't read: {error.strerror}", where=str(path)) from error
    if not lines:
        raise ResultsError("log of no samples", where=str(path))
    return SampleLog(sha256=digest.hexdigest(), count=lines)


def _lines(readline: Callable[[int], bytes], where: str) -> Iterator[bytes]:
    total = 0
    while line := readline(MAX_LINE + 1):
        total += len(line)
        if len(line) > MAX_LINE or total > MAX_LOG:
            raise ResultsError(
                "log too large",
                where=where,
                expected=f"lines <= {MAX_LINE}, all <= {MAX_LOG} bytes",
            )
        yield line


def _requests(line: bytes, where: str) -> tuple[list[Request], int]:
    """Return the log-likelihood requests of a line, and how many others it has."""
    said = canonical.loads(line, where=where, max_bytes=MAX_LINE, floats=Decimal)
    asked, answers = get(said, "arguments"), get(said, "resps")
    if not isinstance(asked, (dict, list)) or not isinstance(answers, list):
        raise ResultsError(
            "not a sample with arguments and resps",
            where=where,
            hint="lm_eval --log_samples writes them",
        )
    given = list(asked.values()) if isinstance(asked, dict) else asked
    if len(given) != len(answers):
        raise ResultsError(
            "as many answers as requests",
            where=where,
            expected=str(len(given)),
            found=str(len(answers)),
        )
    found, others = [], 0
    for at, (arguments, answer) in enumerate(zip(given, answers, strict=True)):
        pair = list(arguments.values()) if isinstance(arguments, dict) else arguments
        one = answer[0] if isinstance(answer, list) and len(answer) == 1 else None
        if not _is_request(pair) or not isinstance(one, list) or len(one) != 2:
            others += 1
            continue
        place = f"{where}: request {at}"
        found.append(Request(place, pair[0], pair[1], Decimal(number(one[0], place))))
    return found, others


def _is_request(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
