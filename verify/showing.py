"""What any result looks like to a report format: a verdict, problems, facts, and what was not checked.

A verification, a gate, a card check and a benchmark check each give a structure of their own, which is
their JSON. `Shown` is what they have in common; verify/formats/ makes SARIF, JUnit, markdown and
annotations of it, so that a format knows nothing of what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from parentage.manifest.errors import ParentageError, printable
from parentage.verify.verdict import Finding, Verdict

#: Beside what a problem is shown where nobody knows better: platforms refuse a result without a file.
FALLBACK: Final = "README.md"
_LONGEST_PATH: Final = 1024


class Level(StrEnum):
    """How bad a problem is: an error decides the verdict, a warning and a note never do."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One disagreement, as people and platforms see it. Texts are escaped by whoever makes it.

    Attributes:
        code: stable: kebab-case, or a rule of the card such as C03.
        level: error, warning or note.
        message: what is wrong.
        where: tensor, step or file, for people.
        expected, found: the two values.
        next: the command or the change that helps.
        file: path of a text file in the repository that it can be shown beside; empty: none.
        line: in it, from 1; 0: the whole file.
    """

    code: str
    level: Level
    message: str
    where: str = ""
    expected: str = ""
    found: str = ""
    next: str = ""
    file: str = ""
    line: int = 0

    def __post_init__(self) -> None:
        """Escape the file's name: it comes from a folder, and passes through many hands."""
        msgspec.structs.force_setattr(self, "file", printable(self.file, _LONGEST_PATH))


class Arrow(msgspec.Struct, frozen=True):
    """One thing made from another, by their names."""

    source: str
    target: str


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A result, ready for a format.

    Attributes:
        command: that gave it: "verify", "gate upload", "card check".
        subject: what was examined, escaped.
        verdict, exit_code: the decision.
        problems: errors first.
        facts: (label, value) pairs of what was established.
        not_checked: sentences.
        document: the result's own structure, which is its JSON.
        beside: path of a text file in the repository that problems without a file of their own are shown
            beside; empty: none is known.
        meanings: of codes that are this result's own, in one sentence each.
        arrows: what the release was made from, where that is known.
    """

    command: str
    subject: str
    verdict: Verdict
    exit_code: int
    problems: tuple[Problem, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    not_checked: tuple[str, ...] = ()
    document: Any = None
    beside: str = ""
    meanings: dict[str, str] = {}
    arrows: tuple[Arrow, ...] = ()


class Result(Protocol):
    """What every verification, gate or check gives."""

    exit_code: int

    def shown(self, command: str, /) -> Shown:
        """Return it as any format shows it."""


class Judged(Protocol):
    """A result whose findings decided it."""

    verdict: Verdict
    exit_code: int
    findings: list[Finding]
    not_checked: list[str]


def shown_of(result: Judged, command: str, subject: str, facts: Iterable[tuple[str, str]]) -> Shown:
    """Return a result as any format shows it; what comes from outside is escaped here."""
    return Shown(
        command=command,
        subject=printable(subject),
        verdict=result.verdict,
        exit_code=result.exit_code,
        problems=problems_of(result.findings),
        facts=tuple(facts),
        not_checked=tuple(printable(text, 400) for text in result.not_checked),
        document=result,
    )


def problem_of(error: ParentageError) -> Problem:
    """Return an error as a problem that decides."""
    return Problem(
        code=error.code,
        level=Level.ERROR,
        message=error.what,
        where=error.where,
        expected=error.expected,
        found=error.found,
        next=error.hint,
    )


def problems_of(findings: Iterable[Finding]) -> tuple[Problem, ...]:
    """Return findings as problems, errors first: what refutes or denies is one, the rest are warnings."""
    found = [
        Problem(
            code=one.code,
            level=Level.ERROR if one.refutes or one.denies else Level.WARNING,
            message=one.message,
            where=one.where,
            expected=one.expected,
            found=one.found,
            next=one.next,
        )
        for one in findings
    ]
    return tuple(sorted(found, key=lambda problem: problem.level is not Level.ERROR))
