"""Regenerate the table of docs/methods.md: real mergekit output, recomputed, and the rung reached.

python benchmarks/methods.py            prints it
python benchmarks/methods.py --write    puts it into docs/methods.md
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from mergekit_cases import CASES, NOT_IN_014  # noqa: E402
from mergekit_world import executable, make_models, results  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- table: benchmarks/methods.py -->", "<!-- end of table -->"
VERSIONS = ("0.1.5", "0.1.4")


def method_of(case: str) -> str:
    """Return the merge method that a case's config names."""
    line = next(line for line in CASES[case].splitlines() if line.startswith("merge_method"))
    return line.partition(": ")[2]


def reached(models: Path, version: str, case: str) -> str:
    """Return how many tensors reach which rung."""
    if version == "0.1.4" and method_of(case) in NOT_IN_014:
        return "not in 0.1.4"
    counts = Counter(str(result.rung) for result in results(models, version, case))
    if set(counts) == {"A"}:
        return f"A on all {counts['A']}"
    return ", ".join(f"{rung} on {counts[rung]}" for rung in "ABCD?" if counts[rung]) + (
        f", **refuted on {counts['refuted']}**" if counts["refuted"] else ""
    )


def table(models: Path) -> list[str]:
    """Run every case and return the table's lines."""
    lines = ["| method | case | mergekit 0.1.5 | mergekit 0.1.4 |", "|---|---|---|---|"]
    for case in sorted(CASES, key=lambda case: list(map(method_of, CASES)).index(method_of(case))):
        cells = [reached(models, version, case) for version in VERSIONS]
        lines.append(f"| {method_of(case)} | {case} | {cells[0]} | {cells[1]} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    for version in VERSIONS:
        if executable(version) is None:
            sys.exit(f"mergekit {version} is not installed: make peers")
    with tempfile.TemporaryDirectory() as folder:
        lines = table(make_models(Path(folder)))
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text("\n".join([before + BEGIN, "", *lines, "", END + after]))


if __name__ == "__main__":
    main()
