"""The Hub's `.eval_results/*.yaml` (hub-docs eval_results.yaml): a list of data sets and values."""

from __future__ import annotations

from typing import Final

from parentage.attest.statements.benchmark import Harness, Score, Task
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import Document, name, number, rows, table, word
from parentage.verify.benchmarks.result import Result

NAME: Final = "eval_results"
#: The format names no metric: the data set's leaderboard has one.
METRIC: Final = "value"


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    said = document.value
    return (
        document.kind == "yaml"
        and isinstance(said, list)
        and all(isinstance(one, dict) and {"dataset", "value"} <= one.keys() for one in said)
    )


def read(document: Document) -> Result:
    """Read the scores of a file.

    Raises:
        ResultsError: it breaks its format.
    """
    tasks: dict[str, Task] = {}
    scores = []
    for at, found in enumerate(rows(document.value, document.where)):
        where = f"{document.where}: entry {at + 1}"
        dataset = table(found["dataset"], where)
        home = name(dataset.get("id"), f"{where}: dataset.id")
        parts = (word(dataset.get(key), where) for key in ("task_id", "config", "split"))
        task = Task(
            id=name("/".join([home, *(part for part in parts if part)]), where),
            dataset=home,
            dataset_revision=word(dataset.get("revision"), where),
        )
        if task.id in tasks:
            raise ResultsError("a score stands twice", where=where, found=task.id)
        tasks[task.id] = task
        scores.append(
            Score(
                task=task.id,
                metric=METRIC,
                filter=word(found.get("notes"), where),
                value=number(found["value"], where),
            )
        )
    return Result(
        harness=Harness(name=NAME),
        media_type="application/yaml",
        tasks=tuple(tasks.values()),
        scores=tuple(scores),
    )
