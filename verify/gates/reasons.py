"""Why a gate says no, and what it only mentions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from parentage.attest.policy import OnIt
from parentage.manifest.errors import printable
from parentage.verify.showing import Level, Problem
from parentage.verify.verdict import Finding, Verdict

#: From the strongest: what was contradicted, what nobody signed, what the rules forbid, what is not known.
ORDER: Final = (
    Verdict.REFUTED,
    Verdict.UNSIGNED,
    Verdict.DENIED,
    Verdict.UNPROVEN,
    Verdict.VERIFIED,
)


class Reason(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One reason. Texts are escaped.

    Attributes:
        code: stable: a finding's, a check's, or a rule of the card.
        verdict: that it leads to; `verified`: it is a note.
        message: what is wrong.
        where: tensor, step or file.
        expected, found: the two values.
        next: the command or the change that helps.
        file, line: of the text that a rule of the card is about.
        minor: a note that is less than a warning.
    """

    code: str
    verdict: Verdict
    message: str
    where: str = ""
    expected: str = ""
    found: str = ""
    next: str = ""
    file: str = ""
    line: int = 0
    minor: bool = False

    @property
    def refuses(self) -> bool:
        """Whether it is more than a note."""
        return self.verdict is not Verdict.VERIFIED

    def problem(self) -> Problem:
        """Return it as formats show it."""
        mild = Level.NOTE if self.minor else Level.WARNING
        return Problem(
            code=self.code,
            level=Level.ERROR if self.refuses else mild,
            message=self.message,
            where=self.where,
            expected=self.expected,
            found=self.found,
            next=self.next,
            file=self.file,
            line=self.line,
        )


def reason(
    code: str,
    verdict: Verdict,
    message: str,
    *,
    where: str = "",
    expected: str = "",
    found: str = "",
    hint: str = "",
) -> Reason:
    """Return a reason whose texts from outside are escaped."""
    return Reason(
        code=code,
        verdict=verdict,
        message=printable(message, 600),
        where=printable(where, 300),
        expected=printable(expected, 300),
        found=printable(found, 300),
        next=printable(hint, 300),
    )


def by_rule(
    rule: OnIt,
    code: str,
    message: str,
    *,
    where: str = "",
    expected: str = "",
    found: str = "",
    hint: str = "",
) -> Iterator[Reason]:
    """Yield a denial, a note or nothing, as a rule has it."""
    if rule != "ignore":
        verdict = Verdict.DENIED if rule == "fail" else Verdict.VERIFIED
        yield reason(code, verdict, message, where=where, expected=expected, found=found, hint=hint)


def of_finding(found: Finding, decided: Verdict) -> Reason:
    """Return what a verification found, as a reason; `decided` is what it came to."""
    verdict = Verdict.VERIFIED
    if found.refutes:
        # Nothing to verify is no contradiction; what the lock file remembers makes it a denial.
        unsigned = found.code == "unsigned" and decided is not Verdict.REFUTED
        verdict = decided if unsigned else Verdict.REFUTED
    elif found.denies:
        verdict = Verdict.DENIED
    return Reason(
        code=found.code,
        verdict=verdict,
        message=found.message,
        where=found.where,
        expected=found.expected,
        found=found.found,
        next=found.next,
    )


def strongest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the one that decides; `verified` where there is none."""
    return min(verdicts, key=ORDER.index, default=Verdict.VERIFIED)
