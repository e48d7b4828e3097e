"""What an accepted signer says that this results file, or these weights, can't have."""

from __future__ import annotations

from collections.abc import Mapping

from parentage.verify.benchmarks.result import Result
from parentage.verify.benchmarks.statements import DISAGREES, OTHER_WEIGHTS, Said
from parentage.verify.verdict import Finding, finding


def contradicts(one: Said, result: Result, *, edited: bool) -> bool:
    """Say whether somebody who may say it says what this file or these weights can't have.

    `edited`: nobody signed this file, so another score of the same documents is a contradiction, and not
    another run.
    """
    if not one.counted:
        return False
    if {OTHER_WEIGHTS, DISAGREES} & set(one.why_not):
        return True
    mine, theirs = one.said.harness, result.harness
    if not edited or (mine.name, mine.version) != (theirs.name, theirs.version):
        return False
    hashed = {task.id: task.task_hash for task in one.said.tasks}
    values = {(s.task, s.metric, s.filter): s.value for s in one.said.scores}
    same = {
        task.id for task in result.tasks if task.task_hash and hashed.get(task.id) == task.task_hash
    }
    return any(
        values.get((s.task, s.metric, s.filter), s.value) != s.value
        for s in result.scores
        if s.task in same
    )


def contradiction(one: Said, root: Mapping[str, str], results_sha256: str) -> Finding:
    """Return it as a finding."""
    if OTHER_WEIGHTS in one.why_not:
        return finding(
            "weights-differ",
            "these scores are signed as those of other weights",
            where=one.payload,
            expected=str(dict(one.said.weights)),
            found=str(dict(root)),
            hint="evaluate these weights: parentage bench run",
        )
    if one.said.replayed is not None:
        again = one.said.replayed
        return finding(
            "replay-differs",
            "a verifier scored the logged samples again, and got others",
            where=one.payload,
            expected=f"within {again.tolerance} nats",
            found=f"median {again.median}, most {again.most} nats",
        )
    return finding(
        "score-differs",
        "an evaluator signed another score of the same task",
        where=one.payload,
        expected=f"results sha256 {one.said.results.sha256}",
        found=f"results sha256 {results_sha256}",
        hint="the results file was edited, or is of another run",
    )
