"""`model-index` in a model card's front matter (hub-docs modelcard.md): what an author says of it."""

from __future__ import annotations

from typing import Final

from parentage.attest.statements.benchmark import Harness, Score, Task
from parentage.verify.benchmarks.documents import (
    Document,
    get,
    name,
    number,
    rows,
    table,
    word,
)
from parentage.verify.benchmarks.result import Result

NAME: Final = "model-index"


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    return document.has(NAME, kinds=("card", "yaml"))


def read(document: Document) -> Result:
    """Read the scores of a card.

    Raises:
        ResultsError: it breaks its format.
    """
    where = f"{document.where}: {NAME}"
    tasks: dict[str, Task] = {}
    scores, models = [], []
    for model in rows(document.value[NAME], where):
        models.append(word(table(model, where).get("name"), where))
        for found in rows(model.get("results"), f"{where}: results"):
            dataset = table(table(found, where).get("dataset"), f"{where}: dataset")
            parts = (word(dataset.get(key), where) for key in ("type", "config", "split"))
            task = Task(
                id=name(":".join(part for part in parts if part), f"{where}: dataset"),
                version=word(get(found, "task", "type"), where),
                dataset=word(dataset.get("type"), where),
                dataset_revision=word(dataset.get("revision"), where),
            )
            tasks.setdefault(task.id, task)
            for metric in rows(found.get("metrics"), f"{where}: {task.id}"):
                said = table(metric, f"{where}: {task.id}")
                scores.append(
                    Score(
                        task=task.id,
                        metric=name(said.get("type"), f"{where}: {task.id}"),
                        filter=word(said.get("name"), where),
                        value=number(said.get("value"), f"{where}: {task.id}"),
                    )
                )
    return Result(
        harness=Harness(name=NAME),
        media_type="text/markdown" if document.kind == "card" else "application/yaml",
        tasks=tuple(tasks.values()),
        scores=tuple(scores),
        model=tuple(one for one in dict.fromkeys(models) if one),
    )
