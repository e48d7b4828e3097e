"""The whole examination of a release: numbered steps, evidence, one verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from parentage.attest import oms
from parentage.attest.bundle import MODEL_SIG
from parentage.attest.claims import find_lineage, subjects
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.statement import Subject
from parentage.attest.trust import Trust
from parentage.manifest import digest, table
from parentage.manifest.errors import (
    CannotRunError,
    MalformedError,
    SignatureError,
    UnsignedError,
    UsageError,
)
from parentage.manifest.files import FileSet, open_files
from parentage.manifest.hashing import Progress
from parentage.manifest.lineage import Lineage
from parentage.manifest.model import PICKLED, READERS, Model, model_of
from parentage.manifest.table import Table
from parentage.verify import integrity, verdict
from parentage.verify import parents as parenthood
from parentage.verify.report import Report, signed_by
from parentage.verify.verdict import Finding, Verdict
from parentage.verify.way import Way

if TYPE_CHECKING:
    from parentage.attest.signer import Signer
    from parentage.verify.history import Outcome
    from parentage.verify.parts import Part

Level = Literal["integrity", "recompute"]
_MAX_SIG = 64 << 20


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asks for.

    Attributes:
        level: "recompute", or "integrity" for signature and digests only.
        rung: weakest rung that counts as verified: "A", "B" or "C".
        whole_files: compare the SHA-256 of weights files too.
        device: "auto", "cpu", "cuda", "all" CUDA devices, or a list such as "cuda:0,cuda:1".
        threads: of digest and recompute; None: all cores of this process.
        progress: told of the bytes done.
        way: threads or Ray, all of it or a shard or a sample, with a journal or without.
    """

    level: Level = "recompute"
    rung: Literal["A", "B", "C"] = "A"
    whole_files: bool = False
    device: str = "auto"
    threads: int | None = None
    progress: Progress | None = None
    way: Way = Way()


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
        lineage: as signed.
        model: the weights, compared with the signed table.
        profiles: digest profiles of that table.
        stack: closes what is opened.
    """

    files: FileSet
    signature: Opened
    lineage: Lineage
    model: Model
    profiles: tuple[digest.Profile, ...]
    stack: ExitStack

    def subjects(self) -> tuple[Subject, ...]:
        """Return what a statement about this release is about."""
        found = self.files.files[table.TENSORS].read_small(table.MAX_TABLE)
        return subjects(self.signature, hashlib.sha256(found).hexdigest())


def verify(
    release: Path,
    *,
    trust: Trust,
    parents: Sequence[tuple[str | None, Path]] = (),
    against: Sequence[Path] = (),
    demands: Demands | None = None,
) -> Report:
    """Verify a release and return the report; disagreements are findings, never exceptions.

    Args:
        release: its folder, or a Hub cache snapshot.
        trust: the publisher's keys.
        parents: (id or None, folder or file) of declared parents.
        against: other weights to look for a hidden merge with.
        demands: how much to check.

    Raises:
        UsageError: a path does not exist.
        CannotRunError: an extra or a device is missing.
    """
    report, _ = verify_part(release, trust=trust, parents=parents, against=against, demands=demands)
    return report


def verify_part(
    release: Path,
    *,
    trust: Trust,
    parents: Sequence[tuple[str | None, Path]] = (),
    against: Sequence[Path] = (),
    demands: Demands | None = None,
    signer: Signer | None = None,
) -> tuple[Report, bytes]:
    """Verify a release, and sign what one shard found out.

    Args:
        release: its folder.
        trust: the publisher's keys.
        parents: (id or None, folder or file) of declared parents.
        against: other weights to look for a hidden merge with.
        demands: how much to check.
        signer: the verifier, where `demands.way` asks for a shard.

    Returns:
        The report, and the signed partial result; empty where there is nothing to be joined: a whole
        run, or a refutation before any tensor was recomputed.

    Raises:
        UsageError, CannotRunError: as `verify`; or a shard of what can't be cut.
    """
    for path in [*(path for _, path in parents), *against]:
        if not path.exists():
            raise UsageError("no such file or folder", where=str(path))
    demands = demands or Demands()
    if demands.way.shard is not None and (against or demands.level != "recompute"):
        raise UsageError("a shard is a part of a recompute: no --against, no --level integrity")
    signed: list[bytes] = []

    def history(state: State, seen: Seen) -> None:
        part = _from_parents(state, seen, parents, against)
        if part is not None and signer is not None:
            from parentage.verify import parts

            signed.append(parts.sign(part, seen.subjects(), signer))

    report = examination(release, trust, demands, history)
    return report, b"".join(signed)


def examination(
    release: Path,
    trust: Trust,
    demands: Demands,
    history: Callable[[State, Seen], None],
) -> Report:
    """Examine a release; `history` has its say about the recipe (6) to (8)."""
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
    # (9) decide: a contradiction refutes; a gap leaves it unproven; the rest is verified.
    state = State(Report(release=str(release)), demands)
    state.report.demanded = (
        state.demands.rung if state.demands.level == "recompute" else "integrity"
    )
    try:
        with open_files(release) as files, ExitStack() as stack:
            _examine(state, files, trust, stack, history)
    except UnsignedError as error:
        state.findings.append(verdict.of_error(error))
        _close(state, Verdict.UNSIGNED)
        return state.report
    except (MalformedError, SignatureError) as error:
        state.findings.append(verdict.of_error(error))
        state.not_checked.append("everything after this failure")
    _close(state, None)
    return state.report


def _examine(
    state: State,
    files: FileSet,
    trust: Trust,
    stack: ExitStack,
    history: Callable[[State, Seen], None],
) -> None:
    signature, lineage = _open_claims(state, files, trust)
    signed = oms.parse(signature.statement)
    model = model_of(files)
    claimed = _open_table(files, signed)
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
    state.findings += _check_root(lineage, claimed, model)
    roots = checked.digests.roots if checked.digests else {}
    state.report.root = {str(profile): root for profile, root in roots.items()}
    if not state.demands.whole_files:
        state.not_checked.append(
            "SHA-256 of weights files (their tensors and headers were compared; --files does both)"
        )
    if state.demands.level == "integrity":
        state.not_checked.append("the recipe: nothing was recomputed")
        return
    state.not_checked += _beside_the_tensors(model)
    history(state, Seen(files, signature, lineage, model, profiles, stack))


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


def _open_claims(state: State, files: FileSet, trust: Trust) -> tuple[Opened, Lineage]:
    if MODEL_SIG not in files.files:  # (0)
        raise UnsignedError(
            "no signature here",
            where=str(files.root),
            expected=f"{MODEL_SIG} and .parentage/claims.jsonl",
            hint="ask the publisher for a signed release, or sign it: parentage declare, parentage sign",
        )
    signature = open_bundle(files.files[MODEL_SIG].read_small(_MAX_SIG), trust, MODEL_SIG)  # (1)
    if signature.statement.predicate_type != oms.PREDICATE:
        raise MalformedError(
            "model.sig holds another statement",
            where=MODEL_SIG,
            expected=oms.PREDICATE,
            found=signature.statement.predicate_type,
        )
    state.report.signer = signed_by(signature.signer)
    lineage, ignored = find_lineage(files, signature, trust)  # (2) (3)
    if ignored:
        state.not_checked.append(
            f"{ignored} lines of claims.jsonl by other keys, or of other kinds"
        )
    return signature, lineage


def _open_table(files: FileSet, signed: oms.Oms) -> Table:
    """Read tensor table and leaves; both are covered by the signature's file digests."""
    parts: dict[str, bytes] = {}
    for name in (table.TENSORS, table.LEAVES):
        if name not in files.files or name not in signed.resources:
            raise MalformedError("release has no signed tensor table", where=name)
        parts[name] = files.files[name].read_small(table.MAX_TABLE)
        found = hashlib.sha256(parts[name]).hexdigest()
        if found != signed.resources[name]:
            raise MalformedError(
                "file is not the signed one",
                where=name,
                expected=signed.resources[name],
                found=found,
            )
    claimed = table.parse(parts[table.TENSORS])
    table.check_leaves(claimed, parts[table.LEAVES])
    return claimed


