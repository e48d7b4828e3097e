"""A release downloaded: signed before its weights are fetched, compared while they come, placed whole.

Nothing is ever where a loader would look for it before all of it is verified: it comes into a hidden
folder beside its place, and is renamed when the verdict is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.attest.trust import Trust
from parentage.manifest import atomic, table
from parentage.manifest.errors import (
    FileSetError,
    UnsignedError,
    UsageError,
)
from parentage.manifest.files import FileSet, open_one
from parentage.manifest.hashing import Digests, Expecting
from parentage.manifest.model import open_model
from parentage.verify import integrity, listings
from parentage.verify.check import verify
from parentage.verify.claimed import Claimed, State, begin, deciding, open_claimed
from parentage.verify.demands import Demands
from parentage.verify.showing import Result
from parentage.verify.sources import hub
from parentage.verify.sources.fetching import (
    Fetched,
    Proof,
    Sink,
    check_parts,
    fetch,
    settle,
    unsettle,
)
from parentage.verify.sources.hub import Repo
from parentage.verify.sources.listed import Listed
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.web import Patience
from parentage.verify.staging import is_taken, require_space, signed_in, staging_for
from parentage.verify.streaming import StreamCheck
from parentage.verify.verdict import Finding

#: What says who signed what: fetched before anything else.
_EVIDENCE: Final = (MODEL_SIG, CLAIMS, MODEL_MLDSA, table.TENSORS, table.LEAVES)
#: Bytes of a file that is fetched before the weights, where the Hub lists no SHA-256 of it.
_SMALL: Final = 32 << 20
#: Files read at once.
_STREAMS: Final = 8
#: Names of files in one line.
_SHOWN: Final = 5

Tell = Callable[[str], None]


Examine = Callable[[Path, Demands], Result]


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        place: of the release.
        target: the folder that it becomes; it must not exist, or be empty, or be this very release.
        trust: who may have signed it.
        parents: (id or None, folder or file) of declared parents.
        examine: decides, by exit code 0, whether what came is placed; None: `verify` at the level of
            `demands`.
        demands: how much to check.
        tell: told what is being done, a line at a time.
        waiting: how long to wait for the Hub; None: as the environment says.
    """

    place: HubPlace
    target: Path
    trust: Trust
    parents: Sequence[tuple[str | None, Path]] = ()
    examine: Examine | None = None
    demands: Demands = Demands(level="integrity")
    tell: Tell = lambda _: None
    waiting: Patience | None = None


def pull(asked: Pull) -> Result:
    """Download a release; it is placed if the examination says `verified`, and otherwise nothing is.

    Returns:
        The examination's result; a Report where the release was refused before its weights came.

    Raises:
        UsageError: something else is at the target, or its parent is no folder.
        HubError: a subclass names what is in the way; what came is kept, and the next call goes on.
        CannotRunError, WriteFailedError: not enough space, or not writable.
    """
    if not asked.target.absolute().parent.is_dir():
        raise UsageError("no such folder", where=str(asked.target.absolute().parent))
    repo = hub.resolve(asked.place, waiting=asked.waiting)
    listing = hub.listing(repo)
    check_parts(listing)
    size = sum(listed.size for listed in listing.values())
    asked.tell(f"{repo.asked} is commit {repo.commit}: {len(listing)} files, {size:,} bytes")
    with staging_for(asked.target, repo) as staging:
        unsettle(staging, listing)
        return _Pulling(asked, repo, listing, staging).run()


