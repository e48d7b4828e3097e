"""Rows of a leaderboard: from a CSV or JSON file, or as a Hub gives them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import MAX_RESULTS, is_number, number, read_file, word

MAX_ROWS: Final = 10_000
#: Names of columns, lower case and without marks, by what they hold.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("model", "modelid", "modelname", "name"),
    "value": ("value", "score"),
    "task": ("task", "taskid"),
    "metric": ("metric",),
    "dataset": ("dataset", "datasetid"),
    "revision": ("revision", "modelsha", "sha"),
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One score of one model.

    Attributes:
        model: how the board names it, usually "org/name".
        value: exact decimal text.
        task, metric, dataset: of which it is, where the board says.
        revision: of the model, where the board says.
        where: line or number in the board.
    """

    model: str
    value: str
    task: str = ""
    metric: str = ""
    dataset: str = ""
    revision: str = ""
    where: str = ""


def read_rows(path: Path) -> list[Row]:
    """Read a board: a list of objects (JSON), or a table with a header (CSV).

    A table without a column `value` or `score` has a task in each column that holds a number.

    Raises:
        ResultsError, JsonError: it is none, or has no row or too many.
    """
    data, where = read_file(path), str(path)
    if data.lstrip()[:1] in {b"[", b"{"}:
        said = canonical.loads(data, where=where, max_bytes=MAX_RESULTS, floats=Decimal)
        found = said.get("rows") if isinstance(said, dict) else said
        return _bounded(_of_objects(found, where), where)
    try:
        # Lines end as CSV has them: U+2028 in a cell makes no row.
        lines = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ResultsError("not a table", where=where, found=str(error)) from error
    return _bounded(_of_lines(lines, where), where)


def rows_of(said: object, dataset: str) -> list[Row]:
    """Return the rows of a data set's leaderboard as a Hub gives them.

    Raises:
        ResultsError: they are none, or there are too many.
    """
    where = f"leaderboard of {dataset}"
    exact = json.loads(json.dumps(said), parse_float=Decimal)
    found = _bounded(_of_objects(exact, where), where)
    return [msgspec.structs.replace(row, dataset=dataset) for row in found]


def _bounded(rows: Iterable[Row], where: str) -> list[Row]:
    found = []
    for row in rows:
        found.append(row)
        if len(found) > MAX_ROWS:
            raise ResultsError("too many rows", where=where, expected=f"<= {MAX_ROWS}")
    if not found:
        raise ResultsError("a board without a row", where=where)
    return found


def _of_objects(said: object, where: str) -> Iterator[Row]:
    if not isinstance(said, list):
        raise ResultsError("not a list of rows", where=where, found=type(said).__name__)
    for at, one in enumerate(said, 1):
        if not isinstance(one, dict):
            raise ResultsError("not an object", where=f"{where}: row {at}", found=str(one))
        yield from _of_cells(one, f"{where}: row {at}")


def _of_lines(lines: list[list[str]], where: str) -> Iterator[Row]:
    head = lines[0] if lines else []
    if len(set(head)) != len(head):
        raise ResultsError("a column stands twice", where=where)
    for at, line in enumerate(lines[1:], 2):
        if not line:
            continue
        if len(line) != len(head):
            raise ResultsError(
                "line of another length",
                where=f"{where}:{at}",
                expected=str(len(head)),
                found=str(len(line)),
            )
        yield from _of_cells(dict(zip(head, line, strict=True)), f"{where}:{at}")


def _of_cells(cells: Mapping[str, Any], where: str) -> Iterator[Row]:
    """Yield the row, or one for each column with a number."""
    columns = {_plain(name): name for name in cells}
    known = {
        field: columns[name]
        for field, names in _COLUMNS.items()
        if (name := next((n for n in names if n in columns), None)) is not None
    }
    counted = Counter(_plain(name) for name in cells)
    if any(counted[_plain(name)] > 1 for name in known.values()):
        raise ResultsError("a column stands twice", where=where, found=", ".join(cells))
    if "model" not in known:
        raise ResultsError("no column names the model", where=where, found=", ".join(cells))
    said = {
        field: word(cells[name], where)
        for field, name in known.items()
        if field != "value" and not isinstance(cells[name], (dict, list, bool))
    }
    if not said.get("model"):
        raise ResultsError("a row without a model", where=where)
    if "value" in known:
        yield Row(**{**said, "value": number(cells[known["value"]], where), "where": where})
        return
    for name, cell in cells.items():
        if name not in known.values() and _numeric(cell):
            yield Row(**{**said, "task": name, "value": number(cell, where), "where": where})


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _numeric(cell: object) -> bool:
    if is_number(cell):
        return True
    try:
        return isinstance(cell, str) and Decimal(cell).is_finite()
    except ArithmeticError:
        return False
