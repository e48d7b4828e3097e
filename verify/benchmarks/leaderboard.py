"""Rows of a leaderboard, held against what was signed of each model: proven, claimed, contradicted, none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

import msgspec

from parentage.attest import clock
from parentage.attest.claims import Claim, Found
from parentage.attest.opening import Opened
from parentage.attest.roles import Believed
from parentage.attest.statements.benchmark import BINDINGS, Score
from parentage.manifest.errors import ParentageError, printable
from parentage.manifest.files import FileSet
from parentage.verify.benchmarks.ancestors import known
from parentage.verify.benchmarks.board import listed
from parentage.verify.benchmarks.claim import bound
from parentage.verify.benchmarks.rows import Row
from parentage.verify.benchmarks.rules import BenchmarkRules
from parentage.verify.benchmarks.statements import DISAGREES, Said, statements, strongest
from parentage.verify.claimed import Claimed
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination
from parentage.verify.judgement import wanted_of
from parentage.verify.remote import verify_remote
from parentage.verify.report import Report
from parentage.verify.showing import Shown, problems_of
from parentage.verify.sources.place import HubPlace
from parentage.verify.verdict import EXIT_CODES, Finding, Verdict, denial, finding

SCHEMA: Final = "https://parentage.dev/leaderboard/v0.1"
#: How far from a score rounding may lead, as a part of it, or of 1.
_ROUNDED: Final = Decimal("0.005")
#: Harnesses that write percents themselves: 0.95 of theirs is no 95.
_IN_PERCENT: Final = frozenset({"opencompass"})
State = Literal["proven", "claimed", "contradicted", "none"]
Source = Path | HubPlace


class Annotated(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A row, and what is known of it.

    Attributes:
        model, task, metric, dataset, value: of the row.
        state: proven: signed and as the gate demands; claimed: signed, and not so; contradicted: an
            accepted signer, or the weights, say otherwise; none: nobody who is listed says anything.
        why: what keeps it from being proven.
        root: weights root of the release that it was held against.
        binding, lineage: how the score and the weights are known.
        payload: SHA-256 of the statement that says the score, or another.
        place: what was looked at.
    """

    model: str
    value: str
    state: State
    task: str = ""
    metric: str = ""
    dataset: str = ""
    why: list[str] = []
    root: dict[str, str] = {}
    binding: str = ""
    lineage: str = ""
    payload: str = ""
    place: str = ""


