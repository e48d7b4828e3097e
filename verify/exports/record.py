"""What a derived document is made of, and the words with which it says that it is derived."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import msgspec

from parentage.attest import oms
from parentage.attest.bundle import MAX_BUNDLE, MODEL_SIG
from parentage.attest.identity import Identity
from parentage.attest.statement import Subject
from parentage.manifest.lineage import LINEAGE, Lineage
from parentage.verify.examination import Seen
from parentage.verify.report import Signer, signed_by

NOTE: Final = "derived from a signed lineage statement; that statement is the record"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A release as its publisher signed it.

    Attributes:
        name: of the model, as its signature has it.
        subjects: of the lineage statement; the first is the OMS root.
        files: SHA-256 of every signed file.
        weights: names of those that hold the tensors.
        signature: SHA-256 of `model.sig`.
        lineage: the predicate.
        statement: SHA-256 of the lineage's payload.
        signer: of both.
    """

    name: str
    subjects: tuple[Subject, ...]
    files: dict[str, str]
    weights: tuple[str, ...]
    signature: str
    lineage: Lineage
    statement: str
    signer: Identity

    @property
    def oms_root(self) -> str:
        """The digest that stands for all files."""
        return self.subjects[0].sha256

    def derived_from(self) -> dict[str, Any]:
        """Return what a document says of its origin."""
        return {
            "note": NOTE,
            "predicateType": LINEAGE,
            "statement": {"sha256": self.statement},
            "signer": _without_blanks(signed_by(self.signer)),
            "weights": dict(self.lineage.weights.root),
        }


def record_of(seen: Seen) -> Record:
    """Return the record of a release whose statements were verified."""
    signed = oms.parse(seen.signature.statement)
    return Record(
        name=seen.signature.statement.subjects[0].name,
        subjects=seen.subjects(),
        files=dict(signed.resources),
        weights=tuple(sorted(seen.model.headers)),
        signature=hashlib.sha256(seen.files.files[MODEL_SIG].read_small(MAX_BUNDLE)).hexdigest(),
        lineage=seen.lineage,
        statement=hashlib.sha256(seen.statement.payload).hexdigest(),
        signer=seen.signature.signer,
    )


def to_bytes(document: dict[str, Any]) -> bytes:
    """Return a document as ASCII JSON: whatever stands in it, it can't drive a terminal."""
    return json.dumps(document, indent=2, ensure_ascii=True).encode() + b"\n"


def _without_blanks(signer: Signer) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(signer)
    return {name: value for name, value in found.items() if value}
