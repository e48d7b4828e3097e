"""A release published: asked about first, proposed whole, compared, merged, compared again.

    check -> upload what is large -> one commit, as a pull request -> compare it -> merge -> compare main

Until the merge nobody who reads main sees anything. Each phase can be done again: what is on the Hub
already is found there and used.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest.trust import Trust
from parentage.manifest.errors import (
    HubContentError,
    HubMovedError,
    HubNotFoundError,
    HubUnreachableError,
    ParentageError,
    UsageError,
)
from parentage.verify.publication import Publication, PushReport, differences, extra, publication
from parentage.verify.report import Report
from parentage.verify.showing import Result
from parentage.verify.sources import hub
from parentage.verify.sources.hub import Repo
from parentage.verify.sources.hub_writing import WRITING, Proposed, Writer
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.web import Patience

#: The newest pull requests, among which one that an earlier run made is looked for.
_NEWEST: Final = 20
_SHOWN: Final = 5
_UNWRITTEN: Final = "the Hub: nothing was written (--dry-run)"
_DECLARED: Final = (
    "the bytes of large files on the Hub: that they have the signed SHA-256 is what it says; a pull "
    "proves it"
)


class Checked(msgspec.Struct, frozen=True):
    """What was found of a release before it is published.

    Attributes:
        result: of the gate, or of the verification; exit code 0: it may be published.
        report: of the verification.
        trust: who may have signed it.
    """

    result: Result
    report: Report
    trust: Trust


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes:
        folder: of the release.
        place: where its main branch becomes the release.
        check: says whether it may; called before the Hub is asked anything.
        create: make the repository where there is none.
        private: for others not to see, if it is made.
        replace: delete files of main that the release does not have.
        dry_run: write nothing.
        tell: told what is being done, a line at a time.
        waiting: how long to wait for the Hub; None: as the environment says.
    """

    folder: Path
    place: HubPlace
    check: Callable[[], Checked]
    create: bool = False
    private: bool = False
    replace: bool = False
    dry_run: bool = False
    tell: Callable[[str], None] = lambda _: None
    waiting: Patience | None = None


def push(asked: Push) -> Result:
    """Publish a release whole, or leave main as it is.

    Returns:
        The check's own result where it says no, and then nothing was sent; else a PushReport.

    Raises:
        UsageError: another branch than main, or main has files that the release does not have.
        HubMovedError: somebody else changed main or the pull request meanwhile.
        HubContentError: the Hub does not hold what was sent.
        HubError: a subclass names what is in the way; the message says whether a pull request is open.
        FileSetError: a file changed since it was verified.
    """
    if asked.place.revision not in {"", "main"}:
        raise UsageError(
            "a release is published on main", expected="hf://org/name", found=str(asked.place)
        )
    asked.tell(f"checking {asked.folder}")
    checked = asked.check()
    if checked.result.exit_code:
        asked.tell("refused: nothing was sent")
        return checked.result
    mine = publication(asked.folder, checked.trust, checked.report)
    return _Pushing(asked, mine, checked.report).run()


