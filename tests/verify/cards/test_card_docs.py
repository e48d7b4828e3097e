"""docs/cards.md says what the rules are."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from regenerate_card_docs import PAGE, generate

from parentage.verify.cards.rules import RULES


def test_the_tables_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert text == generate(text), "run: python tests/regenerate_card_docs.py"
    assert text.count("\n| C") == len(RULES) == 13
