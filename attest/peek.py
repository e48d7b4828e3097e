"""Read claims without trusting them: for `show`, and for nothing that decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.attest.statement import parse_statement
from parentage.manifest.errors import MalformedError, UnsignedError, UsageError

_MAX_FILE: Final = 64 << 20


def peek(path: Path) -> list[dict[str, Any]]:
    """Return what the bundles at `path` (a release or one file) claim, unverified.

    Raises:
        UsageError: there is no such path.
        UnsignedError: there is no readable bundle.
    """
    if not path.exists():
        raise UsageError("no such file or folder", where=str(path))
    files = [path / MODEL_SIG, path / MODEL_MLDSA, path / CLAIMS] if path.is_dir() else [path]
    found: list[dict[str, Any]] = []
    for file in files:
        if file.is_file():
            found += _claims(file)
    if not found:
        raise UnsignedError("no claims here", where=str(path), expected=f"model.sig or {CLAIMS}")
    return found


def _claims(file: Path) -> list[dict[str, Any]]:
    with file.open("rb") as stream:
        data = stream.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise UsageError("file too large to show", where=str(file), found=f"> {_MAX_FILE} bytes")
    lines = data.splitlines() if file.suffix == ".jsonl" else [data]
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        where = f"{file.name}:{number}" if file.suffix == ".jsonl" else file.name
        try:
            parsed = bundle.parse(line, where)
            statement = parse_statement(parsed.payload, where)
        except MalformedError:
            if len(lines) == 1:
                raise
            continue
        found.append(
            {
                "where": where,
                "keyHint": parsed.hint,
                "predicateType": statement.predicate_type,
                "subjects": [{"name": s.name, "sha256": s.sha256} for s in statement.subjects],
                "predicate": statement.predicate,
            }
        )
    return found
