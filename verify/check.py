"""A release and its parents' weights in, a report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parentage.attest.trust import Trust
from parentage.manifest import digest
from parentage.manifest.errors import CannotRunError, ParentageError, UsageError
from parentage.manifest.lineage import Lineage
from parentage.manifest.wire import DigestSet
from parentage.verify import parents as parenthood
from parentage.verify.claimed import State
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination, take
from parentage.verify.report import Report
from parentage.verify.verdict import Finding
from parentage.verify.way import Way

if TYPE_CHECKING:
    from parentage.attest.signer import Signer
    from parentage.verify.outcome import Outcome
    from parentage.verify.parts import Part


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
    told: Callable[[Seen], None] | None = None,
) -> tuple[Report, bytes]:
    """Verify a release, and sign what one shard found out.

    Args:
        release: its folder.
        trust: the publisher's keys.
        parents: (id or None, folder or file) of declared parents.
        against: other weights to look for a hidden merge with.
        demands: how much to check.
        signer: the verifier, where `demands.way` asks for a shard.
        told: shown what was signed, once every byte of it was looked at and whatever came of that.

    Returns:
        The report, and the signed partial result; empty where there is nothing to be joined: a whole
        run, or a refutation before any tensor was recomputed.

    Raises:
        UsageError, CannotRunError: as `verify`; or a shard of what can't be cut.
    """
    demands = demands or Demands()
    for path in [*(path for _, path in parents), *against, *demands.ancestors]:
        if not path.exists():
            raise UsageError("no such file or folder", where=str(path))
    if demands.way.shard is not None and (against or demands.level != "recompute"):
        raise UsageError("a shard is a part of a recompute: no --against, no --level integrity")
    signed: list[bytes] = []
    given = list(parents)
    kin = [path for _, path in given]
    notes: list[Finding] = []

    def signed_by_them(seen: Seen) -> None:
        if told is not None:
            told(seen)
        if demands.fetch_parents and demands.level == "recompute":
            from parentage.verify.fetched import fetched_parents

            ids = [name for name, _ in given]
            brought, said = fetched_parents(seen.lineage, ids, progress=demands.progress)
            given.extend(brought)
            kin.extend(path for _, path in brought)
            notes.extend(said)

    def history(state: State, seen: Seen) -> None:
        state.findings += notes
        part = from_parents(state, seen, given, against)
        if part is not None and signer is not None:
            from parentage.verify import parts

            signed.append(parts.sign(part, seen.subjects(), signer))

    report = examination(release, trust, demands, history, told=signed_by_them, kin=kin)
    return report, b"".join(signed)


def from_parents(
    state: State,
    seen: Seen,
    parents: Sequence[tuple[str | None, Path]],
    against: Sequence[Path],
) -> Part | None:
    """Have the recipe examined (6) to (8), and return the partial result of a shard.

    Raises:
        CannotRunError: torch is not installed.
    """
    given, notes = parenthood.load(  # (6)
        parents,
        against,
        stack=seen.stack,
        profiles=_profiles_of_parents(seen.lineage, seen.profiles),
        threads=state.demands.threads,
        progress=state.demands.progress,
        assumed=_assumed(state.demands, seen.lineage, against),
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

    def confirm() -> None:
        parenthood.confirm(given, state.demands.threads)

    def examined() -> Outcome:
        return examine_history(
            seen.model,
            seen.lineage,
            state.report.root,
            given,
            rung=state.demands.rung,
            device=state.demands.device,
            threads=state.demands.threads,
            progress=state.demands.progress,
            way=state.demands.way,
            confirm=confirm,
        )

    try:
        outcome = _confirmed(examined, confirm)
    except parenthood.AnotherError:
        outcome = examined()
    take(state, outcome)
    if outcome.part is not None:
        outcome.part.notes = [found for found in [*notes, *outcome.findings] if not found.refutes]
    return outcome.part


def _confirmed(examined: Callable[[], Outcome], confirm: Callable[[], None]) -> Outcome:
    """Return an outcome, or raise what led to it, only once the parents are known to be the declared."""
    try:
        outcome = examined()
    except ParentageError:
        confirm()
        raise
    confirm()
    return outcome


def _assumed(
    demands: Demands, lineage: Lineage, against: Sequence[Path]
) -> dict[str, DigestSet] | None:
    """Return the roots that parents given by id are taken to have: no reading is for digests alone.

    Not where results are kept, signed or made elsewhere under those roots, or only some bytes are read.
    """
    if demands.way != Way() or against:
        return None
    return {parent.id: dict(parent.weights) for parent in lineage.parents}


def _profiles_of_parents(
    lineage: Lineage, own: Sequence[digest.Profile]
) -> tuple[digest.Profile, ...]:
    """Return the profiles that the lineage names parents by, and the release's own."""
    named = {profile for parent in lineage.parents for profile in parent.weights} | set(own)
    return tuple(profile for profile in digest.PROFILES if profile in named)
