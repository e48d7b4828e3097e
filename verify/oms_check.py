"""Verify a model by its OpenSSF Model Signing signature: every file, and what no file's digest covers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import oms_files, oms_names
from parentage.attest.coverage import (
    DEFAULT_IGNORES,
    GIT,
    HUB_CACHE,
    cover_of,
    is_ignored,
)
from parentage.attest.oms import Oms
from parentage.attest.oms_files import Survey
from parentage.attest.oms_opening import OpenedOms, open_oms
from parentage.attest.oms_sign import default_signature
from parentage.attest.trust import Trust
from parentage.manifest.errors import (
    FileSetError,
    MalformedError,
    SignatureError,
    UnsignedError,
    UsageError,
)
from parentage.manifest.files import open_one
from parentage.manifest.hashing import Progress
from parentage.verify import verdict
from parentage.verify.integrity import Coverage
from parentage.verify.oms_report import OmsReport, Serialization
from parentage.verify.report import signed_by
from parentage.verify.verdict import Finding, Verdict, finding

_MAX_SIG: Final = 64 << 20
_OLD: Final = finding(
    "legacy-signature",
    "signed in a form of model_signing before 1.1",
    refutes=False,
    hint="ask the publisher to sign again",
)


class OmsDemands(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asks for.

    Attributes:
        ignore_paths: files and folders of the model to look away from.
        ignore_unsigned: files that are not signed are notes, not contradictions.
        allow_uncovered: also where loaders read them.
        legacy: read what releases 0.2.0 to 1.0.1 of model_signing wrote.
        threads: of the hash pass; None: all cores of this process.
        progress: told of the bytes done.
    """

    ignore_paths: tuple[str, ...] = ()
    ignore_unsigned: bool = False
    allow_uncovered: bool = False
    legacy: bool = False
    threads: int | None = None
    progress: Progress | None = None


def verify_oms(
    model: Path, *, trust: Trust, signature: Path | None = None, demands: OmsDemands | None = None
) -> OmsReport:
    """Verify a model's signature and files; disagreements are findings, never exceptions.

    Args:
        model: a folder, a Hub cache snapshot, or one file.
        trust: who may have signed.
        signature: the bundle; None: `model.sig` in the folder, or FILE.sig beside the file.
        demands: how much to check.

    Raises:
        UsageError: there is no such model, or an ignore path lies outside of it.
    """
    if not model.exists():
        raise UsageError("no such file or folder", where=str(model))
    demands = demands or OmsDemands()
    place = signature or default_signature(model)
    report = OmsReport(model=str(model), signature=str(place))
    report.not_checked = ["tensors, lineage and recipe: parentage verify checks those"]
    try:
        opened = open_oms(_read(place), trust, str(place), legacy=demands.legacy)
        report.signer = signed_by(opened.signer)
        report.root, report.serialization = opened.oms.root, _said(opened)
        findings = [
            *_compare(report, model, place, opened.oms, demands),
            *([_OLD] if opened.legacy else []),
        ]
    except (MalformedError, SignatureError, UnsignedError) as error:
        report.findings = [verdict.of_error(error)]
        report.not_checked.insert(0, "everything after this failure")
        unsigned = isinstance(error, UnsignedError)
        report.decide(Verdict.UNSIGNED if unsigned else Verdict.REFUTED)
        return report
    report.findings = sorted(findings, key=lambda found: not found.refutes)
    refuted = any(found.refutes for found in findings)
    report.decide(Verdict.REFUTED if refuted else Verdict.VERIFIED)
    return report


def _read(place: Path) -> bytes:
    if not place.exists():
        raise UnsignedError(
            "no signature here",
            where=str(place),
            expected="an OpenSSF Model Signing bundle",
            hint="--signature FILE",
        )
    file = open_one(place.name, place.resolve(), ())
    try:
        return file.read_small(_MAX_SIG)
    finally:
        file.close()


def _said(opened: OpenedOms) -> Serialization:
    said = opened.oms
    return Serialization(
        method=said.method,
        hash_type=said.hash_type,
        shard_size=said.shard_size,
        allow_symlinks=said.allow_symlinks,
        ignore_paths=sorted(said.ignore_paths),
        legacy=opened.legacy,
    )


