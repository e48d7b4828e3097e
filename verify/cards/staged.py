"""What a commit hook looks at: forms of a manifest, drift of its card, weights newer than it.

No weights are read. What git has staged of a weights file is known by its LFS pointer, which holds the
SHA-256; where there is none, a file that is newer than the tensor table may be another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest.bundle import MODEL_SIG
from parentage.manifest.errors import ParentageError, printable
from parentage.manifest.table import TENSORS, FileLine
from parentage.verify.cards import lfs
from parentage.verify.cards.authority import find_authority
from parentage.verify.cards.check import check
from parentage.verify.cards.forms import malformed
from parentage.verify.cards.report import CardReport
from parentage.verify.cards.surroundings import Folder
from parentage.verify.showing import Level, Problem, Shown, problem_of
from parentage.verify.verdict import EXIT_CODES, Verdict

SCHEMA: Final = "https://parentage.dev/staged/v0.1"
#: A checkout writes files in some order; their times lie this close together (seconds).
_SLACK: Final = 2.0
_WORST: Final = (
    Verdict.REFUTED,
    Verdict.DENIED,
    Verdict.UNPROVEN,
    Verdict.UNSIGNED,
    Verdict.VERIFIED,
)


class StagedReport(msgspec.Struct, kw_only=True, rename="camel"):
    """What was found of the releases that some files belong to.

    Attributes:
        schema: version of this structure.
        verdict, exit_code: the worst of the releases'; `unsigned` where there is none.
        releases: one report each; its problems go beyond those of the card.
        files: how many belong to them.
        outside: how many belong to no release.
    """

    schema: str = SCHEMA
    verdict: Verdict = Verdict.UNSIGNED
    exit_code: int = 3
    releases: list[CardReport] = []
    files: int = 0
    outside: int = 0

    def shown(self, command: str = "staged") -> Shown:
        """Return the report as any format shows it."""
        names = ", ".join(one.release for one in self.releases) or "no release"
        problems = [problem for one in self.releases for problem in one.problems]
        problems.sort(key=lambda problem: list(Level).index(problem.level))
        beyond = dict.fromkeys(text for one in self.releases for text in one.not_checked)
        facts = [("files", f"{self.files:,} of releases, {self.outside:,} of none")]
        return Shown(
            command=command,
            subject=printable(names),
            verdict=self.verdict,
            exit_code=self.exit_code,
            problems=tuple(problems),
            facts=tuple(facts),
            not_checked=tuple(printable(text, 400) for text in beyond),
            document=self,
        )


def staged(
    paths: Sequence[Path],
    *,
    levels: Mapping[str, Level | None] | None = None,
    card_only: bool = False,
) -> StagedReport:
    """Check the releases that these files belong to.

    Args:
        paths: files that are to be committed.
        levels: of the card's rules, other than their own.
        card_only: look at the card alone.
    """
    found: dict[Path, int] = {}
    outside = 0
    for path in paths:
        folder = release_of(path)
        if folder is None:
            outside += 1
        else:
            found[folder] = found.get(folder, 0) + 1
    report = StagedReport(files=sum(found.values()), outside=outside)
    for folder in sorted(found):
        one = _release(folder, levels or {}, card_only=card_only)
        one.problems = [_located(problem, folder) for problem in one.problems]
        report.releases.append(one)
    verdicts = [one.verdict for one in report.releases]
    report.verdict = min(verdicts, key=_WORST.index, default=Verdict.UNSIGNED)
    report.exit_code = EXIT_CODES[report.verdict]
    return report


def release_of(path: Path) -> Path | None:
    """Return the nearest folder around a file that has a manifest; None: there is none."""
    for folder in path.parents:
        if folder.name == ".parentage":
            continue
        if (folder / ".parentage").is_dir() or (folder / MODEL_SIG).is_file():
            return folder
    return None


def _release(folder: Path, levels: Mapping[str, Level | None], *, card_only: bool) -> CardReport:
    try:
        report = check(folder, levels=levels)
    except ParentageError as error:
        report = CardReport(release=str(folder))
        verdicts = {code: verdict for verdict, code in EXIT_CODES.items()}
        report.decide(verdicts[error.exit_code])
        report.problems.append(problem_of(error))
    if not card_only:
        more = [*malformed(Folder(folder), report.not_checked), *_weights(folder)]
        report.problems += more
        if any(problem.level is Level.ERROR for problem in more):
            report.decide(Verdict.REFUTED)
    report.problems.sort(key=lambda problem: list(Level).index(problem.level))
    return report


def _weights(folder: Path) -> Iterator[Problem]:
    """Compare staged LFS pointers with the tensor table, and times where there are none."""
    try:
        lines = find_authority(Folder(folder), None).files
    except ParentageError:
        return  # said already
    pointers = lfs.staged(folder, [line.file for line in lines])
    for line in lines:
        pointer = pointers.get(line.file)
        if pointer is None:
            yield from _newer(folder, line)
        elif pointer.sha256 != line.sha256:
            yield Problem(
                code="weights-staged",
                level=Level.ERROR,
                message="staged weights are not the manifest's",
                where=printable(line.file),
                expected=f"sha256 {line.sha256}",
                found=f"sha256 {pointer.sha256}",
                next=f"parentage declare {folder}, and stage its files as well",
            )


def _newer(folder: Path, line: FileLine) -> Iterator[Problem]:
    try:
        weights, made = (folder / line.file).stat(), (folder / TENSORS).stat()
    except OSError:
        return  # C09 says which is missing
    is_here = lfs.in_place(Folder(folder), line.file, weights.st_size) is None
    if is_here and weights.st_mtime > made.st_mtime + _SLACK:
        yield Problem(
            code="weights-newer",
            level=Level.ERROR,
            message="weights are newer than the manifest: they may be others",
            where=printable(line.file),
            expected="not newer than .parentage/tensors.jsonl",
            found=f"newer by {weights.st_mtime - made.st_mtime:,.0f} s",
            next=f"parentage declare {folder}; if parentage card check {folder} --weights finds no C09, "
            f"they are the same: touch {folder}/{TENSORS}",
        )


def _located(problem: Problem, folder: Path) -> Problem:
    if not problem.file:
        return problem
    return msgspec.structs.replace(problem, file=(folder / problem.file).as_posix())
