"""Statements beyond signature and lineage: one file each, one line in the table.

To add one: a file with `TYPE`, the predicate's structure, `parse` and `build`, a line here, a schema in
tests/regenerate_schemas.py, and its row in docs/format.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from parentage.attest.statement import Statement
from parentage.attest.statements import (
    benchmark,
    dispute,
    endorsement,
    recompute,
    release,
    status,
    summary,
)

#: Parsers by predicate type. A parser raises StatementError.
STATEMENTS: Final[Mapping[str, Callable[[Statement, str], Any]]] = {
    benchmark.TYPE: benchmark.parse,
    dispute.TYPE: dispute.parse,
    endorsement.TYPE: endorsement.parse,
    recompute.TYPE: recompute.parse,
    release.TYPE: release.parse,
    status.TYPE: status.parse,
    summary.TYPE: summary.parse,
}
