"""Ask a gate about a release: verify it, hold its card against it, make every check, and say all reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from parentage.manifest.errors import (
    FileSetError,
    MalformedError,
    SignatureError,
    UnsignedError,
    UsageError,
)
from parentage.manifest.files import open_files
from parentage.verify.cards.check import UNREADABLE
from parentage.verify.cards.check import check as check_card
from parentage.verify.cards.report import CardReport
from parentage.verify.cards.rules import RULES
from parentage.verify.check import verify_part
from parentage.verify.demands import Demands
from parentage.verify.gates.checks import CHECKS
from parentage.verify.gates.facts import Facts, Gathered, gather, gather_unsigned
from parentage.verify.gates.policy import Gate, Rules
from parentage.verify.gates.reasons import ORDER, Reason, of_finding
from parentage.verify.gates.report import GateReport, PolicyDigests
from parentage.verify.remote import Slices, verify_remote
from parentage.verify.report import Report
from parentage.verify.showing import Arrow, Level, Problem
from parentage.verify.sources.place import HubPlace
from parentage.verify.verdict import NAMES, Verdict

Parents = Sequence[tuple[str | None, Path]]


def run(
    release: Path | HubPlace,
    gate: Gate,
    name: Literal["upload", "download"],
    *,
    parents: Parents = (),
    demands: Demands | None = None,
) -> GateReport:
    """Say whether a release may be published, or used.

    Args:
        release: its folder; a place where the gate demands the level "remote".
        gate: whose file has rules for it.
        name: of the gate.
        parents: (id or None, folder or file) of declared parents.
        demands: device, threads, progress and what is remembered; the gate sets level and rung.

    Raises:
        UsageError: a path does not exist, a place at another level than "remote" or a folder at it, or the
            gate's file says nothing of such a gate.
        CannotRunError: an extra, a device or a Hub is missing.
    """
    rules = gate.rules(name)
    wanted = msgspec.structs.replace(
        demands or Demands(),
        level=rules.level,
        rung=rules.rung,
        whole_files=rules.whole_files,
        fetch_parents=rules.parents.fetch,
    )
    gathered: list[Gathered] = []
    card = None
    if isinstance(release, HubPlace) and rules.level == "remote":
        report = verify_remote(
            release,
            trust=gate.believed,
            demands=wanted,
            slices=Slices(rules.slices),
            told=lambda files, claimed: gathered.append(gather(files, claimed)),
        )
        seen = gathered[0] if gathered else None
    elif isinstance(release, Path) and rules.level != "remote":
        report = _verified(release, gate, wanted, parents, gathered)
        seen = gathered[0] if gathered else _unsigned(release)
        card = _card(release, gate, rules)
    else:
        raise UsageError(
            "level remote is for what is on a Hub, and the others for what is here",
            where=f"{gate.path}: {name}: level: {rules.level}",
            expected="hf://org/name@revision" if rules.level == "remote" else "a folder",
            found=str(release),
        )
    return decided(gate, name, _facts(rules, report, seen), card)


def _verified(
    release: Path, gate: Gate, demands: Demands, parents: Parents, gathered: list[Gathered]
) -> Report:
    if not release.exists():
        raise UsageError("no such file or folder", where=str(release))
    report, _ = verify_part(
        release,
        trust=gate.believed,
        parents=parents,
        demands=demands,
        told=lambda seen: gathered.append(gather(seen.files, seen.claimed)),
    )
    return report


def decided(gate: Gate, name: str, facts: Facts, card: CardReport | None) -> GateReport:
    """Return what a gate says of facts: every reason, and the strongest one's verdict."""
    report = facts.report
    found = GateReport(
        gate=name,
        release=report.release,
        checks=[check.code for check in CHECKS],
        policies=PolicyDigests(gate=gate.sha256, trust=gate.believed.sha256),
        report=report,
        card=card,
        arrows=_arrows(facts),
        not_checked=list(report.not_checked),
    )
    reasons = [of_finding(one, report.verdict) for one in report.findings]
    reasons += [one for check in CHECKS for one in check.look(facts)]
    if card is not None:
        reasons += [_of_card(problem) for problem in card.problems]
        found.not_checked += [f"card: {text}" for text in card.not_checked]
    else:
        remote = facts.rules.level == "remote"
        why = "it is held against a folder only" if remote else "there is no manifest for it"
        found.not_checked.append(f"the card: {why}")
    if facts.files is None:
        found.not_checked.append("names, sizes and beginnings of files: they can't be seen")
    if facts.unread:
        found.not_checked.append(
            f"how {facts.unread:,} files begin: only the first are read from a Hub"
        )
    found.reasons = sorted(reasons, key=lambda one: ORDER.index(one.verdict))
    # What is unproven is said by the checks, which know what the gate accepts; all else holds as it is.
    explained = report.verdict is Verdict.UNPROVEN and facts.lineage is not None
    said = [] if explained else [report.verdict]
    found.decide([*said, *(one.verdict for one in reasons)])
    return found


def _facts(rules: Rules, report: Report, seen: Gathered | None) -> Facts:
    return Facts(
        rules=rules,
        report=report,
        files=seen.files if seen is not None else None,
        lineage=seen.lineage if seen is not None else None,
        licence=seen.licence if seen is not None else "",
        unread=seen.unread if seen is not None else 0,
    )


def _unsigned(release: Path) -> Gathered | None:
    """Look at files of a release whose signature did not verify: there may be more to say."""
    try:
        with open_files(release) as files:
            return gather_unsigned(files)
    except FileSetError:
        return None


def _arrows(facts: Facts) -> list[Arrow]:
    """Return the steps of the recipe as arrows, with the rung that each reached."""
    if facts.lineage is None:
        return []
    reached = {step.id: f", {NAMES[step.rung]}" for step in facts.report.steps}
    names = {parent.id: f"parent {parent.id}" for parent in facts.lineage.parents}
    found: list[Arrow] = []
    last = ""
    for step in facts.lineage.recipe.steps:
        op = str(step.__struct_config__.tag)
        last = names[step.id] = f"{step.id}: {op}{reached.get(step.id, '')}"
        found += [Arrow(names[name], last) for name in step.inputs]
    return [*found, Arrow(last, "this release")] if last else []


def _card(release: Path, gate: Gate, rules: Rules) -> CardReport | None:
    try:
        return check_card(release, trust=gate.believed, levels=rules.levels())
    except (MalformedError, SignatureError, UnsignedError):
        return None  # the verification says which of them


def _of_card(problem: Problem) -> Reason:
    verdict = Verdict.VERIFIED
    if problem.level is Level.ERROR:
        rule = RULES.get(problem.code)
        contradicts = rule is not None and rule.contradicts
        verdict = Verdict.REFUTED if contradicts else Verdict.DENIED
        if problem.code == UNREADABLE:
            verdict = Verdict.UNPROVEN
    return Reason(
        code=problem.code,
        verdict=verdict,
        message=problem.message,
        where=problem.where,
        expected=problem.expected,
        found=problem.found,
        next=problem.next,
        file=problem.file,
        line=problem.line,
        minor=problem.level is Level.NOTE,
    )
