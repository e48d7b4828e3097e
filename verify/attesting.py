"""A verifier's word: verify a release, and say so in two signed statements.

`recompute/v0.1` says what was recomputed; it is the same bytes for whoever finds the same. SLSA's summary
says when, by whom, against which policy. Both are about what was verified here, never about files that were
read a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage import __version__
from parentage.attest import clock
from parentage.attest.bundle import MAX_BUNDLE, MODEL_SIG
from parentage.attest.claims import Claim, Claims, Found
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.roles import Believed, person
from parentage.attest.roles import believed as as_believed
from parentage.attest.signer import AnySigner
from parentage.attest.speaking import sign
from parentage.attest.statement import Subject
from parentage.attest.statements import recompute, summary
from parentage.attest.statements.shared import Digest, Evidence, sha256
from parentage.attest.trust import Trust, keys_of
from parentage.manifest import canonical, digest
from parentage.manifest.errors import UsageError
from parentage.manifest.lineage import Lineage
from parentage.manifest.table import Table
from parentage.verify.check import from_parents
from parentage.verify.claimed import State
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination
from parentage.verify.judgement import judge, known
from parentage.verify.levels import levels, proven
from parentage.verify.parts import without_floats
from parentage.verify.report import Report
from parentage.verify.verdict import ORDER, TensorResult, Verdict

_URN: Final = "urn:parentage"


class Verifier(msgspec.Struct, frozen=True, kw_only=True):
    """Who verifies, and as what.

    Attributes:
        signer: makes the signatures.
        trust: opens them again.
        id: URI of the verifier; empty: made from the signer's name.
        resource: URI of what was verified; empty: made from the weights root.
        policy: URI of the policy; empty: made from its digest.
    """

    signer: AnySigner
    trust: Trust
    id: str = ""
    resource: str = ""
    policy: str = ""


class Attested(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        report: of the verification.
        lines: signed statements; none where there is nothing to say: unsigned, or undecided.
        fit: those of them that a release may carry: a recompute that verified, a summary that passed.
        evidence: one line a tensor, that the recompute's digest is of; empty without a recompute.
    """

    report: Report
    lines: tuple[bytes, ...] = ()
    fit: tuple[bytes, ...] = ()
    evidence: bytes = b""


class _Facts(msgspec.Struct, frozen=True):
    """What was signed, as it was verified."""

    signature: Opened
    found: Found
    claims: Claims
    subjects: tuple[Subject, ...]
    lineage: Lineage
    payload: str
    table: Table
    inputs: tuple[summary.Resource, ...]
    publisher: str


def attest(
    release: Path,
    verifier: Verifier,
    *,
    trust: Trust,
    parents: Sequence[tuple[str | None, Path]] = (),
    demands: Demands | None = None,
) -> Attested:
    """Verify a release and sign what was found.

    A recompute statement is made where every tensor was compared, whether it verified or refuted; a
    summary also of digests alone, of a sample that shows no difference, and of a policy's no. A policy
    that demands such a statement is asked again with this one, so that the first verifier gets through.

    Args:
        release: its folder.
        verifier: who signs.
        trust: whom to believe about the release.
        parents: (id or None, folder or file) of declared parents.
        demands: how much to check.

    Raises:
        UsageError: the verifier published the release, or a path does not exist.
        CannotRunError: as `verify`.
    """
    demands = demands or Demands()
    for path in [*(path for _, path in parents), *demands.ancestors]:
        if not path.exists():
            raise UsageError("no such file or folder", where=str(path))
    if demands.way.shard is not None:
        raise UsageError(
            "a shard is not a verdict", hint="parentage verify --shard, parentage join"
        )
    facts: list[_Facts] = []

    def told(seen: Seen) -> None:
        facts.append(_facts(seen))
        named = {f"key {key.fingerprint}" for key in keys_of(verifier.trust)}
        _refuse_publisher(facts[0], named)

    def history(state: State, seen: Seen) -> None:
        from_parents(state, seen, parents, ())

    kin = [path for _, path in parents]
    report = examination(release, trust, demands, history, told=told, kin=kin)
    if not facts:
        return Attested(report)
    return _attested(report, facts[0], verifier, as_believed(trust), demands)


def _attested(
    report: Report, facts: _Facts, verifier: Verifier, believed: Believed, demands: Demands
) -> Attested:
    now = demands.now or clock.now()
    lines, fit, evidence = [], [], b""
    if report.tensors and (proven(report) or report.verdict == Verdict.REFUTED):
        evidence = _evidence(report.tensors, facts.table)
        lines.append(_signed(_recompute(report, facts, evidence), facts, verifier))
        if proven(report):
            fit += lines
            _ask_again(report, facts, lines[0], believed, verifier, now)
    made = _summary(report, facts, verifier, now)
    if made is not None:
        lines.append(_signed(summary.build(facts.subjects, made), facts, verifier))
        if made.verification_result == "PASSED":
            fit.append(lines[-1])
    return Attested(report, tuple(lines), tuple(fit), evidence)


def _signed(payload: bytes, facts: _Facts, verifier: Verifier) -> bytes:
    line = sign(payload, verifier.signer, verifier.trust)
    _refuse_publisher(facts, {person(open_bundle(line, verifier.trust, "own").signer)})
    return line


