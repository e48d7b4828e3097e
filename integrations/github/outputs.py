"""Print the outputs of action.yml, from a gate's report and its exit code: one `name=value` a line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

VERDICTS = {0: "verified", 1: "refuted", 3: "unsigned", 4: "unproven", 5: "denied"}
ROOT = re.compile("[0-9a-z-]{1,40}:[0-9a-f]{64}")


def main() -> None:
    """Print; what a report says is never more than one word."""
    path, code = Path(sys.argv[1]), int(sys.argv[2])
    report: object = json.loads(path.read_bytes()) if path.exists() else {}
    root = _root(report)
    lines = {
        "verdict": VERDICTS.get(code, "unproven"),
        "exit-code": str(code),
        "weights-digest": root if ROOT.fullmatch(root) else "",
        "report-path": str(path) if path.exists() else "",
    }
    for name, value in lines.items():
        print(f"{name}={value}")


def _root(report: object) -> str:
    """Return the weights root that a report is about, or nothing."""
    while isinstance(report, dict):
        root = report.get("root")
        if isinstance(root, dict) and root:
            profile = min(root, key=str)
            return f"{profile}:{root[profile]}"
        report = report.get("report")
    return ""


main()
