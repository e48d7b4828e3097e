"""Write the tables of docs/cards.md from the rules and licences; a test fails when they differ."""

from __future__ import annotations

import re
from pathlib import Path

from parentage.verify.cards.licences import CLASSES, listed
from parentage.verify.cards.rules import RULES

PAGE = Path(__file__).parent.parent / "docs" / "cards.md"


def rules() -> str:
    """Return the table of rules."""
    lines = ["| rule | level | finds | compares | what to do |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.id} {r.slug} | {r.level.value} | {r.help} | {r.compares} | {r.remedy} |"
        for r in RULES.values()
    ]
    return "\n".join(lines)


def licences() -> str:
    """Return the table of licences."""
    lines = ["| class | licences |", "|---|---|"]
    lines += [f"| {name} | {', '.join(listed(rank))} |" for rank, name in enumerate(CLASSES)]
    return "\n".join(lines)


def generate(text: str) -> str:
    """Return the page with both tables in their places."""
    for name, table in (("rules", rules()), ("licences", licences())):
        block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
        text = re.sub(
            f"<!-- {name} -->\n.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(generate(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
