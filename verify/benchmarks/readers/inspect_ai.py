"""inspect_ai: EvalLog, as `.json` or as the header of an `.eval` archive (its log/_log.py; 0.3.285)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from parentage.attest.statements.benchmark import Harness, Score, Task
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import (
    Document,
    count,
    get,
    is_number,
    name,
    number,
    rows,
    table,
    word,
)
from parentage.verify.benchmarks.result import Result

NAME: Final = "inspect_ai"
_STDERR: Final = "stderr"


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    told = document.has("status", "eval", kinds=("json", "zip"))
    return told and isinstance(document.value["eval"], dict)


def read(document: Document) -> Result:
    """Read a log.

    Raises:
        ResultsError: the evaluation did not finish or was invalidated, or the log breaks its format.
    """
    said, where = document.value, document.where
    if said["status"] != "success" or said.get("invalidated"):
        raise ResultsError(
            "evaluation did not finish, or was invalidated",
            where=where,
            expected="status success",
            found=word(said["status"], where) if said["status"] != "success" else "invalidated",
        )
    spec = table(said["eval"], f"{where}: eval")
    model = name(spec.get("model"), f"{where}: eval.model")
    samples = count(get(said, "results", "completed_samples"))
    task = Task(
        id=name(spec.get("task"), f"{where}: eval.task"),
        version=word(spec.get("task_version"), where),
        dataset=word(get(spec, "dataset", "location") or get(spec, "dataset", "name"), where),
        samples=samples,
    )
    found = rows(get(said, "results", "scores") or [], f"{where}: results.scores")
    return Result(
        harness=Harness(
            name=NAME,
            version=word(get(spec, "packages", "inspect_ai"), where),
            backend=model.partition("/")[0] if "/" in model else "",
        ),
        media_type="application/zip" if document.kind == "zip" else "application/json",
        tasks=(task,),
        scores=tuple(score for one in found for score in _scores(one, task, where)),
        model=(model,),
        started=_time(get(said, "stats", "started_at")),
        finished=_time(get(said, "stats", "completed_at")),
    )


def _scores(found: object, task: Task, where: str) -> Iterator[Score]:
    place = f"{where}: results.scores"
    said = table(found, place)
    metrics = table(said.get("metrics") or {}, place)
    scorer = ":".join(
        part for part in (word(said.get("name"), place), word(said.get("reducer"), place)) if part
    )
    samples = count(said.get("scored_samples"))
    error = get(metrics, _STDERR, "value")
    # A standard error stands beside the mean that it is of: the first metric.
    first = next(iter(metrics), None)
    for key, metric in metrics.items():
        value = get(metric, "value")
        if key == _STDERR or not is_number(value):
            continue
        yield Score(
            task=task.id,
            metric=name(key, place),
            filter=scorer,
            value=number(value, f"{place}: {key}"),
            stderr=number(error, f"{place}: {key}") if key == first and is_number(error) else None,
            samples=task.samples if samples is None else samples,
        )


def _time(text: object) -> int | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) and text else None
    except ValueError:
        return None
    return int(found.timestamp()) if found is not None and found.tzinfo is not None else None