def _ask_again(
    report: Report,
    facts: _Facts,
    line: bytes,
    believed: Believed,
    verifier: Verifier,
    now: datetime,
) -> None:
    """Ask the policy with the new statement among the claims, and put its answer into the report."""
    if report.verdict != Verdict.DENIED:
        return
    opened = open_bundle(line, verifier.trust, "own")
    digest_of = hashlib.sha256(line.rstrip(b"\n")).hexdigest()
    own = Claim("own:0", opened, believed.roles_of(opened.signer), digest_of)
    claims = Claims((*facts.claims.opened, own), facts.claims.unopened)
    judged = judge(believed, facts.signature, facts.found, claims, now)
    others = [found for found in report.findings if not found.denies]
    report.findings = [found for found in judged.findings if found.denies] + others
    report.required = judged.required
    if not any(found.denies for found in report.findings):
        report.decide(Verdict.VERIFIED)


def _refuse_publisher(facts: _Facts, named: set[str]) -> None:
    if facts.publisher in named:
        raise UsageError(
            "the publisher can't verify its own release",
            expected="a signer who did not sign the release",
            found=facts.publisher,
        )


def _facts(seen: Seen) -> _Facts:
    data = seen.files.files[MODEL_SIG].read_small(MAX_BUNDLE)
    inputs = {hashlib.sha256(data).hexdigest(): MODEL_SIG}
    for claim in known(seen.claims, seen.signature, seen.statement):
        inputs.setdefault(claim.sha256, claim.where.rpartition(":")[0])
    return _Facts(
        signature=seen.signature,
        found=Found(seen.lineage, seen.statement),
        claims=seen.claims,
        subjects=seen.subjects(),
        lineage=seen.lineage,
        payload=sha256(seen.statement.payload),
        table=seen.table,
        inputs=tuple(
            summary.Resource(uri=where, digest={"sha256": found})
            for found, where in sorted(inputs.items())
        ),
        publisher=person(seen.signature.signer),
    )


def _evidence(results: Sequence[TensorResult], table: Table) -> bytes:
    lines = []
    for result in sorted(results, key=lambda result: result.name.encode()):
        found: dict[str, Any] = without_floats(msgspec.to_builtins(result))
        held = table.tensors.get(result.name)
        found["identity"] = dict(held.identity) if held else {}
        lines.append(canonical.dumps(found))
    return b"".join(line + b"\n" for line in lines)


def _recompute(report: Report, facts: _Facts, evidence: bytes) -> bytes:
    weights = facts.lineage.weights.root
    roots = {parent.id: parent.weights for parent in facts.lineage.parents}
    found = recompute.Recompute(
        weights=weights,
        parents=tuple(
            recompute.Used(id=name, weights=roots[name]) for name in sorted(report.parents_found)
        ),
        verdict="verified" if proven(report) else "refuted",
        demanded=report.demanded,  # type: ignore[arg-type]  # tensors were compared, so it is a rung
        device=report.device,
        steps=tuple(
            recompute.StepDone(id=step.id, op=step.op, rung=step.rung.value, engine=step.engine)
            for step in report.steps
        ),
        rungs=_rungs(report.tensors, facts.table),
        evidence=Evidence(
            sha256=hashlib.sha256(evidence).hexdigest(), media_type=recompute.EVIDENCE
        ),
    )
    return recompute.build(Digest(sha256=facts.payload), facts.subjects, found)


def _rungs(results: Sequence[TensorResult], table: Table) -> tuple[recompute.Reached, ...]:
    lines = []
    for rung in ORDER:
        some = [result for result in results if result.rung == rung]
        if not some:
            continue
        root = {
            profile: digest.weights_root(
                profile, [(r.name, table.tensors[r.name].identity[profile]) for r in some]
            )
            for profile in table.roots
        }
        lines.append(
            recompute.Reached(
                rung=rung.value,  # type: ignore[arg-type]  # the same words
                tensors=len(some),
                elements=str(sum(result.elements for result in some)),
                root=root,
            )
        )
    return tuple(lines)


def _summary(
    report: Report, facts: _Facts, verifier: Verifier, now: datetime
) -> summary.Summary | None:
    held = levels(report, has_recipe=bool(facts.lineage.recipe.steps))
    refused = report.verdict in {Verdict.REFUTED, Verdict.DENIED}
    if not held and not refused:
        return None
    profile, root = next(iter(facts.lineage.weights.root.items()))
    policy = report.policy_sha256
    return summary.Summary(
        verifier=summary.Verifier(
            id=verifier.id or f"{_URN}:signer:{_urn(verifier.signer.identity)}",
            version={"parentage": __version__},
        ),
        time_verified=clock.to_text(now),
        resource_uri=verifier.resource or f"{_URN}:weights:{profile}:{root}",
        policy=summary.Resource(
            uri=verifier.policy or f"{_URN}:policy:{policy or 'none'}",
            digest={"sha256": policy} if policy else {},
        ),
        input_attestations=facts.inputs,
        verification_result="FAILED" if refused else "PASSED",
        verified_levels=(summary.FAILED,) if refused else held,
        slsa_version=summary.SLSA,
    )


def _urn(text: str) -> str:
    """Return text as the end of a URN."""
    from urllib.parse import quote

    return quote(text, safe="")
