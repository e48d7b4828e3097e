"""A repository of a Hub checked without downloading its weights.

What is signed is compared with what the Hub declares of large files, with the bytes of small ones, with
the headers of weights files and, where slices are asked for, with parts of the weights drawn at random.
What the Hub declares is not what it would send: only a download proves that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

import msgspec

from parentage.attest.trust import Trust
from parentage.manifest.errors import UsageError
from parentage.manifest.files import FileSet
from parentage.manifest.header import MAX_HEADER
from parentage.manifest.model import Model, model_of
from parentage.manifest.table import Table
from parentage.verify import integrity
from parentage.verify import slices as chunks
from parentage.verify.claimed import Claimed, State, begin, deciding, open_claimed
from parentage.verify.demands import Demands
from parentage.verify.examination import follow_kin
from parentage.verify.integrity import Coverage, Integrity
from parentage.verify.report import Remote, Report
from parentage.verify.signed import check_root
from parentage.verify.sources import hub
from parentage.verify.sources.hub import Repo
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.remote_files import RemoteFile, at_once, remote_files
from parentage.verify.verdict import Finding, finding

_SEED_BYTES: Final = 16
_SHOWN: Final = 5


class Slices(msgspec.Struct, frozen=True):
    """How much of the weights to look at.

    Attributes:
        count: chunks of 1 MiB to draw.
        seed: hex, to repeat a draw; empty: drawn when the Hub can't know it any more.
    """

    count: int = 0
    seed: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: a seed that is not hex, or that nothing is drawn by.
        """
        if self.seed and not self.count:
            raise UsageError("a seed, and no slices to draw", hint="--slices N")
        if not re.fullmatch("([0-9a-fA-F]{2}){0,64}", self.seed):
            raise UsageError(
                "not a seed", expected="at most 64 bytes in hex digits", found=self.seed
            )


def verify_remote(
    place: HubPlace,
    *,
    trust: Trust,
    demands: Demands | None = None,
    slices: Slices | None = None,
    told: Callable[[FileSet, Claimed], None] | None = None,
) -> Report:
    """Check a repository at one commit, and return the report; disagreements are findings.

    Args:
        place: a moving revision is resolved once; the report names the commit.
        trust: the publisher's keys, or a policy.
        demands: time, memory and ancestors; its level is taken to be "remote".
        slices: of the weights; None: no part of them is read.
        told: shown what was signed, and the files, whatever came of comparing them.

    Raises:
        HubError: a subclass names what is in the way.
    """
    demands = msgspec.structs.replace(demands or Demands(), level="remote")
    repo = hub.resolve(place)
    files = remote_files(repo, hub.listing(repo))
    state = begin(str(repo), trust, demands)
    # As examination() does it, in the same order: (0) to (4), (9) and (10) are the same; of (5) there is
    # what can be had without the weights; (6) to (8) can't be.
    if repo.moved_from:
        state.findings.append(moved(repo))
    with deciding(state):
        try:
            _examine(state, files, slices or Slices(), told)
        finally:
            state.report.remote = _cost(repo, files, state.report.remote)
    return state.report


def moved(repo: Repo) -> Finding:
    """Return the note that a repository has another name by now; old names may be taken by anyone."""
    return finding(
        "repository-moved",
        "the repository has another name by now, and its old one may be taken by somebody else",
        refutes=False,
        where=str(repo.asked),
        expected=repo.moved_from,
        found=repo.place.repo,
        hint=f"name it by its new name: {repo.place}",
    )