class _Pushing:
    def __init__(self, asked: Push, mine: Publication, report: Report) -> None:
        self._asked, self._mine = asked, mine
        waiting = asked.waiting
        self._writer = Writer(asked.place, answer=waiting.answer if waiting else WRITING)
        self._main = HubPlace(asked.place.repo, "main")
        self._said = PushReport(
            release=str(asked.folder),
            repo=f"hf://{asked.place.repo}",
            dry_run=asked.dry_run,
            left_out=list(mine.left_out),
            report=report,
            not_checked=[*report.not_checked, _UNWRITTEN if asked.dry_run else _DECLARED],
        )

    def run(self) -> PushReport:
        main = self._find_or_make()
        if main is None or not self._plan(main):
            return self._said
        proposed = self._standing(main) or self._propose(main)
        with self._saying_what_is_open(proposed):
            self._compare(proposed)
            self._merge(main, proposed)
        self._said.pull_request = proposed.number
        return self._published(main)

    def _find_or_make(self) -> Repo | None:
        """Resolve main; None: there is no repository, and this is a dry run."""
        try:
            return self._resolve(self._main)
        except HubNotFoundError as error:
            if not self._asked.create:
                raise HubNotFoundError(
                    error.what, where=error.where, found=error.found, hint="--create makes it"
                ) from error
        if self._asked.dry_run:
            self._asked.tell(f"would make {self._said.repo}")
            self._said.uploaded = {name: file.size for name, file in self._mine.files.items()}
            return None
        self._asked.tell(f"making {self._said.repo}")
        self._writer.create(private=self._asked.private)
        return self._resolve(self._main)

    def _plan(self, main: Repo) -> bool:
        """Say what is to be done; False: nothing."""
        listing, said = hub.listing(main), self._said
        said.uploaded = {
            name: file.size
            for name, file in self._mine.files.items()
            if not file.is_listed(listing.get(name))
        }
        said.unchanged = len(self._mine.files) - len(said.uploaded)
        said.deleted = extra(listing, self._mine)
        if said.deleted and not self._asked.replace:
            raise UsageError(
                f"main has {len(said.deleted)} files that the release does not have",
                where=str(main),
                found=", ".join(said.deleted[:_SHOWN]),
                hint="--replace deletes them in the same commit; or add them to the release and sign it",
            )
        if not said.uploaded and not said.deleted and not differences(main, listing, self._mine):
            self._asked.tell("main is this release already")
            self._name(main)
            return False
        size = sum(said.uploaded.values())
        self._asked.tell(
            f"{len(said.uploaded)} files to send, {size:,} bytes; {said.unchanged} are there; "
            f"{len(said.deleted)} to delete"
        )
        return not self._asked.dry_run

    def _standing(self, main: Repo) -> Proposed | None:
        """Find an open pull request that is this release, made from main as it is: of an earlier run."""
        for proposed in self._writer.proposals()[:_NEWEST]:
            if not self._writer.is_open(proposed):
                continue
            listing = hub.listing(self._resolve(HubPlace(self._main.repo, proposed.revision)))
            is_it = not extra(listing, self._mine) and all(
                file.is_listed(listing.get(name)) for name, file in self._mine.files.items()
            )
            if is_it and self._writer.builds_on(proposed, main.commit):
                self._asked.tell(
                    f"going on with pull request #{proposed.number}, which is this release"
                )
                return proposed
            if is_it:
                self._asked.tell(
                    f"pull request #{proposed.number} is this release, and older than main: "
                    f"close it at {self._page(proposed)}"
                )
        return None

    def _propose(self, main: Repo) -> Proposed:
        said, files = self._said, self._mine.files
        if said.uploaded:
            self._asked.tell(f"hashing and uploading {len(said.uploaded)} files")
        prepared = self._writer.upload(
            {name: self._asked.folder / name for name in said.uploaded},
            {name: files[name].sha256 for name in said.uploaded},
            main.commit,
        )
        self._asked.tell("committing, as a pull request")
        try:
            return self._writer.propose(
                prepared,
                said.deleted,
                f"Release {self._mine.model[:16]}",
                f"model {self._mine.model}\n"
                + "".join(f"{profile} {root}\n" for profile, root in said.report.root.items()),
            )
        except HubUnreachableError:
            # Its answer may have been lost, and not the commit.
            made = self._standing(main)
            if made is None:
                raise
            return made

    def _compare(self, proposed: Proposed) -> None:
        repo = self._resolve(HubPlace(self._main.repo, proposed.revision))
        self._asked.tell(f"comparing pull request #{proposed.number} at {repo.commit}")
        if repo.commit != proposed.commit:
            raise HubMovedError(
                "somebody else changed the pull request",
                where=str(repo),
                expected=proposed.commit,
                found=repo.commit,
            )
        _require_equal(differences(repo, hub.listing(repo), self._mine), repo)

    def _merge(self, main: Repo, proposed: Proposed) -> None:
        now = self._resolve(self._main)
        if now.commit != main.commit:
            raise HubMovedError(
                "somebody else changed main meanwhile",
                where=str(self._main),
                expected=main.commit,
                found=now.commit,
            )
        self._asked.tell(f"merging pull request #{proposed.number}")
        try:
            self._writer.merge(proposed)
        except HubUnreachableError:
            # Its answer may have been lost, and not the merge.
            if self._resolve(self._main).commit == main.commit:
                raise

    def _published(self, before: Repo) -> PushReport:
        main = self._after(before)
        self._asked.tell(f"comparing main at {main.commit}")
        found = differences(main, hub.listing(main), self._mine)
        if found:
            raise HubMovedError(
                "merged, and main is not the release: somebody else's change came in between",
                where=str(main),
                found=_some(found),
                hint="run the same command again, with --replace if main has more files",
            )
        self._name(main)
        return self._said

    def _after(self, before: Repo) -> Repo:
        """Wait until main is another commit: a Hub may merge a moment later."""
        patience = before.web.patience
        for attempt in range(patience.attempts):
            main = self._resolve(self._main)
            if main.commit != before.commit:
                return main
            time.sleep(min(patience.pause * 2**attempt, patience.longest))
        raise HubUnreachableError(
            "merged, and main is still the old commit",
            where=str(before),
            hint="run the same command again in a minute: it compares main",
        )

    def _name(self, main: Repo) -> None:
        said = self._said
        said.repo, said.commit = str(main.place), main.commit
        folder = shlex.quote(str(self._asked.folder))
        purl = f"pkg:huggingface/{main.place.repo}@{main.commit}"
        said.next = f"parentage locate {folder} --at {purl} --key release.key"

    def _resolve(self, place: HubPlace) -> Repo:
        return hub.resolve(place, waiting=self._asked.waiting)

    def _page(self, proposed: Proposed) -> str:
        return f"{hub.endpoint()}/{self._main.repo}/discussions/{proposed.number}"

    @contextmanager
    def _saying_what_is_open(self, proposed: Proposed) -> Iterator[None]:
        """Name the pull request in whatever goes wrong while it is open."""
        try:
            yield
        except ParentageError as error:
            raise type(error)(
                f"{error.what}; pull request #{proposed.number} is open and not merged",
                where=error.where,
                expected=error.expected,
                found=error.found,
                hint=f"look at {self._page(proposed)}; run the same command again, or close it",
            ) from error


def _require_equal(found: Sequence[str], repo: Repo) -> None:
    if found:
        raise HubContentError(
            "the Hub does not hold what was verified", where=str(repo), found=_some(found)
        )


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more