class _Pulling:
    def __init__(
        self, asked: Pull, repo: Repo, listing: Mapping[str, Listed], staging: Path
    ) -> None:
        self._asked, self._repo, self._listing, self._staging = asked, repo, listing, staging
        self._demands = msgspec.structs.replace(asked.demands, named=str(repo.place))
        self._evidence = [name for name in _EVIDENCE if name in listing]
        self._came: dict[str, Fetched] = {}

    def run(self) -> Result:
        claimed: list[Claimed] = []
        early = msgspec.structs.replace(self._demands, level="integrity")
        state = begin(early.named, self._asked.trust, early)
        with deciding(state):
            claimed.append(self._open(state))
        if not state.report.verified:
            state.report.not_checked.append("the weights: nothing of them was fetched")
            self._forget()
            return state.report
        if is_taken(self._asked.target):
            return self._already_there(claimed[0])
        return self._bring(claimed[0])

    def _open(self, state: State) -> Claimed:
        """Fetch and open what says who signed what, and compare the listing with it."""
        if MODEL_SIG not in self._listing:
            raise UnsignedError(
                "no signature here",
                where=str(self._repo),
                expected=MODEL_SIG,
                hint="ask the publisher for a signed release; nothing was downloaded",
            )
        large = [name for name in self._evidence if self._listing[name].size > table.MAX_TABLE]
        if large:
            raise FileSetError(
                "file too large",
                where=large[0],
                expected=f"at most {table.MAX_TABLE} bytes",
                found=f"{self._listing[large[0]].size} bytes",
            )
        self._asked.tell("fetching the signature and what it is about")
        settle(
            fetch(self._repo, [self._listing[n] for n in self._evidence], self._staging),
            self._staging,
        )
        with FileSet(self._staging) as files:
            for name in self._evidence:
                files.files[name] = open_one(name, self._staging / name, ())
            claimed = open_claimed(state, files)
        state.findings += listings.compare(self._listing, claimed.oms, claimed.table)
        if state.holds:
            self._leave_out(claimed)
            state.findings += self._small(claimed)
        return claimed

    def _leave_out(self, claimed: Claimed) -> None:
        """Fetch nothing that an ignore path leaves unsigned: a mirror could put anything there."""
        kept = {*claimed.oms.resources, *self._evidence}
        left = sorted(set(self._listing) - kept)
        if left:
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            self._asked.tell(f"left out, for nobody signed it: {', '.join(left[:_SHOWN])}{more}")
        self._listing = {name: one for name, one in self._listing.items() if name in kept}

    def _small(self, claimed: Claimed) -> list[Finding]:
        """Fetch what the Hub lists without a SHA-256, and compare it."""
        small = [
            one
            for name, one in self._listing.items()
            if one.sha256 is None and one.size <= _SMALL and name not in self._evidence
        ]
        signed = claimed.oms.resources
        self._came = fetch(self._repo, small, self._staging, threads=_STREAMS)
        return [
            integrity.file_finding(name, signed[name], found.sha256)
            for name, found in self._came.items()
            if name in signed and found.sha256 != signed[name]
        ]

    def _forget(self) -> None:
        """Remove what was fetched; weights that came under another trust are left for another call."""
        for name in self._evidence:
            (self._staging / name).unlink(missing_ok=True)
        for found in self._came.values():
            found.path.unlink()
        for folder, _, _ in os.walk(self._staging, topdown=False):
            with suppress(OSError):  # not empty
                Path(folder).rmdir()

    def _already_there(self, claimed: Claimed) -> Result:
        """Verify what is at the target; it may only be the same release."""
        target = self._asked.target
        self._forget()
        signed = signed_in(target)
        if signed != claimed.signature.payload:
            raise UsageError(
                "something else is there already",
                where=str(target),
                expected="no such folder, an empty one, or this very release",
                found="another release" if signed is not None else "files that are no release",
                hint="choose another folder, or move this one away",
            )
        self._asked.tell(f"{target} has this signature already: verifying it")
        return self._examine(target, self._demands)

    def _examine(self, folder: Path, demands: Demands) -> Result:
        if self._asked.examine is not None:
            return self._asked.examine(folder, demands)
        asked = self._asked
        return verify(folder, trust=asked.trust, parents=asked.parents, demands=demands)

    def _bring(self, claimed: Claimed) -> Result:
        leaves = (self._staging / table.LEAVES).read_bytes()
        check = StreamCheck(claimed.table, leaves)
        here = {*self._evidence, *self._came}
        rest = [one for name, one in self._listing.items() if name not in here]
        require_space(self._staging, self._asked.target, rest)
        size = sum(one.size for one in rest)
        progress: object = self._demands.progress
        self._asked.tell(f"fetching and comparing {len(rest)} files, {size:,} bytes")
        if isinstance(progress, Expecting):
            progress.expect(size)
        self._came |= fetch(
            self._repo,
            rest,
            self._staging,
            progress=self._demands.progress,
            watch=lambda listed: self._watch(check, listed),
            threads=_STREAMS,
            durable=False,
        )
        settle(self._came, self._staging)
        files = {name: found.sha256 for name, found in self._came.items() if found.sha256}
        with open_model(self._staging) as model:
            known = Digests(check.digests(model), files, {})
        return self._place(known)

    def _watch(self, check: StreamCheck, listed: Listed) -> Sink | Proof | None:
        proof = check.proof(listed.path)
        if proof is not None and self._demands.whole_files:
            return proof.__call__  # a sink beside the SHA-256, and no proof instead of it
        return proof

    def _place(self, known: Digests) -> Result:
        demands = msgspec.structs.replace(self._demands, known=known)
        result = self._examine(self._staging, demands)
        if not result.exit_code:
            atomic.place_folder(self._staging, self._asked.target)
            self._asked.tell(f"placed at {self._asked.target}")
        else:
            self._asked.tell(
                f"nothing was placed; what came is kept in {self._staging}: the same command goes on "
                "from there, or remove it"
            )
        return result
