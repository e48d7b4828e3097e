"""Documents derived from a verified release, for tools that read other formats than ours.

The signed lineage stays the record: none of these is signed here, and each says where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import clock
from parentage.attest.trust import Trust
from parentage.manifest.errors import MissingExtraError, UsageError
from parentage.verify.check import from_parents
from parentage.verify.claimed import State
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination
from parentage.verify.exports.record import Record, record_of
from parentage.verify.exports.slsa import slsa
from parentage.verify.exports.svr import checked_verifier, svr
from parentage.verify.report import Report

#: Makes the document, once the release is verified.
Builder = Callable[[Record, Report], bytes]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a document says beside the record.

    Attributes:
        verifier: URI of who verified.
        now: when.
    """

    verifier: str
    now: datetime


def _slsa(_: Asked) -> Builder:
    return lambda record, _: slsa(record)


def _cyclonedx(asked: Asked) -> Builder:
    try:
        from parentage.verify.exports.cyclonedx import cyclonedx
    except ModuleNotFoundError as error:
        if error.name not in {"cyclonedx", "packageurl"}:
            raise
        raise MissingExtraError(
            "the CycloneDX library is not installed", hint="pip install 'parentage[export]'"
        ) from error
    return lambda record, _: cyclonedx(record, asked.now)


def _svr(asked: Asked) -> Builder:
    who = checked_verifier(asked.verifier)
    return lambda record, report: svr(record, report, who, asked.now)


#: What a format needs is asked for before a byte is read.
FORMATS: Final[Mapping[str, Callable[[Asked], Builder]]] = {
    "slsa": _slsa,
    "cyclonedx": _cyclonedx,
    "svr": _svr,
}


def export_release(
    release: Path,
    form: str,
    *,
    trust: Trust,
    parents: Sequence[tuple[str | None, Path]] = (),
    demands: Demands | None = None,
    verifier: str = "",
    now: datetime | None = None,
) -> tuple[Report, bytes]:
    """Verify a release and derive a document from what its publisher signed.

    Args:
        release: its folder.
        form: "slsa", "cyclonedx" or "svr".
        trust: whom to believe.
        parents: (id or None, folder or file) of declared parents, to recompute the recipe.
        demands: how much to check; None: signature and bytes, and the recipe where there are parents.
        verifier: URI of who verified, for "svr".
        now: when; None: now.

    Returns:
        The report, and the document: empty unless the verdict is `verified`.

    Raises:
        UsageError: no such format or path, or "svr" without the URI of a verifier.
        CannotRunError: an extra is missing, or the format has no words for this lineage.
    """
    if form not in FORMATS:
        raise UsageError("no such format", expected=", ".join(FORMATS), found=form)
    for _, path in parents:
        if not path.exists():
            raise UsageError("no such file or folder", where=str(path))
    build = FORMATS[form](Asked(verifier=verifier, now=now or clock.now()))
    demands = demands or Demands(level="recompute" if parents else "integrity")
    records: list[Record] = []

    def history(state: State, seen: Seen) -> None:
        from_parents(state, seen, parents, ())

    report = examination(
        release,
        trust,
        demands,
        history,
        told=lambda seen: records.append(record_of(seen)),
        kin=[path for _, path in parents],
    )
    if not report.verified:
        return report, b""
    return report, build(records[0], report)
