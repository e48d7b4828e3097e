"""OpenCompass: `summary_*.csv` (its summarizers/default.py; 0.5.4): one column for each model."""

from __future__ import annotations

import csv
import io
from typing import Final

from parentage.attest.statements.benchmark import Harness, Score, Task
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import Document, name, number, word
from parentage.verify.benchmarks.result import Result

NAME: Final = "opencompass"
_COLUMNS: Final = ["dataset", "version", "metric", "mode"]
_ABSENT: Final = "-"


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    return document.kind == "text" and document.value.startswith(",".join(_COLUMNS) + ",")


def read(document: Document) -> Result:
    """Read the summary of one model.

    Raises:
        ResultsError: it is of several models, or breaks its format.
    """
    where = document.where
    lines = list(csv.reader(io.StringIO(document.value, newline="")))
    head = lines[0]
    if len(head) != len(_COLUMNS) + 1:
        raise ResultsError(
            "summary of several models",
            where=where,
            expected="one",
            found=", ".join(head[len(_COLUMNS) :]),
            hint="summarise each model by itself",
        )
    tasks: dict[str, Task] = {}
    scores = []
    for at, line in enumerate(lines[1:], 2):
        place = f"{where}:{at}"
        if len(line) != len(head):
            raise ResultsError("line of another length", where=place, found=str(len(line)))
        task, version, metric, mode, value = line
        if value == _ABSENT or not version:  # a heading, or a task that was not run
            continue
        tasks[task] = Task(id=name(task, place), version=word(version, place))
        scores.append(
            Score(
                task=task,
                metric=name(metric, place),
                filter=word(mode, place),
                value=number(value, place),
            )
        )
    return Result(
        harness=Harness(name=NAME),
        media_type="text/csv",
        tasks=tuple(tasks.values()),
        scores=tuple(scores),
        model=(name(head[-1], where),),
    )
