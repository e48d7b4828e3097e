"""The result of a card check."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.manifest.errors import printable
from parentage.verify.cards.authority import SAID
from parentage.verify.cards.rules import RULES
from parentage.verify.showing import Problem, Shown
from parentage.verify.verdict import EXIT_CODES, Verdict

SCHEMA: Final = "https://parentage.dev/card/v0.1"


class CardReport(msgspec.Struct, kw_only=True, rename="camel"):
    """What a card says that its manifest does not.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: `verified`: no error; `refuted`: an error that contradicts the manifest;
            `denied`: an error by the levels alone; `unproven`: the card can't be read.
        release: what was checked, as it was named.
        manifest: "verified", "signed" (by whom was not asked), or "declared".
        root: weights root by digest profile, as the manifest says.
        relation: to the parents, as the recipe says; empty: the Hub has no word for it.
        rules: ids of those that were looked at.
        problems: errors first; `code` is the rule's id.
        not_checked: sentences.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.VERIFIED
    exit_code: int = 0
    release: str = ""
    manifest: str = ""
    root: dict[str, str] = {}
    relation: str = ""
    rules: list[str] = []
    problems: list[Problem] = []
    not_checked: list[str] = []

    def decide(self, verdict: Verdict) -> None:
        """Set verdict and exit code together."""
        self.verdict = verdict
        self.exit_code = EXIT_CODES[verdict]

    def shown(self, command: str = "card check") -> Shown:
        """Return the report as any format shows it."""
        return Shown(
            command=command,
            subject=f"card of {printable(self.release)}",
            verdict=self.verdict,
            exit_code=self.exit_code,
            problems=tuple(self.problems),
            facts=tuple(_facts(self)),
            not_checked=tuple(printable(text, 400) for text in self.not_checked),
            document=self,
            meanings={rule.id: rule.help for rule in RULES.values()},
        )


def _facts(report: CardReport) -> list[tuple[str, str]]:
    facts = [("manifest", SAID.get(report.manifest, report.manifest))]
    facts += [("weights", f"{profile} {root}") for profile, root in report.root.items()]
    facts.append(("relation", report.relation or "the Hub has no word for this recipe"))
    facts.append(("rules", f"{len(report.rules)} looked at: {', '.join(report.rules)}"))
    return facts
