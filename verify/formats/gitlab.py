"""GitLab Code Quality: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format."""

from __future__ import annotations

import json
from typing import Any, Final

from parentage.verify.formats.grouping import Group, grouped, lines_of, told
from parentage.verify.formats.rules import fingerprint
from parentage.verify.showing import FALLBACK, Level, Shown

LIMIT: Final = 1000
_SEVERITY: Final = {Level.ERROR: "critical", Level.WARNING: "minor", Level.NOTE: "info"}


def render(shown: Shown) -> str:
    """Return the list of issues; an empty one where there is nothing to say."""
    issues = [_issue(shown, group) for group in grouped(told(shown), LIMIT)]
    return json.dumps(issues, indent=1, ensure_ascii=True) + "\n"


def _issue(shown: Shown, group: Group) -> dict[str, Any]:
    file = group.file or shown.beside or FALLBACK
    about = "; ".join(f"{label}: {value}" for label, value in lines_of(group.first[0]))
    return {
        "description": f"{group.title}" + (f" ({about})" if about else ""),
        "check_name": f"parentage/{group.code}",
        "fingerprint": fingerprint(shown, group),
        "severity": _SEVERITY[group.level],
        "location": {"path": file.removeprefix("./"), "lines": {"begin": max(group.line, 1)}},
    }
