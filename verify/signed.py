"""What the publisher signed, opened before anything is compared: signature and tensor table."""

from __future__ import annotations

import hashlib
from typing import Final

from parentage.attest import oms
from parentage.attest.bundle import MODEL_SIG
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.trust import Trust
from parentage.manifest import table
from parentage.manifest.errors import MalformedError, UnsignedError
from parentage.manifest.files import FileSet
from parentage.manifest.lineage import Lineage
from parentage.manifest.table import Table
from parentage.verify import verdict
from parentage.verify.verdict import Finding

_MAX_SIG: Final = 64 << 20


def open_signature(files: FileSet, trust: Trust) -> Opened:
    """Verify `model.sig` and only then read it: steps 0 and 1.

    Raises:
        UnsignedError: there is none.
        MalformedError, SignatureError: it is broken, by somebody else, or about something else.
    """
    if MODEL_SIG not in files.files:  # (0)
        raise UnsignedError(
            "no signature here",
            where=str(files.root),
            expected=f"{MODEL_SIG} and .parentage/claims.jsonl",
            hint="ask the publisher for a signed release, or sign it: parentage declare, parentage sign",
        )
    signature = open_bundle(
        files.files[MODEL_SIG].read_small(_MAX_SIG), trust, MODEL_SIG, ecdsa=True
    )  # (1)
    if signature.statement.predicate_type != oms.PREDICATE:
        raise MalformedError(
            "model.sig holds another statement",
            where=MODEL_SIG,
            expected=oms.PREDICATE,
            found=signature.statement.predicate_type,
        )
    return signature


def open_table(files: FileSet, signed: oms.Oms, *, leaves: bool = True) -> Table:
    """Read the tensor table and, unless they are left for later, its leaves.

    Both are covered by the signature's file digests.

    Raises:
        MalformedError: one is absent, unsigned, changed or inconsistent.
    """
    parts: dict[str, bytes] = {}
    for name in (table.TENSORS, table.LEAVES):
        if name not in files.files or name not in signed.resources:
            raise MalformedError("release has no signed tensor table", where=name)
        if name == table.LEAVES and not leaves:
            continue
        parts[name] = files.files[name].read_small(table.MAX_TABLE)
        found = hashlib.sha256(parts[name]).hexdigest()
        if found != signed.resources[name]:
            raise MalformedError(
                "file is not the signed one",
                where=name,
                expected=signed.resources[name],
                found=found,
            )
    claimed = table.parse(parts[table.TENSORS])
    if leaves:
        table.check_leaves(claimed, parts[table.LEAVES])
    return claimed


def check_root(lineage: Lineage, claimed: Table, where: str) -> list[Finding]:
    """Compare what the lineage says of the weights with the signed table."""
    said = lineage.weights
    found: list[Finding] = []
    if dict(said.root) != dict(claimed.roots):
        found.append(
            verdict.finding(
                "weights-root",
                "the lineage is about other weights",
                where=table.TENSORS,
                expected=str(dict(said.root)),
                found=str(dict(claimed.roots)),
            )
        )
    if said.tensors != len(claimed.tensors) or said.bytes != str(
        sum(line.offsets[1] - line.offsets[0] for line in claimed.tensors.values())
    ):
        found.append(
            verdict.finding(
                "weights-size",
                "the lineage counts other tensors or bytes than the table",
                where=where,
                expected=f"{said.tensors} tensors, {said.bytes} bytes",
                found=f"{len(claimed.tensors)} tensors",
            )
        )
    return found
