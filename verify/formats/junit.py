"""JUnit XML, as Jenkins (xunit-plugin, junit-10.xsd) and GitLab (unit test reports) read it.

One test case is the verdict, so that a report without problems and without a pass can't look like one;
then one for each group of errors and of warnings, and a skipped one for what was not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from parentage.verify.formats.grouping import Group, grouped, lines_of
from parentage.verify.showing import Level, Problem, Shown
from parentage.verify.verdict import Verdict

LIMIT: Final = 1000
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Could not decide: an error of the test. Decided against: its failure.
_UNDECIDED: Final = frozenset({Verdict.UNPROVEN, Verdict.UNSIGNED})


def render(shown: Shown) -> str:
    """Return one suite."""
    groups = grouped(shown.problems, LIMIT)
    wrong = [group for group in groups if group.level is Level.ERROR]
    noted = [group for group in groups if group.level is not Level.ERROR]
    not_checked = shown.not_checked[:LIMIT]
    undecided = shown.verdict in _UNDECIDED
    failed = shown.verdict is not Verdict.VERIFIED
    counts = {
        "tests": 1 + len(groups) + len(not_checked),
        "failures": len(wrong) + (failed and not undecided),
        "errors": int(undecided),
    }
    name = f"parentage {shown.command}"
    numbers = " ".join(f'{key}="{int(count)}"' for key, count in counts.items())
    skipped = f'skipped="{len(not_checked)}"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<testsuites name={_attribute(name)} {numbers}>",
        f"<testsuite name={_attribute(name)} {numbers} {skipped}>",
        "<properties>",
        *(_property(label, value) for label, value in shown.facts),
        "</properties>",
        _case(shown, "verdict", _verdict(shown) if failed else ""),
        *(
            _case(shown, f"{group.code} {group.module}", _outcome("failure", group))
            for group in wrong
        ),
        *(_case(shown, f"{group.code} {group.module}", _note(group)) for group in noted),
        *(
            _case(shown, f"not checked: {text}", f"<skipped message={_attribute(text)}/>")
            for text in not_checked
        ),
        "</testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines) + "\n"


def _verdict(shown: Shown) -> str:
    kind = "error" if shown.verdict in _UNDECIDED else "failure"
    message = f"{shown.verdict.value.upper()}, exit code {shown.exit_code}: {shown.subject}"
    return f"<{kind} type={_attribute(shown.verdict.value)} message={_attribute(message)}/>"


def _outcome(kind: str, group: Group) -> str:
    head = f"<{kind} type={_attribute(group.code)} message={_attribute(group.title)}>"
    return f"{head}{_text(_listed(group.first, group.count))}</{kind}>"


def _note(group: Group) -> str:
    return f"<system-out>{_text(_listed(group.first, group.count))}</system-out>"


def _listed(problems: Iterable[Problem], count: int) -> str:
    lines: list[str] = []
    for problem in problems:
        lines.append(problem.message)
        lines += [f"  {label}: {value}" for label, value in lines_of(problem)]
        count -= 1
    return "\n".join([*lines, f"and {count:,} more" if count else ""]).rstrip()


def _case(shown: Shown, name: str, inside: str) -> str:
    group = _attribute(f"parentage.{shown.command.replace(' ', '.')}")
    return f"<testcase classname={group} name={_attribute(name.strip())}>{inside}</testcase>"


def _property(name: str, value: str) -> str:
    return f"<property name={_attribute(name)} value={_attribute(value)}/>"


def _attribute(text: str) -> str:
    # This brings urllib.request with it, and all formats are imported wherever one is used.
    from xml.sax.saxutils import quoteattr

    return quoteattr(_clean(text))


def _text(text: str) -> str:
    return _clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clean(text: str) -> str:
    """Drop what XML 1.0 can't hold."""
    return _NOT_XML.sub("", text)