def _examine(
    state: State,
    files: FileSet,
    wanted: Slices,
    told: Callable[[FileSet, Claimed], None] | None,
) -> None:
    report = state.report
    claimed = open_claimed(state, files, leaves=False)
    checked = integrity.check_files(Model(files, {}, {}), claimed.oms)
    report.coverage = checked.coverage
    state.findings += check_root(claimed.lineage, claimed.table, report.release)
    _load(files, claimed.table)
    integrity.compare_files(checked, claimed.oms, _digests(files))
    # Before headers are read, so that what stands against the files is said whatever they hold.
    state.findings += checked.findings
    if told is not None:
        told(files, claimed)
    state.findings += _compare_tensors(model_of(files), claimed, checked.coverage)
    report.remote = _slices(state, claimed, files, wanted)
    if state.holds:  # else it is what was signed, and not what is there
        report.root = {str(p): root for p, root in claimed.table.roots.items()}
    follow_kin(state, claimed, state.demands.ancestors)
    but = f", but for {report.remote.slices} slices" if report.remote.slices else ""
    state.not_checked.insert(
        0,
        f"the bytes of the weights: none was read{but}; that they have the signed SHA-256 is what the "
        "Hub says of them, and only a download proves",
    )
    beside = [f.name for f in _remote(files) if not f.sha256 and f.name not in claimed.table.files]
    beside = [name for name in sorted(beside) if not name.startswith(".parentage/")]
    if beside:
        more = f" and {len(beside) - _SHOWN} more" if len(beside) > _SHOWN else ""
        state.not_checked.append(
            f"the bytes of {', '.join(beside[:_SHOWN])}{more}: large, and not read either"
        )
    state.not_checked.append("the recipe: nothing was recomputed")


def _remote(files: FileSet) -> list[RemoteFile]:
    return [file for file in files.files.values() if isinstance(file, RemoteFile)]


def _load(files: FileSet, table: Table) -> None:
    """Read what is small, and the headers of the weights: as long as the signed table lets expect."""
    first: dict[str, int] = {}
    for line in table.tensors.values():
        first[line.file] = min(line.offsets[0], first.get(line.file, line.offsets[0]))
    wanted = [file for file in _remote(files) if file.is_whole or file.name in first]
    for file in wanted:
        file.expected = min(first.get(file.name, file.expected), MAX_HEADER)
    at_once(file.load for file in wanted)


def _digests(files: FileSet) -> dict[str, str]:
    """Return the SHA-256 of every file: of what was read, else what the Hub declares."""
    return {file.name: file.sha256 or file.listed.sha256 or "" for file in _remote(files)}


def _compare_tensors(model: Model, claimed: Claimed, cover: Coverage) -> list[Finding]:
    """Compare headers with what was signed (5)."""
    cover.tensors, cover.tensor_bytes = len(model.tensors), model.nbytes
    result = Integrity(cover)
    integrity.compare_weights_files(result, model, claimed.oms, claimed.table)
    integrity.compare_names(result, model, claimed.table)
    for name in sorted(set(model.tensors) & set(claimed.table.tensors)):
        tensor, line = model.tensors[name], claimed.table.tensors[name]
        here = (tensor.file, (tensor.start, tensor.end), tensor.spec.dtype, tensor.spec.shape)
        said = (line.file, line.offsets, line.dtype, line.shape)
        if here != said:
            result.findings.append(
                finding(
                    "tensor-place",
                    "tensor is not where, or not what, the signed table says",
                    where=name,
                    expected=str(said),
                    found=str(here),
                )
            )
    return result.findings


def _slices(state: State, claimed: Claimed, files: FileSet, wanted: Slices) -> Remote:
    """Draw slices and compare them, if the release holds so far."""
    if not wanted.count or not state.holds:
        return Remote()
    # After the list and everything small were read, so that no answer could depend on it.
    seed = bytes.fromhex(wanted.seed) or os.urandom(_SEED_BYTES)
    drawn = chunks.draw(claimed.table, wanted.count, seed)
    state.findings += chunks.compare(claimed.table, drawn, files)
    return Remote(slices=len(drawn), of_slices=chunks.count(claimed.table), seed=seed.hex())


def _cost(repo: Repo, files: FileSet, found: Remote | None) -> Remote:
    """Return what a check rests on, and what it cost."""
    declared = [file.size for file in _remote(files) if file.listed.sha256 and not file.sha256]
    return msgspec.structs.replace(
        found or Remote(),
        requests=repo.web.traffic.requests,
        bytes=repo.web.traffic.bytes,
        files_read=sum(bool(file.sha256) for file in _remote(files)),
        files_declared=len(declared),
        bytes_declared=sum(declared),
    )
