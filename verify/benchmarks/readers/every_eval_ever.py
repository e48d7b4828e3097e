"""Every Eval Ever (EvalEval): schema 0.2 and 0.3, `every_eval_ever/schemas/eval.schema.json`."""

from __future__ import annotations

from typing import Any, Final

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

NAME: Final = "every_eval_ever"
#: How records say that they don't know.
_NOBODY: Final = {"", "unknown"}
_VERSIONS: Final = ("0.2.", "0.3.")


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    return document.has("schema_version", "model_info", "evaluation_results")


def read(document: Document) -> Result:
    """Read a record.

    Raises:
        ResultsError: of another version, or it breaks its format.
    """
    said, where = document.value, document.where
    version = word(said["schema_version"], where)
    if not version.startswith(_VERSIONS):
        raise ResultsError(
            "another version of the format", where=where, expected="0.2 or 0.3", found=version
        )
    tasks: dict[str, Task] = {}
    scores = []
    for found in rows(said["evaluation_results"], f"{where}: evaluation_results"):
        task = _task(table(found, where), where)
        if tasks.setdefault(task.id, task) != task:
            raise ResultsError("one name, two data sets", where=where, found=task.id)
        scores.append(_score(found, task, where))
    library = get(said, "eval_library") or {}
    names = (get(library, "name"), get(said, "source_metadata", "source_name"))
    harness = next((name for name in (word(n, where) for n in names) if name not in _NOBODY), NAME)
    started = word(said.get("evaluation_timestamp"), where).partition(".")[0]
    model = dict.fromkeys(word(get(said, "model_info", key), where) for key in ("id", "name"))
    return Result(
        harness=Harness(
            name=harness,
            version=word(get(library, "version"), where),
            backend=word(get(said, "model_info", "inference_engine", "name"), where),
        ),
        media_type="application/json",
        tasks=tuple(tasks.values()),
        scores=tuple(scores),
        model=tuple(one for one in model if one),
        started=int(started) if started.isdecimal() and len(started) < 12 else None,
    )


def _task(found: dict[str, Any], where: str) -> Task:
    source = found.get("source_data")
    return Task(
        id=name(found.get("evaluation_name"), f"{where}: evaluation_name"),
        dataset=word(get(source, "hf_repo") or get(source, "dataset_name"), where),
        samples=count(get(source, "samples_number")),
    )


def _score(found: dict[str, Any], task: Task, where: str) -> Score:
    config, details = found.get("metric_config"), found.get("score_details")
    metric = next(
        (
            said
            for key in ("metric_id", "metric_name", "evaluation_description")
            if (said := word(get(config, key), where))
        ),
        "score",
    )
    error = get(details, "uncertainty", "standard_error", "value")
    return Score(
        task=task.id,
        metric=metric,
        filter=word(found.get("evaluation_result_id"), where),
        value=number(get(details, "score"), f"{where}: {task.id}"),
        stderr=number(error, where) if is_number(error) else None,
        samples=task.samples,
    )
