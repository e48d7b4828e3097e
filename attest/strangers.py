"""What strangers say of a release: shown, never counted. Their signatures can't be checked here.

The one place beside `peek` where a payload is read that nobody trusted signed: bounded, by the same strict
parsers, and only into text that is escaped before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from parentage.attest import bundle
from parentage.attest.claims import Unopened
from parentage.attest.disputes import Dispute
from parentage.attest.material import KeyHint
from parentage.attest.statement import parse_statement
from parentage.attest.statements import dispute, status
from parentage.attest.statements.shared import About, sha256
from parentage.manifest.errors import MalformedError, printable

#: Lines that are looked at, and bytes of one.
_MOST: Final = 64
_LONGEST: Final = 64 << 10


def disputes(lines: Iterable[Unopened], release: About) -> list[Dispute]:
    """Return what unopened lines say against a release."""
    found: dict[str, Dispute] = {}
    looked = 0
    for line in lines:
        if looked == _MOST:
            break
        if len(line.line) > _LONGEST:
            continue
        looked += 1
        try:
            said = _read(line, release)
        except MalformedError:
            continue
        if said is not None:
            found[said.payload] = said
    return list(found.values())


def _read(line: Unopened, release: About) -> Dispute | None:
    parsed = bundle.parse(line.line, line.where)
    statement = parse_statement(parsed.payload, line.where)
    if statement.predicate_type == dispute.TYPE:
        about, found = dispute.parse(statement, line.where)
        reason, words = found.reason, found.statement
    elif statement.predicate_type == status.TYPE:
        about, said = status.parse(statement, line.where)
        if said.state == "current":
            return None
        reason, words = said.reason or "other", f"{said.state}: {said.statement}"
    else:
        return None
    if about.lineage != release.lineage and about.model != release.model:
        return None
    hint = (
        parsed.material.kind.hint if isinstance(parsed.material.kind, KeyHint) else "a certificate"
    )
    return Dispute(
        by=f"{printable(hint, 80)} (not checked)",
        reason=reason,
        statement=printable(words, 300),
        payload=sha256(parsed.payload),
    )
