"""What a results file says, whatever harness wrote it."""

from __future__ import annotations

import msgspec

from parentage.attest.statements.benchmark import Harness, Score, Task


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A results file, read.

    Attributes:
        harness: that wrote it.
        media_type: of the file.
        tasks: each once.
        scores: exactly as they stand there.
        model: how it names the model: hints, never identities.
        started, finished: seconds since 1970, where it says so.
    """

    harness: Harness
    media_type: str
    tasks: tuple[Task, ...]
    scores: tuple[Score, ...]
    model: tuple[str, ...] = ()
    started: int | None = None
    finished: int | None = None
