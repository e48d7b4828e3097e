"""Benchmark statements about a results file: which of them count, and what keeps the others from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from parentage.attest.claims import Claim
from parentage.attest.clock import length, parse_time
from parentage.attest.policy import Role
from parentage.attest.roles import Believed, persons
from parentage.attest.statement import Subject
from parentage.attest.statements import benchmark
from parentage.attest.statements.benchmark import Benchmark, Binding, Replayed
from parentage.attest.statements.shared import sha256
from parentage.manifest.errors import StatementError
from parentage.verify.benchmarks.claim import Bound
from parentage.verify.benchmarks.report import Heard
from parentage.verify.benchmarks.result import Result
from parentage.verify.benchmarks.rules import BenchmarkRules, ReplayRule
from parentage.verify.report import signed_by

#: Clocks differ.
_AHEAD: Final = timedelta(minutes=5)
OTHER_WEIGHTS: Final = "of other weights"
DISAGREES: Final = "its replay disagrees"
_NOBODY: Final = "by nobody who may say it: an evaluator, and for a replay not the release's signer"


class Said(msgspec.Struct, frozen=True):
    """One payload, what it says, and who signed it.

    Attributes:
        payload: its SHA-256.
        said: what it says.
        subjects: what it is about.
        claims: the lines.
        counted: distinct persons who may say it.
        why_not: what keeps it from being counted, whoever signed it.
    """

    payload: str
    said: Benchmark
    subjects: tuple[Subject, ...]
    claims: tuple[Claim, ...]
    counted: frozenset[str]
    why_not: tuple[str, ...]

    def heard(self) -> Iterable[Heard]:
        """Yield each signature of it, for a report."""
        for claim in self.claims:
            own = () if persons([claim.opened.signer]) & self.counted else (_NOBODY,)
            yield Heard(
                payload=self.payload,
                signer=signed_by(claim.opened.signer),
                roles=sorted(claim.roles),
                binding=self.said.binding,
                created=self.said.created,
                why_not=[*self.why_not, *own],
            )


def statements(
    claims: Iterable[Claim],
    *,
    release: Bound,
    signers: frozenset[str],
    result: Result | None,
    results_sha256: str,
    rules: BenchmarkRules,
    now: datetime,
) -> list[Said]:
    """Return the benchmark statements among some claims, by payload.

    Args:
        claims: verified lines.
        release: that they must be about.
        signers: persons who signed the release.
        result: what the results file says; None: any results file.
        results_sha256: of its bytes.
        rules: of the gate.
        now: the time.
    """
    by_payload: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.opened.statement.predicate_type == benchmark.TYPE:
            by_payload.setdefault(sha256(claim.opened.payload), []).append(claim)
    found = []
    for payload, some in sorted(by_payload.items()):
        try:
            subjects, said = benchmark.parse(some[0].opened.statement, some[0].where)
        except StatementError:
            continue  # counted among the lines that say nothing here
        why_not = _why_not(said, subjects, release, result, results_sha256, rules, now)
        found.append(
            Said(payload, said, subjects, tuple(some), _who(said, some, signers), tuple(why_not))
        )
    return found


def strongest(said: Sequence[Said], believed: Believed) -> tuple[Binding | None, list[Said]]:
    """Return the strongest binding that enough persons stand for, and the statements that count."""
    needed = believed.threshold(Role.EVALUATOR)
    counted = [one for one in said if not one.why_not and one.counted]
    # An asserted and an observed statement say the same scores: their signers are counted together.
    plain = [one for one in counted if one.said.binding != "replayed"]
    if len(_people(plain)) < needed:
        return None, counted
    claimed = {one.payload: one.counted for one in plain}
    replays = [one for one in counted if _replays(one, claimed)]
    if replays:
        return "replayed", [*plain, *replays]
    seen = _people(one for one in plain if one.said.binding == "observed")
    return "observed" if len(seen) >= needed else "asserted", plain


def _people(said: Iterable[Said]) -> frozenset[str]:
    return frozenset[str]().union(*(one.counted for one in said))


def _replays(one: Said, claimed: Mapping[str, frozenset[str]]) -> bool:
    """Say whether it replays a claim that counts, by somebody who does not stand for that claim."""
    if one.said.replayed is None:
        return False
    of = claimed.get(one.said.replayed.claim.sha256)
    return of is not None and bool(one.counted - of)


def _who(said: Benchmark, claims: Iterable[Claim], signers: frozenset[str]) -> frozenset[str]:
    allowed = {Role.EVALUATOR}
    if said.binding == "replayed":
        allowed.add(Role.VERIFIER)
    who = persons(claim.opened.signer for claim in claims if claim.roles & allowed)
    return who - signers if said.binding == "replayed" else who


def _why_not(
    said: Benchmark,
    subjects: tuple[Subject, ...],
    release: Bound,
    result: Result | None,
    results_sha256: str,
    rules: BenchmarkRules,
    now: datetime,
) -> Iterable[str]:
    if result is not None and said.results.sha256 != results_sha256:
        yield "of another results file"
        return
    if dict(said.weights) != dict(release.weights):
        yield OTHER_WEIGHTS
    elif subjects != release.named():
        yield "of another lineage, or other files, of these weights"
    if result is not None and not _same(said, result):
        yield "says other scores than the file that it names"
    created = parse_time(said.created, "created")
    if created > now + _AHEAD:
        yield "made in the future"
    if rules.max_age is not None and now > created + length(rules.max_age):
        yield f"older than {rules.max_age}"
    if rules.isolated and said.observed is not None and said.observed.isolation == "environment":
        yield "its run was not cut off from the network"
    if said.replayed is not None:
        yield from _lacks(said.replayed, rules.replay)


def _same(said: Benchmark, result: Result) -> bool:
    """Say whether a statement says what a file says; it may leave out what its reader did not know."""
    tasks = {task.id: task for task in result.tasks}
    scores = {(score.task, score.metric, score.filter): score for score in result.scores}
    pairs = [
        (said.harness, result.harness),
        *((task, tasks.get(task.id)) for task in said.tasks),
        *((score, scores.get((score.task, score.metric, score.filter))) for score in said.scores),
    ]
    whole = len(said.tasks) == len(tasks) and len(said.scores) == len(scores)
    return whole and all(found is not None and _says(one, found) for one, found in pairs)


def _says(one: msgspec.Struct, found: msgspec.Struct) -> bool:
    return all(
        getattr(one, name) in {"", None, getattr(found, name)} for name in one.__struct_fields__
    )


def _lacks(again: Replayed, rule: ReplayRule) -> Iterable[str]:
    if not again.agrees:
        yield DISAGREES
    if again.requests < min(rule.samples, again.of_requests):
        yield f"only {again.requests} samples were replayed"
    if Decimal(again.tolerance) > Decimal(rule.max_tolerance):
        yield f"its tolerance is {again.tolerance} nats"
