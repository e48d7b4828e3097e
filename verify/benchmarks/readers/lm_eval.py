"""lm-evaluation-harness: `results_*.json` (seen of 0.4.13; its loggers/evaluation_tracker.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from parentage.attest.statements.benchmark import Harness, Score, Task
from parentage.verify.benchmarks.documents import (
    Document,
    count,
    get,
    is_number,
    name,
    number,
    table,
    word,
)
from parentage.verify.benchmarks.result import Result

NAME: Final = "lm-evaluation-harness"
_STDERR: Final = "_stderr"


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    return document.has("results", "configs", "versions", "config")


def read(document: Document) -> Result:
    """Read the results of a run; groups of tasks are tasks, too.

    Raises:
        ResultsError: it breaks its format.
    """
    said, where = document.value, document.where
    held: dict[str, dict[str, Any]] = {}
    for part in ("results", "groups"):
        for task, found in table(said.get(part) or {}, f"{where}: {part}").items():
            held[name(task, where)] = table(found, f"{where}: {task}")
    scores = [score for task, found in held.items() for score in _scores(task, found, said, where)]
    scored = {score.task for score in scores}
    model = (get(said, "model_name"), _pretrained(get(said, "config", "model_args")))
    started = get(said, "date")
    return Result(
        harness=Harness(
            name=NAME,
            version=word(get(said, "lm_eval_version"), where),
            commit=word(get(said, "git_hash"), where),
            backend=word(get(said, "config", "model"), where),
            dtype=word(get(said, "config", "model_dtype"), where).removeprefix("torch."),
        ),
        media_type="application/json",
        tasks=tuple(_task(task, said, where) for task in held if task in scored),
        scores=tuple(scores),
        model=tuple(dict.fromkeys(word(one, where) for one in model if one)),
        started=int(started) if is_number(started) and 0 < started < 2**40 else None,
    )


def _scores(task: str, found: dict[str, Any], said: object, where: str) -> Iterator[Score]:
    samples = count(get(said, "n-samples", task, "effective"))
    for key, value in found.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith(_STDERR) or not is_number(value):
            continue
        error = found.get(f"{metric}{_STDERR},{kind}")
        place = f"{where}: {task}: {key}"
        yield Score(
            task=task,
            metric=name(metric, place),
            filter=word(kind, place),
            value=number(value, place),
            stderr=number(error, place) if is_number(error) else None,
            samples=samples,
        )


def _task(task: str, said: object, where: str) -> Task:
    config = get(said, "configs", task)
    return Task(
        id=task,
        version=word(get(said, "versions", task), where),
        task_hash=word(get(said, "task_hashes", task), where),
        dataset=word(get(config, "dataset_path"), where),
        dataset_revision=word(get(config, "dataset_kwargs", "revision"), where),
        samples=count(get(said, "n-samples", task, "effective")),
    )


def _pretrained(arguments: object) -> object:
    """Return `pretrained` of model_args: an object today, "a=b,c=d" before."""
    if isinstance(arguments, str):
        pairs = (pair.partition("=") for pair in arguments.split(","))
        return next((value for key, _, value in pairs if key == "pretrained"), None)
    return get(arguments, "pretrained")
