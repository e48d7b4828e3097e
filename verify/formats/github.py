"""GitHub workflow commands: annotations beside the lines of a pull request.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands, and the escaping of
actions/toolkit's core/src/command.ts. A step shows ten errors and ten warnings; more are dropped without
a word, so the tenth counts the rest.
"""

from __future__ import annotations

from typing import Final

from parentage.verify.formats.grouping import Group, grouped, lines_of, told
from parentage.verify.showing import Level, Shown

LIMIT: Final = 10
_COMMANDS: Final = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def render(shown: Shown) -> str:
    """Return one line an annotation; none where there is nothing to say."""
    problems = told(shown)
    lines = []
    for level, command in _COMMANDS.items():
        of_level = [problem for problem in problems if problem.level is level]
        lines += [_command(command, shown, group) for group in grouped(of_level, LIMIT)]
    return "".join(line + "\n" for line in lines)


def _command(command: str, shown: Shown, group: Group) -> str:
    file = group.file or shown.beside
    properties = [("title", f"parentage {shown.command}: {group.code}")]
    if file:
        properties = [("file", file), ("line", str(max(group.line, 1))), *properties]
    first = group.first[0]
    text = "\n".join([group.title, *(f"{label}: {value}" for label, value in lines_of(first))])
    named = ",".join(f"{name}={_property(value)}" for name, value in properties)
    return f"::{command} {named}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
