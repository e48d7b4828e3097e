"""Whether scores are of tasks that a board lists, on data that cannot change under it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from parentage.attest.statements.benchmark import Score, Task
from parentage.manifest.wire import matches
from parentage.verify.benchmarks.rules import BenchmarkRules, TaskRule
from parentage.verify.verdict import Finding, denial

_COMMIT: Final = re.compile("[0-9a-f]{40}")
_FIELDS: Final = ("dataset", "revision", "task_hash", "version")
_OF: Final = {"revision": "dataset_revision"}


def listed(
    tasks: Iterable[Task], scores: Sequence[Score], rules: BenchmarkRules
) -> Iterator[Finding]:
    """Yield what keeps scores of some tasks off the board."""
    for task in tasks:
        if rules.pinned and not task.task_hash and not _COMMIT.fullmatch(task.dataset_revision):
            yield denial(
                "dataset-not-pinned",
                "nothing says which documents the task had",
                where=task.id,
                expected="a commit of the data set, or a hash of documents and prompts",
                found=task.dataset_revision or "neither",
                hint="pin the revision in the task: dataset_kwargs: {revision: COMMIT}",
            )
        if rules.tasks:
            yield from _on_board(task, [s for s in scores if s.task == task.id], rules)


def _on_board(task: Task, scores: list[Score], rules: BenchmarkRules) -> Iterator[Finding]:
    named = [rule for rule in rules.tasks if matches(task.id, (rule.id,))]
    fitting = [rule for rule in named if not _differing(task, rule)]
    if not named:
        yield denial(
            "task-not-listed",
            "the board has no such task",
            where=task.id,
            expected=", ".join(rule.id for rule in rules.tasks),
        )
    elif not fitting:
        what, expected, found = _differing(task, named[0])[0]
        yield denial(
            "task-differs",
            f"the task's {what} is another than the board's",
            where=task.id,
            expected=expected,
            found=found or "none",
        )
    for score in scores:
        if fitting and not any(not r.metrics or score.metric in r.metrics for r in fitting):
            yield denial(
                "metric-not-listed",
                "the board does not count this metric",
                where=f"{task.id}: {score.metric}",
                expected=", ".join(name for rule in fitting for name in rule.metrics),
                denies=False,
            )


def _differing(task: Task, rule: TaskRule) -> list[tuple[str, str, str]]:
    pairs = [(name, getattr(rule, name), getattr(task, _OF.get(name, name))) for name in _FIELDS]
    return [
        (name.replace("_", " "), want, has) for name, want, has in pairs if want not in {None, has}
    ]
