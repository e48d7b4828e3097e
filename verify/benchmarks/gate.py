"""Ask a gate about a results file: may these scores be shown as this release's? All reasons at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import clock
from parentage.attest.claims import Claim, Found
from parentage.attest.opening import open_bundle
from parentage.attest.policy import Role
from parentage.attest.roles import Believed
from parentage.attest.statements.benchmark import BINDINGS, Binding
from parentage.attest.statements.shared import sha256
from parentage.manifest.errors import MalformedError, SignatureError, UnsignedError
from parentage.verify.benchmarks.ancestors import RUNGS, known
from parentage.verify.benchmarks.board import listed
from parentage.verify.benchmarks.claim import bound
from parentage.verify.benchmarks.contradictions import contradiction, contradicts
from parentage.verify.benchmarks.documents import read_file
from parentage.verify.benchmarks.readers import read_results
from parentage.verify.benchmarks.replayed import committed, disagreement, dtype_of
from parentage.verify.benchmarks.replaying import replay
from parentage.verify.benchmarks.report import BenchReport
from parentage.verify.benchmarks.result import Result
from parentage.verify.benchmarks.rules import BenchmarkRules
from parentage.verify.benchmarks.samples import digest_log
from parentage.verify.benchmarks.statements import (
    Said,
    statements,
    strongest,
)
from parentage.verify.check import from_parents
from parentage.verify.claimed import State
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination
from parentage.verify.judgement import wanted_of
from parentage.verify.report import Report
from parentage.verify.verdict import Verdict, denial

_NOT_RECOMPUTED: Final = "the recipe: nothing was recomputed"
Parents = Sequence[tuple[str | None, Path]]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate is asked.

    Attributes:
        results: the file.
        release: folder of the release that its scores are said to be of.
        parents: (id or None, folder) of its parents, to recompute it here.
        lines: files of statements that the release does not carry.
        log: to be replayed now.
    """

    results: Path
    release: Path
    parents: Parents = ()
    lines: Sequence[Path] = ()
    log: Path | None = None


class _Facts(msgspec.Struct):
    """What was signed, as it was verified."""

    found: Found
    claims: list[Claim]
    seen: Seen


def ask(
    asked: Asked, believed: Believed, rules: BenchmarkRules, *, demands: Demands | None = None
) -> BenchReport:
    """Say whether the scores of a results file may be shown as a release's.

    Args:
        asked: about what.
        believed: the trust policy.
        rules: of the gate.
        demands: device, threads, progress.

    Raises:
        ResultsError, JsonError: the results file is none.
        UsageError, CannotRunError: as `verify`, or as `replay`.
    """
    data = read_file(asked.results)
    result = read_results(data, str(asked.results))
    report = BenchReport(
        results=str(asked.results),
        results_sha256=hashlib.sha256(data).hexdigest(),
        release=str(asked.release),
        scores=list(result.scores),
    )
    demands = demands or Demands()
    now = demands.now or clock.now()
    verified, facts = _verified(asked, believed, rules, demands)
    report.root = verified.root
    report.findings += [one for one in verified.findings if one.refutes or one.denies]
    report.findings += listed(result.tasks, result.scores, rules)
    report.not_checked += [text for text in verified.not_checked if text != _NOT_RECOMPUTED]
    if facts is None:
        report.decide(verified.verdict)
        return report
    _lineage(report, verified, facts, believed, rules)
    unsigned = _statements(report, result, facts, believed, rules, now)
    if asked.log is not None and not unsigned:
        _replay(report, asked, facts, believed, rules, demands)
    _binding(report, rules)
    report.not_checked.append(
        "that the harness is honest and the prompts are the task's: see the binding"
    )
    report.close()
    if unsigned and report.verdict is not Verdict.REFUTED:
        report.decide(Verdict.UNSIGNED)
    return report


def _verified(
    asked: Asked, believed: Believed, rules: BenchmarkRules, demands: Demands
) -> tuple[Report, _Facts | None]:
    """Verify the release: by recomputing it where parents are at hand and a rung is demanded."""
    recomputing = bool(asked.parents) and rules.lineage in RUNGS
    chosen = msgspec.structs.replace(
        demands,
        level="recompute" if recomputing else "integrity",
        rung=RUNGS.get(rules.lineage, demands.rung),
    )
    facts: list[_Facts] = []

    def told(seen: Seen) -> None:
        found = Found(seen.lineage, seen.statement)
        facts.append(_Facts(found, [*seen.claims.opened, *_more(asked.lines, believed)], seen))

    def history(state: State, seen: Seen) -> None:
        from_parents(state, seen, asked.parents, ())

    kin = [path for _, path in asked.parents]
    report = examination(asked.release, believed, chosen, history, told=told, kin=kin)
    return report, facts[0] if facts else None


