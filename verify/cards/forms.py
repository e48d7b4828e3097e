"""Whether the files of a manifest have their forms; who signed them is not asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from parentage.attest import bundle, claims, oms
from parentage.attest.bundle import CLAIMS, MAX_BUNDLE, MODEL_SIG
from parentage.attest.statement import parse_statement
from parentage.attest.statements import STATEMENTS
from parentage.manifest import canonical, lineage, table
from parentage.manifest.card import MAX_RECORD, RECORD, read_record
from parentage.manifest.errors import MalformedError
from parentage.manifest.lineage import DRAFT, LINEAGE
from parentage.manifest.table import TENSORS
from parentage.verify.cards.surroundings import Folder
from parentage.verify.showing import Level, Problem

#: A tensor table that takes longer to read than a commit may: 30,000 tensors.
QUICK: Final = 8 << 20


def malformed(folder: Folder, not_checked: list[str]) -> Iterator[Problem]:
    """Yield a problem for each file of a manifest, or line of it, that breaks its format.

    A large tensor table is not read, which is added to `not_checked`.
    """
    for name, (limit, check) in _FILES.items():
        if name == TENSORS and folder.sizes({name: None}).get(name, 0) > QUICK:
            not_checked.append(
                f"lines of {TENSORS}, which is large: parentage sign and verify read them"
            )
            continue
        try:
            data = folder.read(name, limit)
            if data is not None:
                check(data)
        except MalformedError as error:
            yield _problem(error, name, 0, Level.ERROR)
    try:
        data = folder.read(CLAIMS, claims.MAX_CLAIMS) or b""
    except MalformedError as error:
        yield _problem(error, CLAIMS, 0, Level.ERROR)
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield from _line(line, number)


def _line(line: bytes, number: int) -> Iterator[Problem]:
    where = f"{CLAIMS}:{number}"
    try:
        statement = parse_statement(bundle.parse(line, where).payload, where)
    except MalformedError as error:
        # Readers pass it over, so that it is no more than a mistake here.
        yield _problem(error, CLAIMS, number, Level.WARNING)
        return
    try:
        if statement.predicate_type == LINEAGE:
            lineage.parse(statement.predicate, where=where)
        elif statement.predicate_type in STATEMENTS:
            STATEMENTS[statement.predicate_type](statement, where)
    except MalformedError as error:
        yield _problem(error, CLAIMS, number, Level.ERROR)


def _problem(error: MalformedError, file: str, line: int, level: Level) -> Problem:
    return Problem(
        code="manifest-malformed",
        level=level,
        message=f"a file of the manifest breaks its format: {error.what}",
        where=error.where,
        expected=error.expected,
        found=error.found,
        next=error.hint or "make it again: parentage declare, parentage sign",
        file=file,
        line=line,
    )


def _draft(data: bytes) -> None:
    lineage.parse(canonical.loads(data, where=DRAFT), where=DRAFT)


def _signature(data: bytes) -> None:
    oms.parse(parse_statement(bundle.parse(data, MODEL_SIG).payload, MODEL_SIG))


def _table(data: bytes) -> None:
    table.parse(data)


def _record(data: bytes) -> None:
    read_record(data)


_FILES: Final[dict[str, tuple[int, Callable[[bytes], None]]]] = {
    DRAFT: (canonical.MAX_BYTES, _draft),
    MODEL_SIG: (MAX_BUNDLE, _signature),
    TENSORS: (table.MAX_TABLE, _table),
    RECORD: (MAX_RECORD, _record),
}
