"""Text for people: the verdict first, then why, then what was established, then what was not checked."""

from __future__ import annotations

from collections import Counter
from typing import Final

from parentage.manifest.errors import printable
from parentage.verify.formats.grouping import lines_of
from parentage.verify.showing import Level, Problem, Shown

#: Problems of one code that are listed; every code is.
SHOWN: Final = 12
_MARKS: Final = {Level.ERROR: "✗", Level.WARNING: "!", Level.NOTE: "·"}


def render(shown: Shown) -> str:
    """Return the whole result for people."""
    lines = [f"{shown.verdict.value.upper()}  {printable(shown.subject)}", ""]
    counts: Counter[str] = Counter()
    for problem in shown.problems:
        counts[problem.code] += 1
        if counts[problem.code] <= SHOWN:
            lines += _problem(problem)
    lines += [
        f"  … and {count - SHOWN:,} more  [{code}] (--json lists all)"
        for code, count in counts.items()
        if count > SHOWN
    ]
    lines += [""] if shown.problems else []
    width = max([10, *(len(label) + 1 for label, _ in shown.facts)])
    lines += [f"  {label:<{width}}{value}" for label, value in shown.facts]
    if shown.not_checked:
        lines += ["", "not checked"]
        lines += [f"  - {printable(text, 400)}" for text in shown.not_checked]
    return "\n".join(lines) + "\n"


def _problem(problem: Problem) -> list[str]:
    line = f":{problem.line}" if problem.line else ""
    beside = f" ({problem.file}{line})" if problem.file else ""
    said = [f"  {_MARKS[problem.level]} {problem.message}  [{problem.code}]{beside}"]
    return said + [f"      {label + ':':<10}{value}" for label, value in lines_of(problem)]
