"""GitHub-flavoured markdown: the summary of a workflow's step, or a comment.

A step summary takes 1024 KiB (docs.github.com, "Adding a job summary"); a longer one is dropped whole.
"""

from __future__ import annotations

import re
from typing import Final

from parentage.verify.formats.grouping import Group, grouped, lines_of, told
from parentage.verify.formats.rules import about
from parentage.verify.showing import Level, Shown
from parentage.verify.verdict import Verdict

MAX_BYTES: Final = 1000 << 10
LIMIT: Final = 100
#: Sentences and facts that are listed.
_LISTED: Final = 200
_MARKS: Final = {Level.ERROR: "❌", Level.WARNING: "⚠️", Level.NOTE: "ℹ️"}  # noqa: RUF001
_SPECIAL: Final = re.compile(r"[\\`*_{}\[\]<>()#+\-.!|~&$=:/^\"']")
#: Arrows of a graph, and what a label of it may hold.
_ARROWS: Final = 200
_NOT_PLAIN: Final = re.compile("[^A-Za-z0-9 ._/:,()-]")
#: Where GitHub would make a link of a name or a number, even of an escaped one.
_LINKED: Final = re.compile(r"(\\?[@#])")


def render(shown: Shown) -> str:
    """Return the summary."""
    mark = "✅" if shown.verdict is Verdict.VERIFIED else "❌"
    lines = [
        f"## {mark} {shown.verdict.value.upper()}: {escaped(shown.subject)}",
        "",
        f"`parentage {shown.command}`, exit code {shown.exit_code}.",
        "",
    ]
    for group in grouped(told(shown), LIMIT):
        lines += _group(shown, group)
    lines += _graph(shown)
    if shown.facts:
        lines += ["", "### Established", ""]
        lines += [
            f"- **{escaped(name)}** {escaped(value)}" for name, value in shown.facts[:_LISTED]
        ]
    if shown.not_checked:
        lines += ["", "### Not checked", ""]
        lines += [f"- {escaped(text)}" for text in shown.not_checked[:_LISTED]]
    return _bounded(lines)


def escaped(text: str) -> str:
    """Return text that markdown shows as it stands: no markup, no link, no mention."""
    shown = " ".join(text.split()) or "(empty)"
    return _LINKED.sub(r"\1<!-- -->", _SPECIAL.sub(r"\\\g<0>", shown))


def _group(shown: Shown, group: Group) -> list[str]:
    file = f"{group.file}:{group.line}" if group.line else group.file
    place = f" ({escaped(file)})" if file else ""
    lines = [
        f"- {_MARKS[group.level]} **{escaped(group.title)}** `{group.code}`{place}",
    ]
    known = about(group.code, shown.meanings)
    lines += [f"  - {escaped(known)}"] if known else []
    for problem in group.first:
        said = "; ".join(f"{label}: {escaped(value)}" for label, value in lines_of(problem))
        lines += [f"  - {said}"] if said else []
    left = group.count - len(group.first)
    return [*lines, f"  - and {left:,} more"] if left > 0 else lines


def _graph(shown: Shown) -> list[str]:
    """Draw what was made from what, as Mermaid, which GitHub and GitLab show as a picture.

    A label could hold a directive or end the block, so that what is not plain is left out of it.
    """
    arrows = shown.arrows[:_ARROWS]
    names = list(dict.fromkeys(name for one in arrows for name in (one.source, one.target)))
    if not names:
        return []
    lines = ["", "```mermaid", "flowchart LR"]
    lines += [f'  n{i}["{_NOT_PLAIN.sub("·", name)}"]' for i, name in enumerate(names)]
    lines += [f"  n{names.index(one.source)} --> n{names.index(one.target)}" for one in arrows]
    return [*lines, "```"]


def _bounded(lines: list[str]) -> str:
    size, kept = 0, []
    for line in lines:
        size += len(line.encode()) + 1
        if size > MAX_BYTES:
            kept.append("\n*Cut here: the JSON has the rest.*")
            break
        kept.append(line)
    return "\n".join(kept) + "\n"
