"""A release as it is to lie on a Hub: its files by name, size and SHA-256, and how a listing differs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.attest.coverage import DEFAULT_IGNORES, is_ignored
from parentage.attest.trust import Trust
from parentage.manifest.digest import CHUNK
from parentage.manifest.errors import FileSetError, printable
from parentage.manifest.files import OpenFile, open_files
from parentage.verify.claimed import begin, open_claimed
from parentage.verify.demands import Demands
from parentage.verify.report import Report, who
from parentage.verify.showing import Shown
from parentage.verify.sources.fetching import fetch
from parentage.verify.sources.hub import Repo
from parentage.verify.sources.listed import Listed
from parentage.verify.verdict import EXIT_CODES, Verdict

SCHEMA: Final = "https://parentage.dev/push/v0.1"
#: Unsigned, and part of what is published.
_BESIDE: Final = (MODEL_SIG, CLAIMS, MODEL_MLDSA)
#: A Hub keeps no larger file outside of LFS (10 MB, at the time of writing).
_REGULAR: Final = 64 << 20


class File(msgspec.Struct, frozen=True):
    """One file to be published.

    Attributes:
        size: bytes.
        sha256: as signed, or of what lies here where nothing signs it.
        blob_oid: SHA-1 of the git blob that it would be; empty where it is too large for one.
    """

    size: int
    sha256: str
    blob_oid: str

    def is_listed(self, listed: Listed | None) -> bool:
        """Say whether a Hub lists it so; git's SHA-1 is no proof, but tells what need not be sent."""
        if listed is None or listed.size != self.size:
            return False
        return self.sha256 == listed.sha256 if listed.sha256 else self.blob_oid == listed.blob_oid


class Publication(msgspec.Struct, frozen=True):
    """What is to be published.

    Attributes:
        folder: where it lies.
        files: by name.
        left_out: files of the folder that no signature covers and that stay here.
        model: root of the signature over all files.
    """

    folder: Path
    files: Mapping[str, File]
    left_out: tuple[str, ...]
    model: str


def publication(folder: Path, trust: Trust, report: Report) -> Publication:
    """Say what of a folder is published.

    Args:
        folder: of the release.
        trust: who signed it.
        report: of its verification.

    Raises:
        FileSetError: it is not the release that was verified.
        SignatureError, MalformedError: likewise.
    """
    with open_files(folder) as files:
        state = begin(str(folder), trust, Demands(level="integrity"))
        claimed = open_claimed(state, files)
        if claimed.oms.root != report.model:
            raise FileSetError(
                "the release changed while it was verified; nothing was published",
                where=str(folder),
                expected=f"model {report.model}",
                found=f"model {claimed.oms.root}",
            )
        signed = claimed.oms.resources
        wanted = set(signed) | (set(_BESIDE) & set(files.files))
        found = {name: _file(files.files[name], signed.get(name)) for name in sorted(wanted)}
        left_out = tuple(sorted(set(files.files) - wanted))
    return Publication(folder, found, left_out, claimed.oms.root)


def _file(file: OpenFile, signed: str | None) -> File:
    if signed is not None and file.size > _REGULAR:
        return File(file.size, signed, "")
    sha256, git = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    git.update(b"blob %d\0" % file.size)
    for at in range(0, file.size, CHUNK):
        data = file.read_at(at, min(CHUNK, file.size - at))
        git.update(data)
        sha256.update(data)
    return File(file.size, signed or sha256.hexdigest(), git.hexdigest())


def extra(listing: Iterable[str], mine: Publication) -> list[str]:
    """Return what a Hub lists beside the release; git's own files don't count."""
    return sorted(
        name for name in listing if name not in mine.files and not is_ignored(name, DEFAULT_IGNORES)
    )


def differences(repo: Repo, listing: Mapping[str, Listed], mine: Publication) -> list[str]:
    """Compare a repository with the release, file by file; what has no SHA-256 there is fetched.

    Raises:
        HubError: a subclass names what is in the way.
    """
    found = [f"{name} is not part of the release" for name in extra(listing, mine)]
    regular: list[Listed] = []
    for name, file in mine.files.items():
        listed = listing.get(name)
        if listed is None:
            found.append(f"{name} is missing")
        elif not file.is_listed(listed):
            found.append(f"{name} is another file")
        elif listed.sha256 is None:
            regular.append(listed)
    if found or not regular:
        return found
    with tempfile.TemporaryDirectory(prefix="parentage-push-") as folder:
        came = fetch(repo, regular, Path(folder))
    return [
        f"{name} is another file"
        for name, one in came.items()
        if one.sha256 != mine.files[name].sha256
    ]


class PushReport(msgspec.Struct, kw_only=True, rename="camel"):
    """What was published, or would be.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: `verified`: the release may be published, and main was found to be it
            (unless `dry_run`).
        release: the folder.
        repo: "hf://org/name", with the commit of main that holds the release; without: dry run.
        commit: 40 hex digits.
        pull_request: its number; 0: none was needed.
        dry_run: nothing was written.
        uploaded: files that were not there yet, in bytes by name.
        unchanged: how many were.
        deleted: files of main that the release does not have.
        left_out: files of the folder that were not published.
        report: of the verification before.
        next: a command.
        not_checked: what this says nothing about, in sentences.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.VERIFIED
    exit_code: int = EXIT_CODES[Verdict.VERIFIED]
    release: str
    repo: str
    commit: str = ""
    pull_request: int = 0
    dry_run: bool = False
    uploaded: dict[str, int] = {}
    unchanged: int = 0
    deleted: list[str] = []
    left_out: list[str] = []
    report: Report
    next: str = ""
    not_checked: list[str] = []

    def shown(self, command: str = "push") -> Shown:
        """Return the report as any format shows it."""
        size = sum(self.uploaded.values())
        facts = [("to" if self.dry_run else "at", printable(self.repo))]
        if self.report.signer is not None:
            facts.append(("signed by", who(self.report.signer)))
        facts += [("weights", f"{profile} {root}") for profile, root in self.report.root.items()]
        done = "to upload" if self.dry_run else "uploaded"
        facts.append((done, f"{len(self.uploaded)} files, {size:,} bytes"))
        facts.append(("unchanged", f"{self.unchanged} files"))
        if self.deleted:
            facts.append(("deleted", printable(", ".join(self.deleted), 300)))
        if self.left_out:
            facts.append(("left out", printable(", ".join(self.left_out), 300)))
        if self.pull_request:
            facts.append(("merged", f"pull request #{self.pull_request}"))
        if self.next:
            facts.append(("next", printable(self.next, 400)))
        return Shown(
            command=command,
            subject=printable(self.release),
            verdict=self.verdict,
            exit_code=self.exit_code,
            facts=tuple(facts),
            not_checked=tuple(printable(text, 400) for text in self.not_checked),
            document=self,
        )
