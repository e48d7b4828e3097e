"""How bad each rule's findings are: by default, or as a policy or a command line has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from parentage.manifest.errors import UsageError
from parentage.verify.cards.rules import RULES
from parentage.verify.showing import Level

#: As policies write them; None: the rule is not looked at.
WORDS: Final[Mapping[str, Level | None]] = {
    "ignore": None,
    "note": Level.NOTE,
    "warning": Level.WARNING,
    "error": Level.ERROR,
}


def parse_levels(pairs: Iterable[str]) -> dict[str, Level | None]:
    """Read `C05=error`; a rule goes by its id or slug.

    Raises:
        UsageError: no such rule or level, or a rule twice.
    """
    found: dict[str, Level | None] = {}
    for pair in pairs:
        name, _, word = pair.partition("=")
        rule = rule_id(name)
        if word not in WORDS or rule in found:
            raise UsageError(
                "not a level, or a rule twice",
                expected="C05=error, of " + ", ".join(WORDS),
                found=pair,
            )
        found[rule] = WORDS[word]
    return found


def rule_id(name: str) -> str:
    """Return the id of a rule by its id or slug.

    Raises:
        UsageError: there is no such rule.
    """
    for rule in RULES.values():
        if name.upper() == rule.id or name.lower() == rule.slug:
            return rule.id
    raise UsageError(
        "no such rule", expected=", ".join(RULES), found=name, hint="parentage card explain"
    )