def _compare(
    report: OmsReport, model: Path, place: Path, signed: Oms, demands: OmsDemands
) -> list[Finding]:
    """Compare what lies in the model with what was signed; the coverage goes into the report."""
    looked_away = frozenset(oms_files.ignore_names(demands.ignore_paths, model))
    found = oms_files.survey(
        model,
        ignore_paths={*signed.ignore_paths, *looked_away, *GIT, HUB_CACHE},
        listed=signed.files,
        signature=place,
        follow=signed.allow_symlinks,
    )
    if not model.is_dir() and oms_names.ONE_FILE in signed.files:
        found.entries = {oms_names.ONE_FILE: found.entries[model.name]}
    cover = cover_of(found.sizes, signed.files, found.ignored)
    cover.ignored.take(found.aside)
    report.coverage = Coverage.of(cover)
    return [
        *_signed_files(found, signed, demands),
        *_unsigned_files(found, signed, demands),
        *_open_files(found, looked_away, demands),
    ]


def _signed_files(found: Survey, signed: Oms, demands: OmsDemands) -> list[Finding]:
    """Hash every signed file that is there, in the way that the signature says."""
    findings: list[Finding] = []
    whole: list[str] = []
    for name, resources in signed.files.items():
        entry = found.entries.get(name)
        if entry is None:
            findings.append(finding("file-missing", "signed file is missing", where=name))
        elif entry.problem:
            findings.append(
                finding(
                    FileSetError.code,
                    f"signed file is {entry.problem}",
                    where=name,
                    expected="a regular file",
                    hint="put the file itself there",
                )
            )
        elif signed.shard_size and len(resources) != -(-entry.size // signed.shard_size):
            findings.append(_changed(name, f"{len(resources)} shards", f"{entry.size} bytes"))
        else:
            whole.append(name)
    digests = oms_files.digests(
        found, whole, signed, threads=demands.threads, progress=demands.progress
    )
    for name in whole:
        for resource in signed.files[name]:
            digest, computed = signed.resources[resource], digests.get(resource, "")
            if digest != computed:
                kind = signed.hash_type
                findings.append(
                    _changed(resource, f"{kind} {digest}", f"{kind} {computed or 'of other bytes'}")
                )
    return findings


def _changed(where: str, expected: str, found: str) -> Finding:
    return finding(
        "file-digest", "file is not the signed one", where=where, expected=expected, found=found
    )


def _unsigned_files(found: Survey, signed: Oms, demands: OmsDemands) -> list[Finding]:
    """Name what lies in the model and is signed by nobody."""
    findings: list[Finding] = []
    for name, entry in found.entries.items():
        if name in signed.files:
            continue
        if signed.shard_size and not entry.size and not entry.problem:
            # The specification leaves empty files out of a list of shards.
            if entry.read_by_loaders(name):
                findings.append(_uncovered(name, "an empty file has no shards", demands))
        elif not demands.ignore_unsigned:
            what = f" ({entry.problem})" if entry.problem else ""
            findings.append(
                finding(
                    "file-unsigned",
                    f"file is not covered by the signature{what}",
                    where=name,
                    hint="remove it, or --ignore-unsigned-files",
                )
            )
        elif entry.read_by_loaders(name):
            findings.append(_uncovered(name, "it is not signed", demands))
    return findings


def _open_files(found: Survey, looked_away: frozenset[str], demands: OmsDemands) -> list[Finding]:
    """Name ignored files that loaders read, but for claims and signatures, which are signed themselves."""
    return [
        finding(
            "ignored-content",
            "a file that loaders read is not covered: "
            + ("you ignore it" if is_ignored(name, looked_away) else "the signer ignores it"),
            refutes=not demands.allow_uncovered,
            where=name,
            hint="" if demands.allow_uncovered else "--allow-uncovered, if you know what it is",
        )
        for name, entry in sorted(found.ignored.items())
        if name not in DEFAULT_IGNORES and entry.read_by_loaders(name)
    ]


def _uncovered(name: str, why: str, demands: OmsDemands) -> Finding:
    return finding(
        "uncovered-content",
        f"a file that loaders read is not covered: {why}",
        refutes=not demands.allow_uncovered,
        where=name,
        hint="" if demands.allow_uncovered else "--allow-uncovered, if you know what it is",
    )
