"""lighteval: `results_*.json` (its logging/evaluation_tracker.py, `generate_final_dict`; 0.13.0)."""

from __future__ import annotations

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

NAME: Final = "lighteval"
_STDERR: Final = "_stderr"
#: Averages over all tasks, which is no task.
_ALL: Final = "all"


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    return document.has("config_general", "results", "config_tasks")


def read(document: Document) -> Result:
    """Read the results of a run.

    Raises:
        ResultsError: it breaks its format.
    """
    said, where = document.value, document.where
    tasks, scores = [], []
    for task, found in table(said["results"], f"{where}: results").items():
        if task == _ALL:
            continue
        made = _task(name(task, where), said, where)
        tasks.append(made)
        for metric, value in table(found, f"{where}: {task}").items():
            if metric.endswith(_STDERR) or not is_number(value):
                continue
            place = f"{where}: {task}: {metric}"
            error = found.get(metric + _STDERR)
            scores.append(
                Score(
                    task=task,
                    metric=name(metric, place),
                    value=number(value, place),
                    stderr=number(error, place) if is_number(error) else None,
                    samples=made.samples,
                )
            )
    general = said["config_general"]
    commit = word(get(general, "lighteval_sha"), where)
    model = word(get(general, "model_name"), where)
    return Result(
        harness=Harness(name=NAME, commit="" if commit == "?" else commit),
        media_type="application/json",
        tasks=tuple(tasks),
        scores=tuple(scores),
        model=(model,) if model else (),
    )


def _task(task: str, said: object, where: str) -> Task:
    config = _of(get(said, "config_tasks"), task)
    return Task(
        id=task,
        version=word(_of(get(said, "versions"), task), where),
        task_hash=word(get(said, "summary_tasks", task, "hashes", "hash_full_prompts"), where),
        dataset=word(get(config, "hf_repo"), where),
        dataset_revision=word(get(config, "hf_revision"), where),
        samples=count(get(config, "effective_num_docs")),
    )


def _of(held: object, task: str) -> Any:  # noqa: ANN401
    """Return what stands under a task's name, with its number of examples or without."""
    found = get(held, task)
    return get(held, task.rpartition(":")[0]) if found is None else found