def _profiles_of_parents(
    lineage: Lineage, own: Sequence[digest.Profile]
) -> tuple[digest.Profile, ...]:
    """Return the profiles that the lineage names parents by, and the release's own."""
    named = {profile for parent in lineage.parents for profile in parent.weights} | set(own)
    return tuple(profile for profile in digest.PROFILES if profile in named)


def _check_root(lineage: Lineage, claimed: Table, model: Model) -> list[Finding]:
    said = lineage.weights
    found: list[Finding] = []
    if dict(said.root) != dict(claimed.roots):
        found.append(
            verdict.finding(
                "weights-root",
                "the lineage is about other weights",
                where=table.TENSORS,
                expected=str(dict(said.root)),
                found=str(dict(claimed.roots)),
            )
        )
    if said.tensors != len(claimed.tensors) or said.bytes != str(
        sum(line.offsets[1] - line.offsets[0] for line in claimed.tensors.values())
    ):
        found.append(
            verdict.finding(
                "weights-size",
                "the lineage counts other tensors or bytes than the table",
                where=str(model.root),
                expected=f"{said.tensors} tensors, {said.bytes} bytes",
                found=f"{len(claimed.tensors)} tensors",
            )
        )
    return found


def _from_parents(
    state: State,
    seen: Seen,
    parents: Sequence[tuple[str | None, Path]],
    against: Sequence[Path],
) -> Part | None:
    given, notes = parenthood.load(  # (6)
        parents,
        against,
        stack=seen.stack,
        profiles=_profiles_of_parents(seen.lineage, seen.profiles),
        threads=state.demands.threads,
        progress=state.demands.progress,
    )
    state.findings += notes
    try:
        # The one place where torch comes in: everything before this works without it.
        from parentage.verify.history import examine_history
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise CannotRunError(
            "recompute needs torch, which is not installed",
            hint="pip install 'parentage[recompute]', or verify --level integrity",
        ) from error
    outcome = examine_history(
        seen.model,
        seen.lineage,
        state.report.root,
        given,
        rung=state.demands.rung,
        device=state.demands.device,
        threads=state.demands.threads,
        progress=state.demands.progress,
        way=state.demands.way,
    )
    take(state, outcome)
    if outcome.part is not None:
        outcome.part.notes = [found for found in [*notes, *outcome.findings] if not found.refutes]
    return outcome.part


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
    """(9) Decide."""
    report, demands = state.report, state.demands
    report.findings = sorted(state.findings, key=lambda found: not found.refutes)
    report.not_checked = state.not_checked
    if forced is not None:
        report.decide(forced)
    elif any(found.refutes for found in report.findings):
        report.decide(Verdict.REFUTED)
    elif demands.level == "integrity":
        report.decide(Verdict.VERIFIED)
    else:
        enough = verdict.ENOUGH[demands.rung]
        proven = bool(report.steps) and all(step.rung in enough for step in report.steps)
        report.decide(Verdict.VERIFIED if proven else Verdict.UNPROVEN)