class BoardReport(msgspec.Struct, kw_only=True, rename="camel"):
    """A leaderboard, annotated.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: verified where every row is proven; refuted where one is contradicted.
        board: as it was named.
        rows: in its order.
        counts: rows by state.
        findings: of rows that are not proven.
        not_checked: sentences.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.UNPROVEN
    exit_code: int = 4
    board: str = ""
    rows: list[Annotated] = []
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    not_checked: list[str] = []

    def shown(self, command: str = "gate leaderboard") -> Shown:
        """Return the report as any format shows it."""
        facts = [("rows", ", ".join(f"{n} {state}" for state, n in self.counts.items() if n))]
        facts += [(row.state, _line(row)) for row in self.rows]
        return Shown(
            command=command,
            subject=printable(self.board),
            verdict=self.verdict,
            exit_code=self.exit_code,
            problems=problems_of(self.findings),
            facts=tuple(facts),
            not_checked=tuple(self.not_checked),
            document=self,
        )


class _Facts(msgspec.Struct, frozen=True):
    """What is known of one model."""

    report: Report
    signature: Opened | None = None
    found: Found | None = None
    claims: tuple[Claim, ...] = ()


def annotate(
    board: str,
    rows: Sequence[Row],
    places: Mapping[str, Source],
    believed: Believed,
    rules: BenchmarkRules,
    *,
    elsewhere: Callable[[Row], Source | None] | None = None,
    demands: Demands | None = None,
) -> BoardReport:
    """Hold the rows of a board against what was signed.

    Args:
        board: how it is named.
        rows: of it.
        places: releases by the board's names of models.
        believed: the trust policy.
        rules: of the gate.
        elsewhere: where other models are; None: they are not looked for.
        demands: threads, progress and time.
    """
    asked = msgspec.structs.replace(demands or Demands(), level="integrity")
    known_places: dict[str, _Facts | str] = {}
    report = BoardReport(board=board)
    for row in rows:
        place = places.get(row.model) or (elsewhere(row) if elsewhere else None)
        if place is None:
            why = "no release was given for this model, and its name is none of a repository"
            report.rows.append(_row(row, "none", why=[why if elsewhere else why.partition(",")[0]]))
            continue
        key = str(place)
        if key not in known_places:
            known_places[key] = _look(place, believed, asked)
        facts = known_places[key]
        if isinstance(facts, str):
            report.rows.append(_row(row, "none", why=[facts], place=key))
        else:
            report.rows.append(_judged(row, key, facts, believed, rules, asked.now or clock.now()))
    _close(report)
    if any(isinstance(place, HubPlace) for place in places.values()) or elsewhere is not None:
        report.not_checked.append(
            "weights on a Hub were not downloaded: that they have the signed digests is what it declares"
        )
    return report


def _look(place: Source, believed: Believed, demands: Demands) -> _Facts | str:
    """Return what is known of a release, or why nothing is."""
    held: list[tuple[Opened, Found, tuple[Claim, ...]]] = []
    try:
        if isinstance(place, HubPlace):

            def told(_: FileSet, claimed: Claimed) -> None:
                held.append((claimed.signature, claimed.found, claimed.claims.opened))

            report = verify_remote(place, trust=believed, demands=demands, told=told)
        else:

            def shown(seen: Seen) -> None:
                found = Found(seen.lineage, seen.statement)
                held.append((seen.signature, found, seen.claims.opened))

            report = examination(place, believed, demands, lambda _state, _seen: None, told=shown)
    except ParentageError as error:
        return f"{error.what} [{error.code}]"
    return _Facts(report, *held[0]) if held else _Facts(report)


def _judged(
    row: Row, place: str, facts: _Facts, believed: Believed, rules: BenchmarkRules, now: datetime
) -> Annotated:
    against = [found for found in facts.report.findings if found.refutes or found.denies]
    if facts.report.verdict is Verdict.REFUTED:
        return _row(row, "contradicted", why=[_why(found) for found in against], place=place)
    if facts.signature is None or facts.found is None:
        return _row(row, "none", why=[_why(one) for one in facts.report.findings], place=place)
    wanted = wanted_of(facts.signature, facts.found)
    said = statements(
        facts.claims, release=bound(facts.signature, facts.found), signers=wanted.signers,
        result=None, results_sha256="", rules=rules, now=now,
    )  # fmt: skip
    lineage = known(rules.lineage, facts.report, facts.found, wanted, facts.claims, believed)
    annotated = _compared(row, said, believed, rules)
    why = [*map(_why, against), *annotated.why]
    if not lineage.how:
        why.append(f"lineage: {lineage.why_not}")
    state: State = "claimed" if annotated.state == "proven" and why else annotated.state
    return msgspec.structs.replace(
        annotated, state=state, why=why, place=place, lineage=lineage.how,
        root={str(profile): root for profile, root in facts.found.lineage.weights.root.items()},
    )  # fmt: skip


def _compared(
    row: Row, said: Sequence[Said], believed: Believed, rules: BenchmarkRules
) -> Annotated:
    """Look for the statement that says this score, and for one that says another."""
    about = [(one, score) for one in said for score in one.said.scores if _is_of(row, one, score)]
    equal = [(one, score) for one, score in about if _shows(row, one, score)]
    for one, score in equal:
        beside = [other for other in said if other.said.results == one.said.results]
        if any(other.counted and DISAGREES in other.why_not for other in beside):
            return _row(
                row, "contradicted", why=["a replay of this score disagrees"], payload=one.payload
            )
        binding, counted = strongest(beside, believed)
        why = _lacks(one, score, binding, rules)
        if counted and not why:
            return _row(row, "proven", payload=one.payload, binding=binding or "")
    if equal:
        one, score = equal[0]
        binding, _ = strongest([o for o in said if o.said.results == one.said.results], believed)
        return _row(row, "claimed", why=_lacks(one, score, binding, rules), payload=one.payload, binding=binding or "")  # fmt: skip
    others = [(one, score) for one, score in about if one.counted and not one.why_not]
    if others and (row.task or row.dataset):
        one, score = others[0]
        return _row(row, "contradicted", why=[f"an accepted evaluator signed {score.value} ({score.metric})"], payload=one.payload)  # fmt: skip
    return _row(row, "none", why=["no statement is about this score"])


def _lacks(one: Said, score: Score, binding: str | None, rules: BenchmarkRules) -> list[str]:
    why = list(one.why_not)
    if not one.counted:
        why.append("signed by nobody who may say it")
    elif binding is None:
        why.append("too few evaluators say it")
    elif BINDINGS.index(binding) < BINDINGS.index(rules.binding):
        why.append(f"{binding}, and {rules.binding} is demanded")
    tasks = [task for task in one.said.tasks if task.id == score.task]
    found = listed(tasks, [score], rules)
    return why + [_why(no) for no in found if no.denies or no.code == "metric-not-listed"]


def _is_of(row: Row, one: Said, score: Score) -> bool:
    if row.metric and row.metric != score.metric:
        return False
    task = next(task for task in one.said.tasks if task.id == score.task)
    if row.task:
        return row.task == task.id
    return not row.dataset or row.dataset == task.dataset


def _shows(row: Row, one: Said, score: Score) -> bool:
    percent = one.said.harness.name not in _IN_PERCENT
    return same_score(row.value, score.value, percent=percent)


def same_score(shown: str, signed: str, *, percent: bool = True) -> bool:
    """Say whether a board shows a signed score: as it is or in percent, rounded to the board's digits.

    A row chooses its own digits, so that it may be off by half a percent at most: 0.55 is never 1.

    Args:
        shown: on the board, decimal text.
        signed: in a statement, likewise.
        percent: whether a signed score up to 1 may be shown in percent.
    """
    value, exact = Decimal(shown), Decimal(signed)
    exponent = value.as_tuple().exponent
    half = Decimal(1).scaleb(exponent if isinstance(exponent, int) else 0) / 2
    if abs(value - exact) <= min(half, _ROUNDED * max(abs(exact), Decimal(1))):
        return True
    return percent and abs(exact) <= 1 and abs(value - 100 * exact) <= min(half, 100 * _ROUNDED)


def _row(
    row: Row,
    state: State,
    *,
    why: Sequence[str] = (),
    payload: str = "",
    binding: str = "",
    place: str = "",
) -> Annotated:
    return Annotated(
        model=row.model, value=row.value, task=row.task, metric=row.metric, dataset=row.dataset,
        state=state, why=[printable(text, 300) for text in dict.fromkeys(why)], payload=payload,
        binding=binding, place=place,
    )  # fmt: skip


def _why(found: Finding) -> str:
    return f"{found.message} [{found.code}]" + (f": {found.found}" if found.found else "")


def _close(report: BoardReport) -> None:
    states = ("proven", "claimed", "contradicted", "none")
    report.counts = {state: sum(row.state == state for row in report.rows) for state in states}
    for row in report.rows:
        where = " ".join(filter(None, (row.model, row.task or row.dataset, row.metric)))
        why = "; ".join(row.why)
        if row.state == "contradicted":
            report.findings.append(
                finding("score-contradicted", "a score is contradicted", where=where, expected=why, found=row.value)
            )  # fmt: skip
        elif row.state != "proven":
            report.findings.append(
                denial("score-unproven", f"a score is not proven: {row.state}", where=where, expected=why, found=row.value)
            )  # fmt: skip
    verdict = Verdict.VERIFIED
    if report.counts["proven"] != len(report.rows):
        verdict = Verdict.REFUTED if report.counts["contradicted"] else Verdict.DENIED
    report.verdict, report.exit_code = verdict, EXIT_CODES[verdict]


def _line(row: Annotated) -> str:
    names = " ".join(filter(None, (row.model, row.task or row.dataset, row.metric)))
    how = row.binding if row.state == "proven" else "; ".join(row.why)
    return f"{printable(names)} = {row.value}" + (f" ({printable(how, 300)})" if how else "")
