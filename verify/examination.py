"""The examination of a release: numbered steps, evidence, one verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from parentage.attest import clock
from parentage.attest.claims import Claims
from parentage.attest.opening import Opened
from parentage.attest.statement import Subject
from parentage.attest.statements.shared import sha256
from parentage.attest.trust import Trust
from parentage.manifest import digest, table
from parentage.manifest.files import FileSet, open_files
from parentage.manifest.lineage import Lineage
from parentage.manifest.model import PICKLED, READERS, Model, model_of
from parentage.manifest.table import Table
from parentage.verify import integrity
from parentage.verify.ancestry import Family, follow
from parentage.verify.claimed import Claimed, State, begin, deciding, open_claimed
from parentage.verify.demands import Demands
from parentage.verify.report import Report
from parentage.verify.signed import check_root
from parentage.verify.sources.cached import name_of

if TYPE_CHECKING:
    from parentage.verify.outcome import Outcome


class Seen(msgspec.Struct):
    """What is known before anything is recomputed.

    Attributes:
        files: of the release.
        claimed: what was signed.
        model: the weights, compared with the signed table.
        stack: closes what is opened.
    """

    files: FileSet
    claimed: Claimed
    model: Model
    stack: ExitStack

    @property
    def signature(self) -> Opened:
        """The publisher's."""
        return self.claimed.signature

    @property
    def statement(self) -> Opened:
        """Of the lineage."""
        return self.claimed.found.opened

    @property
    def lineage(self) -> Lineage:
        """The lineage, as signed."""
        return self.claimed.lineage

    @property
    def claims(self) -> Claims:
        """All lines."""
        return self.claimed.claims

    @property
    def table(self) -> Table:
        """The signed one."""
        return self.claimed.table

    @property
    def profiles(self) -> tuple[digest.Profile, ...]:
        """Digest profiles of that table."""
        return self.claimed.profiles

    def subjects(self) -> tuple[Subject, ...]:
        """Return what a statement about this release is about."""
        return self.claimed.subjects()


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
    claims of `kin`, where they are folders, are followed; `told` may still add to them.
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
    state = begin(demands.named or name_of(release), trust, demands)
    with deciding(state), open_files(release) as files, ExitStack() as stack:
        seen = _examine(state, files, stack)
        if told is not None:
            told(seen)
        family = follow_kin(state, seen.claimed, kin)
        if state.demands.level == "recompute":
            history(state, seen)
        _say_who_was_not_followed(state, family)
    return state.report


def _examine(state: State, files: FileSet, stack: ExitStack) -> Seen:
    claimed = open_claimed(state, files)  # (0) to (3), (9)
    model = model_of(files)
    checked = integrity.check_files(model, claimed.oms)  # (4)
    integrity.check_bytes(  # (5)
        checked,
        model,
        claimed.oms,
        claimed.table,
        profiles=claimed.profiles,
        whole_files=state.demands.whole_files,
        threads=state.demands.threads,
        progress=state.demands.progress,
        known=state.demands.known,
    )
    state.report.coverage = checked.coverage
    state.findings += checked.findings
    state.findings += check_root(claimed.lineage, claimed.table, state.report.release)
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
    return Seen(files, claimed, model, stack)


def follow_kin(state: State, claimed: Claimed, kin: Sequence[Path]) -> Family:
    """Follow the claims of the parents: what they come from, and where they stand."""
    family = follow(
        claimed.lineage,
        sha256(claimed.found.opened.payload),
        Path(state.report.release).name or "release",
        [path for path in [*kin, *state.demands.ancestors] if path.is_dir()],
        state.believed,
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
            f"the history of {', '.join(names)}: the weights are those that the lineage names by root, "
            "and what is signed of where they come from was not followed"
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
