"""EvalPlus: `*_eval_results.json` (its evaluate.py; 0.3.1). It holds outcomes; pass@k is made of them.

Unbiased estimate of pass@k: Chen et al. 2021, arXiv:2107.03374, section 2.1.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Any, Final

from parentage.attest.statements.benchmark import Harness, Score, Task
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import Document, name, rows, table, word
from parentage.verify.benchmarks.result import Result

NAME: Final = "evalplus"
_PASS: Final = "pass"  # noqa: S105  (an outcome)
_KS: Final = (1, 10, 100)
_DIGITS: Final = 12


def matches(document: Document) -> bool:
    """Say whether a document is of this format."""
    return document.has("date", "hash", "eval")


def read(document: Document) -> Result:
    """Read outcomes and count them.

    Raises:
        ResultsError: it breaks its format, or problems have different numbers of answers.
    """
    said, where = document.value, document.where
    problems = {
        name(problem, where): [_outcome(one, f"{where}: {problem}") for one in rows(found, where)]
        for problem, found in table(said["eval"], f"{where}: eval").items()
    }
    if not problems or not all(problems.values()):
        raise ResultsError("no outcomes, or a problem without any", where=where)
    dataset = next(iter(problems)).partition("/")[0].lower()
    kinds = {dataset: 0}
    if all(plus is not None for found in problems.values() for _, plus in found):
        kinds[dataset + "+"] = 1
    scores, least = [], min(map(len, problems.values()))
    for task, kind in kinds.items():
        counted = [
            (len(found), sum(bool(one[0]) and bool(one[kind]) for one in found))
            for found in problems.values()
        ]
        for k in (k for k in _KS if k <= least):
            mean = sum((_pass_at(n, c, k) for n, c in counted), Fraction(0)) / len(counted)
            scores.append(
                Score(task=task, metric=f"pass@{k}", value=_decimal(mean), samples=len(counted))
            )
    version = word(said["hash"], where)
    return Result(
        harness=Harness(name=NAME),
        media_type="application/json",
        tasks=tuple(
            Task(
                id=task, task_hash=version, dataset=f"evalplus/{dataset}plus", samples=len(problems)
            )
            for task in kinds
        ),
        scores=tuple(scores),
    )


def _outcome(found: Any, where: str) -> tuple[bool, bool | None]:  # noqa: ANN401
    said = table(found, where)
    if "base_status" not in said:
        raise ResultsError("outcome without base_status", where=where)
    plus = said.get("plus_status")
    return said["base_status"] == _PASS, None if plus is None else plus == _PASS


def _pass_at(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(comb(n - c, k), comb(n, k))


def _decimal(value: Fraction) -> str:
    """Return a share of 0 to 1, rounded to 12 digits, half to even."""
    scaled = round(value * 10**_DIGITS)
    digits = f"{scaled:0{_DIGITS + 1}d}"
    return f"{digits[:-_DIGITS]}.{digits[-_DIGITS:]}".rstrip("0").rstrip(".")
