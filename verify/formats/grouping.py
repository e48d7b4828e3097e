"""Problems put together, so that 92,000 wrong tensors are one line that a platform takes.

Problems of one code in places that differ by numbers only (`model.layers.7.mlp.up_proj.weight`) are one
group. Platforms bound how many results they take (research: SARIF 5,000, ten annotations a step), so the
groups are bounded, too: the first of every code is kept before the second of any.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from parentage.verify.showing import Level, Problem, Shown
from parentage.verify.verdict import Verdict

#: Problems of a group that are kept one by one.
WORST: Final = 5
_RANK: Final = {Level.ERROR: 0, Level.WARNING: 1, Level.NOTE: 2}
_NUMBER: Final = re.compile("[0-9]+")


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Problems of one code in one module.

    Attributes:
        code, level: of each.
        module: where they are, numbers as `*`.
        file, line: of the text file that they are shown beside; empty and 0: none.
        count: how many they are.
        first: the first of them.
    """

    code: str
    level: Level
    module: str
    file: str
    line: int
    count: int
    first: tuple[Problem, ...]

    @property
    def title(self) -> str:
        """One line: what is wrong, and how often."""
        more = f" ({self.count:,} in {self.module})" if self.count > 1 else ""
        return self.first[0].message + more


def told(shown: Shown) -> tuple[Problem, ...]:
    """Return the problems, and the verdict itself where no error among them says why it is not `verified`."""
    explained = any(problem.level is Level.ERROR for problem in shown.problems)
    if shown.verdict is Verdict.VERIFIED or explained:
        return shown.problems
    return (
        Problem(
            code=shown.verdict.value,
            level=Level.ERROR,
            message=f"{shown.verdict.value.upper()} (exit code {shown.exit_code}): {shown.subject}",
            found="; ".join(f"not checked: {text}" for text in shown.not_checked[:WORST]),
        ),
        *shown.problems,
    )


def grouped(problems: Iterable[Problem], limit: int) -> tuple[Group, ...]:
    """Put problems together: errors first, at most `limit` groups, the last of which counts the rest.

    Args:
        problems: in the order of their weight.
        limit: at least 1.
    """
    found: dict[tuple[str, ...], list[Problem]] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for problem in problems:
        key = (
            problem.level.value,
            problem.code,
            problem.file,
            str(problem.line),
            _NUMBER.sub("*", problem.where),
        )
        counts[key] += 1
        kept = found.setdefault(key, [])
        if len(kept) < WORST:
            kept.append(problem)
    of_code: Counter[str] = Counter()
    placed: list[tuple[int, int, Group]] = []
    for place, kept in found.items():
        group = _group(kept, place[-1], counts[place])
        placed.append((_RANK[group.level], of_code[group.code], group))
        of_code[group.code] += 1
    groups = [group for _, _, group in sorted(placed, key=lambda entry: entry[:2])]
    if len(groups) <= limit:
        return tuple(groups)
    return (*groups[: limit - 1], _rest(groups[limit - 1 :]))


def lines_of(problem: Problem) -> list[tuple[str, str]]:
    """Return what is known of a problem beside its message, as labels and values."""
    pairs = (
        ("where", problem.where),
        ("expected", problem.expected),
        ("found", problem.found),
        ("next", problem.next),
    )
    return [(label, value) for label, value in pairs if value]


def _group(kept: list[Problem], module: str, count: int) -> Group:
    first = kept[0]
    return Group(
        code=first.code,
        level=first.level,
        module=module,
        file=first.file,
        line=first.line,
        count=count,
        first=tuple(kept),
    )


def _rest(groups: list[Group]) -> Group:
    count = sum(group.count for group in groups)
    codes = sorted({group.code for group in groups})
    shown = ", ".join(codes[:8]) + (", …" if len(codes) > 8 else "")
    problem = Problem(
        code="more-problems",
        level=groups[0].level,
        message=f"and {count:,} more problems in {len(groups):,} places: {shown}",
        next="--json lists them all",
    )
    return _group([problem], "", 1)