def _more(files: Sequence[Path], believed: Believed) -> list[Claim]:
    """Return the lines of other files that somebody who is believed signed."""
    found = []
    for path in files:
        for number, line in enumerate(read_file(path).split(b"\n"), 1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                opened = open_bundle(line, believed.everyone, where)
            except (MalformedError, SignatureError):
                continue  # as in claims.jsonl: nobody who is believed
            digest = hashlib.sha256(line).hexdigest()
            found.append(Claim(where, opened, believed.roles_of(opened.signer), digest))
    return found


def _lineage(
    report: BenchReport, verified: Report, facts: _Facts, believed: Believed, rules: BenchmarkRules
) -> None:
    wanted = wanted_of(facts.seen.signature, facts.found)
    found = known(rules.lineage, verified, facts.found, wanted, facts.claims, believed)
    report.lineage = found.how
    if rules.lineage not in RUNGS:
        report.not_checked.append(_NOT_RECOMPUTED)
    if not found.how:
        report.findings.append(
            denial(
                "lineage-not-known",
                "where these weights come from is not known as the gate demands",
                expected=rules.lineage,
                found=found.why_not,
                hint="--parent FOLDER recomputes it here; a verifier signs it with: parentage attest",
            )
        )


def _statements(
    report: BenchReport,
    result: Result,
    facts: _Facts,
    believed: Believed,
    rules: BenchmarkRules,
    now: datetime,
) -> bool:
    """Look at the benchmark statements; say whether there is none about this file at all."""
    signature = facts.seen.signature
    said = statements(
        facts.claims,
        release=bound(signature, facts.found),
        signers=wanted_of(signature, facts.found).signers,
        result=result,
        results_sha256=report.results_sha256,
        rules=rules,
        now=now,
    )
    binding, counted = strongest(said, believed)
    report.binding = binding or ""
    report.statements = [heard for one in said for heard in one.heard()]
    about = [one for one in said if one.said.results.sha256 == report.results_sha256]
    wrong = [one for one in said if contradicts(one, result, edited=not about)]
    report.findings += [contradiction(one, report.root, report.results_sha256) for one in wrong]
    if not about:
        report.findings.append(
            denial(
                "benchmark-unsigned",
                "no statement is about this results file",
                where=report.results,
                expected=f"a benchmark statement with results sha256 {report.results_sha256}",
                found=f"{len(said)} statements about other files",
                hint="parentage bench attach RELEASE RESULTS, by an evaluator of the trust policy",
            )
        )
    elif binding is None:
        _nobody(report, counted, about, believed)
    return not about


def _nobody(
    report: BenchReport, counted: Sequence[Said], about: Sequence[Said], believed: Believed
) -> None:
    needed = believed.threshold(Role.EVALUATOR)
    people = frozenset[str]().union(*(one.counted for one in counted))
    why = dict.fromkeys(text for one in about for heard in one.heard() for text in heard.why_not)
    report.findings.append(
        denial(
            "statement-not-counted",
            "no statement about this results file counts",
            expected=f"{needed} evaluators of the trust policy",
            found=", ".join(sorted(people)) or "; ".join(why) or "nobody",
            hint="list the signer in the trust policy: roles: {evaluator: {any: […]}}",
        )
    )


def _replay(
    report: BenchReport,
    asked: Asked,
    facts: _Facts,
    believed: Believed,
    rules: BenchmarkRules,
    demands: Demands,
) -> None:
    """Replay the log now, of the newest counted statement that names one."""
    assert asked.log is not None  # noqa: S101  (the caller looked)
    counted = {heard.payload for heard in report.statements if not heard.why_not}
    lines = [claim for claim in facts.claims if sha256(claim.opened.payload) in counted]
    try:
        of = committed(facts.seen.signature, facts.found, lines, digest_log(asked.log))
    except UnsignedError as error:
        report.findings.append(
            denial(
                "log-unsigned",
                error.what,
                where=str(asked.log),
                expected=error.expected,
                hint=error.hint,
            )
        )
        return
    done = replay(
        asked.release, asked.log, claim=of.payload, committed=of.said.samples,
        samples=rules.replay.samples, trust=believed, demands=demands, dtype=dtype_of(of.said),
    )  # fmt: skip
    report.replay, report.worst = done.replayed, list(done.worst)
    if done.replayed.agrees:
        report.binding = "replayed"
    else:
        report.findings.append(disagreement(done))


def _binding(report: BenchReport, rules: BenchmarkRules) -> None:
    found: Binding | None = next((one for one in BINDINGS if one == report.binding), None)
    if found is not None and BINDINGS.index(found) < BINDINGS.index(rules.binding):
        report.findings.append(
            denial(
                "binding-too-weak",
                "the scores are bound to the weights more weakly than the gate demands",
                expected=rules.binding,
                found=found,
                hint="observed: parentage bench run; replayed: parentage bench replay",
            )
        )
