"""A verifier's word about somebody's scores: replay what they logged, and say so in a statement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from parentage.attest import clock
from parentage.attest.claims import Claim, Claims, Found
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.policy import Role
from parentage.attest.roles import person
from parentage.attest.signer import AnySigner
from parentage.attest.speaking import sign
from parentage.attest.statements import benchmark
from parentage.attest.statements.benchmark import Benchmark, SampleLog
from parentage.attest.statements.shared import sha256
from parentage.attest.trust import Trust, keys_of
from parentage.manifest.errors import StatementError, UnsignedError, UsageError
from parentage.verify.benchmarks.claim import bound
from parentage.verify.benchmarks.replaying import Replay, replay
from parentage.verify.benchmarks.report import BenchReport
from parentage.verify.benchmarks.samples import digest_log
from parentage.verify.benchmarks.scoring import DTYPES
from parentage.verify.demands import Demands
from parentage.verify.verdict import Finding, finding

#: Whose scores may be replayed: those who may claim any.
CLAIMANTS = frozenset({Role.EVALUATOR, Role.PUBLISHER})


class Verifier(msgspec.Struct, frozen=True):
    """Who replays: makes the signature, and opens it again."""

    signer: AnySigner
    trust: Trust


class Committed(msgspec.Struct, frozen=True):
    """A statement that names a log.

    Attributes:
        payload: SHA-256 of its payload.
        said: what it says.
        claims: who signed it.
    """

    payload: str
    said: Benchmark
    claims: tuple[Claim, ...]


def committed(
    signature: Opened, found: Found, claims: Sequence[Claim], log: SampleLog
) -> Committed:
    """Return the newest accepted statement about a release that names a log.

    Raises:
        UnsignedError: there is none.
    """
    named = bound(signature, found).named()
    by_payload: dict[str, list[Claim]] = {}
    said: dict[str, Benchmark] = {}
    for claim in claims:
        statement = claim.opened.statement
        if statement.predicate_type != benchmark.TYPE or not claim.roles & CLAIMANTS:
            continue
        try:
            subjects, one = benchmark.parse(statement, claim.where)
        except StatementError:
            continue
        if subjects == named and log in one.samples and one.binding != "replayed":
            payload = sha256(claim.opened.payload)
            said[payload] = one
            by_payload.setdefault(payload, []).append(claim)
    if not said:
        raise UnsignedError(
            "no accepted statement about this release names this log",
            expected=f"a benchmark statement with samples sha256 {log.sha256}",
            hint="parentage bench attach RELEASE RESULTS --samples LOG, by an evaluator of the policy",
        )
    payload = max(said, key=lambda one: (said[one].created, one))
    return Committed(payload, said[payload], tuple(by_payload[payload]))


def again(
    release: Path,
    log: Path,
    signature: Opened,
    found: Found,
    claims: Claims,
    *,
    by: Verifier,
    samples: int,
    trust: Trust,
    demands: Demands,
    dtype: str = "",
    nonce: str = "",
) -> tuple[BenchReport, bytes]:
    """Replay the log that a statement about a release names.

    Args:
        release: its folder.
        log: JSON lines.
        signature: of the release.
        found: its lineage.
        claims: all lines.
        by: who replays.
        samples: how many requests.
        trust: whom to believe about the release.
        demands: device, threads, progress.
        dtype: to compute in; empty: that of the logged run, else the model's own.
        nonce: to repeat a replay; empty: drawn now.

    Returns:
        The report, and the verifier's signed statement: one line.

    Raises:
        UsageError: who replays signed the release, or the scores.
        UnsignedError: no accepted statement names this log.
        RefusedError, CannotRunError, ResultsError: as `replaying.replay`.
    """
    of = committed(signature, found, claims.opened, digest_log(log))
    signers = {person(claim.opened.signer) for claim in of.claims} | {person(signature.signer)}
    _refuse(signers, {f"key {key.fingerprint}" for key in keys_of(by.trust)})
    done = replay(
        release, log, claim=of.payload, committed=of.said.samples, samples=samples,
        trust=trust, demands=demands, dtype=dtype or dtype_of(of.said), nonce=nonce,
    )  # fmt: skip
    report = BenchReport(
        results=str(log),
        release=str(release),
        root={str(profile): root for profile, root in found.lineage.weights.root.items()},
        scores=list(of.said.scores),
        replay=done.replayed,
        worst=list(done.worst),
        not_checked=_not_checked(done),
    )
    if not done.replayed.agrees:
        report.findings.append(disagreement(done))
    report.close()
    made = msgspec.structs.replace(
        of.said,
        binding="replayed",
        created=clock.to_text(clock.now()),
        observed=None,
        replayed=done.replayed,
        statement="",
    )
    here = bound(signature, found)
    line = sign(benchmark.build(here.lineage, here.subjects, made), by.signer, by.trust)
    _refuse(signers, {person(open_bundle(line, by.trust, "own").signer)})
    return report, line


def dtype_of(said: Benchmark) -> str:
    """Return the dtype that a logged run computed in, where it says one that we know."""
    return said.harness.dtype if said.harness.dtype in DTYPES else ""


def _refuse(signers: set[str], named: set[str]) -> None:
    if signers & named:
        raise UsageError(
            "a replay is by somebody else than whoever signed the scores or the release",
            found=min(signers & named),
        )


def disagreement(done: Replay) -> Finding:
    """Return the finding of a replay that differs from its log."""
    worst = done.worst[0]
    return finding(
        "replay-differs",
        "these weights do not give the answers that were logged",
        where=worst.where,
        expected=f"{worst.logged} nats, within {done.replayed.tolerance}",
        found=f"{worst.found} nats; median difference {done.replayed.median}",
        hint="the scores are of other weights, or of another prompt, tokenizer or dtype",
    )


def _not_checked(done: Replay) -> list[str]:
    said = done.replayed
    notes = ["that the scores follow from the logged answers, and the logged prompts from the task"]
    left = said.of_requests - said.requests
    if left:
        notes.append(f"{left} of {said.of_requests} log-likelihoods, at places not drawn")
    if done.others:
        notes.append(f"{done.others} answers that are no log-likelihoods, such as generated text")
    return notes
