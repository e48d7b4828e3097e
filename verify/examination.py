"""The examination of a release: numbered steps, evidence, one verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from parentage.attest import clock, oms
from parentage.attest.additional import additional_signers
from parentage.attest.claims import Claims, choose_lineage, read_claims, subjects
from parentage.attest.lock import vanished
from parentage.attest.opening import Opened
from parentage.attest.roles import Believed
from parentage.attest.roles import believed as as_believed
from parentage.attest.statement import Subject
from parentage.attest.statements.shared import sha256
from parentage.attest.trust import Trust
from parentage.manifest import digest, table
from parentage.manifest.errors import MalformedError, SignatureError, UnsignedError
from parentage.manifest.files import FileSet, open_files
from parentage.manifest.lineage import Lineage
from parentage.manifest.model import PICKLED, READERS, Model, model_of
from parentage.manifest.table import Table
from parentage.verify import integrity, verdict
from parentage.verify.ancestry import Family, follow
from parentage.verify.demands import Demands
from parentage.verify.judgement import judge, of_problem
from parentage.verify.report import Locked, Report, signed_by
from parentage.verify.signed import check_root, open_signature, open_table
from parentage.verify.verdict import Finding, Verdict

if TYPE_CHECKING:
    from parentage.verify.outcome import Outcome


class State(msgspec.Struct):
    """What the steps hand on."""

    report: Report
    demands: Demands
    findings: list[Finding] = msgspec.field(default_factory=list)
    not_checked: list[str] = msgspec.field(default_factory=list)


class Seen(msgspec.Struct):
    """What is known before anything is recomputed.

    Attributes:
        files: of the release.
        signature: of the publisher.
        statement: of the lineage.
        lineage: as signed.
        model: the weights, compared with the signed table.
        profiles: digest profiles of that table.
        stack: closes what is opened.
        claims: all lines.
        table: the signed one.
    """

    files: FileSet
    signature: Opened
    statement: Opened
    lineage: Lineage
    model: Model
    profiles: tuple[digest.Profile, ...]
    stack: ExitStack
    claims: Claims
    table: Table

    def subjects(self) -> tuple[Subject, ...]:
        """Return what a statement about this release is about."""
        found = self.files.files[table.TENSORS].read_small(table.MAX_TABLE)
        return subjects(self.signature, hashlib.sha256(found).hexdigest())


def examination(
    release: Path,
    trust: Trust,
    demands: Demands,
    history: Callable[[State, Seen], None],
    *,
    told: Callable[[Seen], None] | None = None,
    kin: Sequence[Path] = (),
) -> Report:
    """Examine a release; `history` has its say about the recipe (6) to (8).

    `told` is shown what was signed, once every byte of it was looked at and whatever came of that. The
    claims of `kin`, where they are folders, are followed.
    """
    # The examination, in this order; each step is labelled where it happens:
    # (0) find signature and claims; without them there is nothing to verify.
    # (1) verify the publisher's OMS signature, and only then read its payload.
    # (2) verify the lineage bundle, and only then read its payload.
    # (3) match all three subjects: the OMS root alone does not bind file names.
    # (4) compare files on disk with the signed list: missing, extra, changed, ignored.
    # (5) compare every tensor, header and leaf with the signed table, and the weights root.
    # (6) find the parents by the root of their weights.
    # (7) recompute every computable step and compare element by element.
    # (8) look for contradictions in declared steps, and for merges that nobody declared.
    # (9) ask the policy: who signed in which role, how many of them, what was said since.
    # (10) decide: a contradiction refutes; then the policy denies; a gap leaves it unproven; the rest
    #      is verified.
    state = State(Report(release=str(release)), demands)
    believed = as_believed(trust)
    state.report.policy_sha256 = believed.sha256
    state.report.demanded = (
        state.demands.rung if state.demands.level == "recompute" else "integrity"
    )
    try:
        with open_files(release) as files, ExitStack() as stack:
            seen = _examine(state, files, believed, stack)
            if told is not None:
                told(seen)
            family = _follow(state, seen, kin, believed)
            if state.demands.level == "recompute":
                history(state, seen)
            _say_who_was_not_followed(state, family)
    except UnsignedError as error:
        state.findings.append(verdict.of_error(error))
        memory = state.demands.remembered
        if memory is not None and memory.entry is not None:
            state.findings.append(of_problem(vanished(memory.entry)))
            state.report.lock = Locked(name=memory.name, state="refused")
        _close(state, Verdict.UNSIGNED if state.report.lock is None else Verdict.DENIED)
        return state.report
    except (MalformedError, SignatureError) as error:
        state.findings.append(verdict.of_error(error))
        state.not_checked.append("everything after this failure")
    _close(state, None)
    return state.report


def _examine(
    state: State,
    files: FileSet,
    believed: Believed,
    stack: ExitStack,
) -> Seen:
    signature = open_signature(files, believed)  # (0) (1)
    state.report.signer = signed_by(signature.signer)
    claims = read_claims(files, believed)
    state.report.additional = [signed_by(who) for who in additional_signers(signature, claims)]
    found = choose_lineage(files, signature, claims)  # (2) (3)
    lineage = found.lineage
    now = state.demands.now or clock.now()
    memory = state.demands.remembered
    judged = judge(believed, signature, found, claims, now, memory)  # (9)
    if memory is not None and judged.lock is not None:
        state.report.lock = Locked(
            name=memory.name, state=judged.lock.state, entry=judged.lock.entry
        )
    state.report.standing, state.report.required = judged.standing, judged.required
    state.findings += judged.findings
    state.not_checked += judged.not_checked
    signed = oms.parse(signature.statement)
    oms.require_plain(signed)
    model = model_of(files)
    claimed = open_table(files, signed)
    profiles = tuple(p for p in digest.PROFILES if p in claimed.roots)
    checked = integrity.check_files(model, signed)  # (4)
    integrity.check_bytes(  # (5)
        checked,
        model,
        signed,
        claimed,
        profiles=profiles,
        whole_files=state.demands.whole_files,
        threads=state.demands.threads,
        progress=state.demands.progress,
    )
    state.report.coverage = checked.coverage
    state.findings += checked.findings
    state.findings += check_root(lineage, claimed, str(model.root))
    roots = checked.digests.roots if checked.digests else {}
    state.report.root = {str(profile): root for profile, root in roots.items()}
    if not state.demands.whole_files:
        state.not_checked.append(
            "SHA-256 of weights files (their tensors and headers were compared; --files does both)"
        )
    if state.demands.level == "integrity":
        state.not_checked.append("the recipe: nothing was recomputed")
    else:
        state.not_checked += _beside_the_tensors(model)
    return Seen(files, signature, found.opened, lineage, model, profiles, stack, claims, claimed)


def _follow(state: State, seen: Seen, kin: Sequence[Path], believed: Believed) -> Family:
    """Follow the claims of the parents: what they come from, and where they stand."""
    family = follow(
        seen.lineage,
        sha256(seen.statement.payload),
        Path(state.report.release).name or "release",
        [path for path in [*kin, *state.demands.ancestors] if path.is_dir()],
        believed,
        state.demands.now or clock.now(),
        hashing=state.demands.level == "recompute",
    )
    state.findings += family.findings
    state.report.ancestors = family.ancestors
    return family


def _say_who_was_not_followed(state: State, family: Family) -> None:
    names = [name for name in state.report.parents_found if name not in family.followed]
    if names:
        state.not_checked.append(
            f"where {', '.join(names)} come from: their weights have the declared roots, and "
            "their own lineage was not followed"
        )


def _beside_the_tensors(model: Model) -> list[str]:
    """Say what a release holds that loaders may read and no recipe is about."""
    said = {
        ".onnx": "the graph of {}: signed, but recipes are about initialisers, not about nodes and constants",
        ".gguf": "the metadata of {} (hyperparameters, tokenizer): signed, but recipes are about tensors",
    }
    notes = [
        text.format(name)
        for name in sorted(model.headers)
        for suffix, text in said.items()
        if name.endswith(suffix)
    ]
    named = {n for n in model.files.files if n.endswith((*READERS, *PICKLED))}
    others = sorted(named - set(model.headers) - {table.LEAVES})
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        notes.append(
            f"other weights in this release: {shown}: signed, but recipes are not about them"
        )
    return notes


def take(state: State, outcome: Outcome) -> None:
    """Take what was found out about the recipe into the report."""
    report = state.report
    report.steps, report.tensors = outcome.steps, outcome.tensors
    report.parents_found, report.parents_missing = outcome.found, outcome.missing
    report.device, report.reached = outcome.device, outcome.reached
    report.sample = outcome.sample
    state.findings += outcome.findings
    state.not_checked += outcome.not_checked


def _close(state: State, forced: Verdict | None) -> None:
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
    elif demands.level == "integrity":
        report.decide(Verdict.VERIFIED)
    else:
        enough = verdict.ENOUGH[demands.rung]
        proven = bool(report.steps) and all(step.rung in enough for step in report.steps)
        report.decide(Verdict.VERIFIED if proven else Verdict.UNPROVEN)
