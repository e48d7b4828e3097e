"""Cards against manifests: what each rule finds, and what it lets pass."""

from __future__ import annotations

from pathlib import Path

from cards import TRUE, card, draft

from parentage.verify.cards.check import check
from parentage.verify.cards.report import CardReport


def codes(report: CardReport) -> list[str]:
    return [f"{problem.code} {problem.level}" for problem in report.problems]


def test_a_true_card_is_left_alone(tmp_path: Path) -> None:
    report = check(card(draft(tmp_path), TRUE))

    assert codes(report) == []
    assert (report.exit_code, report.relation, len(report.rules)) == (0, "merge", 13)
