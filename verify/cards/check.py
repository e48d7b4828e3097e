"""Hold a model card against the manifest of its release."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from parentage.attest.trust import Trust
from parentage.manifest.card import (
    MAX_CARD,
    MAX_RECORD,
    README,
    RECORD,
    Card,
    Digests,
    read_card,
    read_record,
)
from parentage.manifest.errors import MalformedError, ParentageError, UsageError, printable
from parentage.verify.cards.authority import Authority, find_authority
from parentage.verify.cards.evidence import Evidence, Hit, Renamed, Rule, milder
from parentage.verify.cards.kinds import kinds_of
from parentage.verify.cards.names import parents_of
from parentage.verify.cards.report import CardReport
from parentage.verify.cards.rules import RULES
from parentage.verify.cards.surroundings import ADAPTER, Folder
from parentage.verify.showing import Level, Problem
from parentage.verify.verdict import Verdict

#: Problem of a card, or of what is compared with it, that can't be read.
UNREADABLE = "card-unreadable"
_LEVELS = (Level.ERROR, Level.WARNING, Level.NOTE)


def check(
    path: Path,
    *,
    trust: Trust | None = None,
    levels: Mapping[str, Level | None] | None = None,
    signed_card: Path | None = None,
    hub_tags: Sequence[str] | None = None,
    renamed: Renamed | None = None,
    weights: bool | None = False,
    name: str = "",
) -> CardReport:
    """Compare a release's card and the files beside it with its manifest.

    Args:
        path: the release's folder.
        trust: whose manifest counts; None: whatever lies there, unverified, a draft first.
        levels: by rule id, other than the rules' own; None: the rule is not looked at.
        signed_card: a copy of the card that was signed, to say what changed since.
        hub_tags: that the Hub gives the repository.
        renamed: asks a Hub where a name of a repository leads by now.
        weights: whether to read and digest the weights, too; None: they are not here.
        name: of the release, for messages; its path by default.

    Raises:
        UnsignedError: there is no manifest.
        SignatureError, MalformedError: the manifest is by nobody trusted, or broken.
        UsageError: `signed_card` is not the one that was signed.
    """
    folder = Folder(path)
    authority = find_authority(folder, trust)
    evidence = Evidence(
        folder=folder,
        name=name or str(path),
        data=None,
        card=None,
        authority=authority,
        kinds=kinds_of(authority.lineage, is_adapter=folder.has(ADAPTER)),
        parents=parents_of(authority.lineage),
        hub_tags=hub_tags,
        renamed=renamed,
        weights=weights,
    )
    unread = _read(evidence, signed_card)
    return judge(evidence, levels or {}, unread)


def judge(
    evidence: Evidence, levels: Mapping[str, Level | None], unread: list[Problem]
) -> CardReport:
    """Look at every rule and decide."""
    authority = evidence.authority
    report = CardReport(
        release=evidence.name,
        manifest=authority.state,
        root={str(k): v for k, v in authority.lineage.weights.root.items()},
        relation=evidence.kinds.best,
        problems=[*unread],
    )
    contradicted = False
    for rule in RULES.values():
        level = levels.get(rule.id, rule.level)
        if level is None:
            evidence.skip(f"{rule.id} {rule.slug}: set to ignore")
            continue
        report.rules.append(rule.id)
        try:
            for hit in rule.look(evidence):
                problem = _problem(rule, level, hit)
                report.problems.append(problem)
                contradicted |= rule.contradicts and problem.level is Level.ERROR
        except MalformedError as error:
            # What can't be read is not passed over: nobody could say that the rule holds.
            evidence.skip(f"{rule.id} {rule.slug}: what it looks at can't be read")
            unread = [*unread, _unreadable(error)]
            report.problems.append(unread[-1])
    if authority.state != "verified":
        evidence.skip("the signature: whose manifest this is (--key release.pub, or --policy FILE)")
    report.problems.sort(key=lambda problem: _LEVELS.index(problem.level))
    report.not_checked = evidence.not_checked
    report.decide(_verdict(report, contradicted=contradicted, unread=bool(unread)))
    return report


def _verdict(report: CardReport, *, contradicted: bool, unread: bool) -> Verdict:
    if contradicted:
        return Verdict.REFUTED
    if unread:
        return Verdict.UNPROVEN
    if any(problem.level is Level.ERROR for problem in report.problems):
        return Verdict.DENIED
    return Verdict.VERIFIED


def _read(evidence: Evidence, signed_card: Path | None) -> list[Problem]:
    """Read the card, what was signed of it, and say what can't be read."""
    folder, problems = evidence.folder, list[Problem]()
    try:
        evidence.data = folder.read(README, MAX_CARD)
        if evidence.data is not None:
            evidence.card = read_card(evidence.data)
    except ParentageError as error:
        evidence.skip("the card: it can't be read")
        evidence.data = evidence.data or b""
        problems.append(_unreadable(error))
    try:
        evidence.record = _record(folder, evidence.authority)
    except MalformedError as error:
        problems.append(_unreadable(error))
    if signed_card is not None:
        evidence.signed_card = _signed_card(signed_card, evidence.authority)
    return problems


def _record(folder: Folder, authority: Authority) -> Digests | None:
    """Return the digests of the signed card's parts, if the signature covers them and that card."""
    data = folder.read(RECORD, MAX_RECORD)
    if data is None or hashlib.sha256(data).hexdigest() != authority.resources.get(RECORD):
        return None
    record = read_record(data)
    return record if record.file == authority.resources.get(README) else None


def _signed_card(path: Path, authority: Authority) -> Card:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CARD + 1)
    except OSError as error:
        raise UsageError(f"can't read: {error.strerror}", where=str(path)) from error
    found = hashlib.sha256(data).hexdigest()
    expected = authority.resources.get(README)
    if found != expected:
        raise UsageError(
            "this is not the card that was signed",
            where=str(path),
            expected=f"sha256 {expected or 'of none: no card was signed'}",
            found=f"sha256 {found}",
            hint="git log -- README.md; git show REV:README.md",
        )
    return read_card(data, where=str(path))


def _unreadable(error: ParentageError) -> Problem:
    return Problem(
        code=UNREADABLE,
        level=Level.ERROR,
        message=error.what,
        where=error.where,
        expected=error.expected,
        found=error.found,
        next=error.hint or "correct it; what can't be read is not passed",
        file=README,
    )


def _problem(rule: Rule, level: Level, hit: Hit) -> Problem:
    return Problem(
        code=rule.id,
        level=milder(level, hit.at_most),
        message=printable(hit.message, 600),
        where=printable(hit.where, 300),
        expected=printable(hit.expected, 300),
        found=printable(hit.found, 300),
        next=printable(hit.next, 300),
        file=hit.file,
        line=hit.line,
    )
