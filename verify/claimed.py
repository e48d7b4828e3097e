"""What a release claims: signature, lineage and tensor table opened, the policy asked; no weights are read.

The first half of every examination, for whoever has the small files: a folder, what `pull` fetched
first, what a remote check reads of a repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from parentage.attest import clock, oms
from parentage.attest.additional import additional_signers
from parentage.attest.claims import Claims, Found, choose_lineage, read_claims, subjects
from parentage.attest.lock import vanished
from parentage.attest.oms import Oms
from parentage.attest.opening import Opened
from parentage.attest.roles import Believed
from parentage.attest.roles import believed as as_believed
from parentage.attest.statement import Subject
from parentage.attest.trust import Trust
from parentage.manifest import digest, table
from parentage.manifest.errors import MalformedError, SignatureError, UnsignedError
from parentage.manifest.files import FileSet
from parentage.manifest.lineage import Lineage
from parentage.manifest.table import Table
from parentage.verify import verdict
from parentage.verify.demands import Demands
from parentage.verify.judgement import judge, of_problem
from parentage.verify.report import Locked, Report, signed_by
from parentage.verify.signed import open_signature, open_table
from parentage.verify.verdict import Finding, Verdict


class State(msgspec.Struct):
    """What the steps of an examination hand on.

    Attributes:
        report: as far as it is known.
        demands: how much to check.
        believed: who, and for what.
        findings, not_checked: for the report.
    """

    report: Report
    demands: Demands
    believed: Believed
    findings: list[Finding] = msgspec.field(default_factory=list)
    not_checked: list[str] = msgspec.field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing found so far refutes the claim, and the policy does not say no."""
        return not any(found.refutes or found.denies for found in self.findings)


class Claimed(msgspec.Struct):
    """What was signed, by somebody trusted.

    Attributes:
        signature: of the publisher.
        found: the lineage and its statement.
        claims: all lines.
        oms: every file that is signed.
        table: every tensor that is signed.
        tensors_sha256: of that table's file.
    """

    signature: Opened
    found: Found
    claims: Claims
    oms: Oms
    table: Table
    tensors_sha256: str

    @property
    def lineage(self) -> Lineage:
        """The lineage, as signed."""
        return self.found.lineage

    @property
    def profiles(self) -> tuple[digest.Profile, ...]:
        """Digest profiles of the table."""
        return tuple(profile for profile in digest.PROFILES if profile in self.table.roots)

    def subjects(self) -> tuple[Subject, ...]:
        """Return what a statement about this release is about."""
        return subjects(self.signature, self.tensors_sha256)


def begin(release: str, trust: Trust, demands: Demands) -> State:
    """Return the state that an examination starts from."""
    believed = as_believed(trust)
    report = Report(release=release)
    report.policy_sha256 = believed.sha256
    report.demanded = demands.rung if demands.level == "recompute" else demands.level
    return State(report, demands, believed)


@contextmanager
def deciding(state: State) -> Iterator[None]:
    """Decide when the block ends (10): what it could not open is a finding, and no error."""
    forced = None
    try:
        yield
    except UnsignedError as error:
        state.findings.append(verdict.of_error(error))
        memory = state.demands.remembered
        if memory is not None and memory.entry is not None:
            state.findings.append(of_problem(vanished(memory.entry)))
            state.report.lock = Locked(name=memory.name, state="refused")
        forced = Verdict.UNSIGNED if state.report.lock is None else Verdict.DENIED
    except (MalformedError, SignatureError) as error:
        state.findings.append(verdict.of_error(error))
        state.not_checked.append("everything after this failure")
    close(state, forced)


def open_claimed(state: State, files: FileSet, *, leaves: bool = True) -> Claimed:
    """Open what was signed, and ask the policy: steps (0) to (3) and (9).

    Args:
        state: gets signer, standing, findings.
        files: of the release; weights need not be among them.
        leaves: read those of all tensors, too.

    Raises:
        UnsignedError: no signature, or no lineage by its signer.
        MalformedError, SignatureError: something is broken, by somebody else, or about something else.
    """
    report = state.report
    signature = open_signature(files, state.believed)  # (0) (1)
    report.signer = signed_by(signature.signer)
    claims = read_claims(files, state.believed)
    report.additional = [signed_by(who) for who in additional_signers(signature, claims)]
    found = choose_lineage(files, signature, claims)  # (2) (3)
    now = state.demands.now or clock.now()
    memory = state.demands.remembered
    judged = judge(state.believed, signature, found, claims, now, memory)  # (9)
    if memory is not None and judged.lock is not None:
        report.lock = Locked(name=memory.name, state=judged.lock.state, entry=judged.lock.entry)
    report.standing, report.required = judged.standing, judged.required
    state.findings += judged.findings
    state.not_checked += judged.not_checked
    signed = oms.parse(signature.statement)
    oms.require_plain(signed)
    report.model = signed.root
    claimed = open_table(files, signed, leaves=leaves)
    held = files.files[table.TENSORS].read_small(table.MAX_TABLE)
    return Claimed(signature, found, claims, signed, claimed, hashlib.sha256(held).hexdigest())


def close(state: State, forced: Verdict | None) -> None:
    """(10) Decide."""
    report, demands = state.report, state.demands
    report.findings = sorted(
        state.findings, key=lambda found: (not found.refutes, not found.denies)
    )
    report.not_checked = state.not_checked
    if forced is not None:
        report.decide(forced)
    elif any(found.refutes for found in report.findings):
        report.decide(Verdict.REFUTED)
    elif any(found.denies for found in report.findings):
        report.decide(Verdict.DENIED)
    elif demands.level != "recompute":
        report.decide(Verdict.VERIFIED)
    else:
        enough = verdict.ENOUGH[demands.rung]
        proven = bool(report.steps) and all(step.rung in enough for step in report.steps)
        report.decide(Verdict.VERIFIED if proven else Verdict.UNPROVEN)
