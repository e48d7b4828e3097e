"""Inputs that are valid in form and large: each must end in time that grows with its size alone."""

from __future__ import annotations

import json

import pytest
from worlds import raw_safetensors

from parentage.attest import coverage
from parentage.attest.statement import TYPE, parse_statement
from parentage.manifest.errors import HeaderError, StatementError
from parentage.manifest.header import read_header

MANY = 200_000


def test_a_header_of_many_tensors_and_one_duplicate() -> None:
    entry = '"%s":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    names = [f"t{n}" for n in range(MANY)] + [f"t{MANY - 1}"]
    data = raw_safetensors("{" + ",".join(entry % name for name in names) + "}")

    with pytest.raises(HeaderError, match="duplicate") as caught:
        read_header(lambda at, size: data[at : at + size], len(data), "m")

    assert caught.value.found == f"t{MANY - 1}"


def test_a_statement_of_many_subjects_and_one_duplicate() -> None:
    subjects = [{"name": f"s{n}", "digest": {"sha256": "0" * 64}} for n in range(MANY)]
    document = {
        "_type": TYPE,
        "subject": [*subjects, subjects[-1]],
        "predicateType": "x",
        "predicate": {},
    }

    with pytest.raises(StatementError, match="stands twice") as caught:
        parse_statement(json.dumps(document).encode(), "t")

    assert caught.value.found == f"s{MANY - 1}"


def test_many_ignores_and_many_files() -> None:
    ignores = frozenset(f"folder{n}" for n in range(MANY))

    assert coverage.dangerous_ignores(ignores, [f"folder{n}/a.py" for n in range(MANY)])
    assert not coverage.dangerous_ignores(ignores, [f"folder{n}x/a.py" for n in range(MANY)])
