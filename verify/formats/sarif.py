"""SARIF 2.1.0 (OASIS), as code scanning platforms take it.

Limits of GitHub's: 25,000 results of which 5,000 are kept, 10 MB compressed, 20 tags a rule. Results stand
beside text files of the repository, never beside shards, which no platform can show.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import quote

from parentage.verify.formats.grouping import Group, grouped, lines_of, told
from parentage.verify.formats.rules import DOCS, about, fingerprint
from parentage.verify.showing import FALLBACK, Level, Shown

LIMIT: Final = 1000
_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_HOME: Final = "https://parentage.dev"


def render(shown: Shown) -> str:
    """Return a log of one run."""
    from parentage import __version__

    groups = grouped(told(shown), LIMIT)
    codes = list(dict.fromkeys(group.code for group in groups))
    levels = {group.code: group.level for group in reversed(groups)}
    driver = {
        "name": "parentage",
        "version": __version__,
        "semanticVersion": __version__,
        "informationUri": _HOME,
        "rules": [_rule(shown, code, levels[code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"parentage/{shown.command.replace(' ', '-')}/"},
        "invocations": [{"executionSuccessful": True, "exitCode": shown.exit_code}],
        "columnKind": "utf16CodeUnits",
        "results": [_result(shown, group, codes.index(group.code)) for group in groups],
        "properties": {
            "verdict": shown.verdict.value,
            "subject": shown.subject,
            "facts": [f"{label}: {value}" for label, value in shown.facts[:LIMIT]],
            "notChecked": list(shown.not_checked[:LIMIT]),
        },
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=True) + "\n"


def _rule(shown: Shown, code: str, level: Level) -> dict[str, Any]:
    known = about(code, shown.meanings) or code.replace("-", " ")
    return {
        "id": code,
        "shortDescription": {"text": known},
        "fullDescription": {"text": known},
        "help": {"text": f"{known.rstrip('.')}. See {DOCS}."},
        "defaultConfiguration": {"level": level.value},
        "properties": {"tags": ["provenance", "security"]},
    }


def _result(shown: Shown, group: Group, index: int) -> dict[str, Any]:
    lines = [group.title]
    for problem in group.first:
        lines += [f"{label}: {value}" for label, value in lines_of(problem)]
    uri = quote((group.file or shown.beside or FALLBACK).removeprefix("./"))
    place: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": uri, "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": max(group.line, 1)},
        }
    }
    if group.module:
        place["logicalLocations"] = [{"fullyQualifiedName": group.module}]
    return {
        "ruleId": group.code,
        "ruleIndex": index,
        "level": group.level.value,
        "message": {"text": _plain("\n".join(lines))},
        "locations": [place],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint(shown, group)},
        "occurrenceCount": group.count,
    }


def _plain(text: str) -> str:
    """Return a message without embedded links (3.11.6) and placeholders (3.11.5)."""
    return re.sub(r"\{([0-9]+)\}", r"{{\1}}", text.replace("](", "] ("))
