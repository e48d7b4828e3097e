"""What a card is held against: the lineage of a release, signed or only declared.

Without anyone to trust, bundles are parsed and not verified: the report says so. A draft goes before
what is signed, for it is what will be signed next; whoever names a key gets the signed lineage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, Literal

import msgspec

from parentage.attest import bundle, claims, oms
from parentage.attest.bundle import CLAIMS, MAX_BUNDLE, MODEL_SIG
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.policy import Role
from parentage.attest.roles import believed as as_believed
from parentage.attest.roles import persons
from parentage.attest.statement import Statement, Subject, parse_statement
from parentage.attest.statements import benchmark, recompute
from parentage.attest.statements.benchmark import Benchmark
from parentage.attest.trust import Trust
from parentage.manifest import canonical, lineage, table
from parentage.manifest.errors import MalformedError, StatementError, UnsignedError
from parentage.manifest.files import FileSet
from parentage.manifest.lineage import DRAFT, LINEAGE, Lineage
from parentage.manifest.table import TENSORS, FileLine
from parentage.verify.cards.surroundings import Folder

State = Literal["verified", "signed", "declared"]
#: What is said of a manifest in each state.
SAID: Final = {
    "verified": "signed by whom you trust",
    "signed": "signed; the signature was not verified",
    "declared": "declared, not signed yet",
}


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest.

    Attributes:
        lineage: parents, recipe, weights.
        state: verified, signed (by whom was not asked), or declared.
        resources: SHA-256 of each file that `model.sig` signs; empty while nothing is signed.
        files: the weights files of the tensor table.
        benchmarks: what benchmark statements say, of whatever weights; verified where the lineage is.
        recomputed: what statements of verifiers who are trusted say of these weights, in sentences.
    """

    lineage: Lineage
    state: State
    resources: dict[str, str] = {}
    files: tuple[FileLine, ...] = ()
    benchmarks: tuple[Benchmark, ...] = ()
    recomputed: tuple[str, ...] = ()


def find_authority(folder: Folder, trust: Trust | None) -> Authority:
    """Return the manifest of a release.

    Raises:
        UnsignedError: there is none, or with `trust` none by whom is trusted.
        SignatureError: by nobody trusted.
        MalformedError: it is broken, or about other weights.
    """
    with folder.open(MODEL_SIG, CLAIMS, TENSORS, DRAFT) as files:
        if trust is not None:
            return _verified(files, trust)
        if DRAFT in files.files:
            return _declared(files)
        return _signed(files)


def _declared(files: FileSet) -> Authority:
    data = files.files[DRAFT].read_small(canonical.MAX_BYTES)
    said = lineage.parse(canonical.loads(data, where=DRAFT), where=DRAFT)
    lines = _unverified(files)
    return Authority(
        lineage=said,
        state="declared",
        files=_weights_files(files),
        benchmarks=tuple(_benchmarks((line.statement, line.where) for line in lines)),
    )


def _verified(files: FileSet, trust: Trust) -> Authority:
    if MODEL_SIG not in files.files:
        raise _nothing(files)
    opened = open_bundle(files.files[MODEL_SIG].read_small(MAX_BUNDLE), trust, MODEL_SIG)
    signed = oms.parse(opened.statement)
    said = claims.read_claims(files, as_believed(trust))
    found = claims.choose_lineage(files, opened, said)
    return Authority(
        lineage=found.lineage,
        state="verified",
        resources=signed.resources,
        files=_weights_files(files),
        benchmarks=tuple(_benchmarks((one.opened.statement, one.where) for one in said.opened)),
        recomputed=tuple(_recomputed(said, opened, found)),
    )


def _recomputed(said: claims.Claims, signature: Opened, found: claims.Found) -> Iterator[str]:
    """Yield how far verifiers recomputed this release, as their verified statements say."""
    lineage_here = hashlib.sha256(found.opened.payload).hexdigest()
    about = (Subject("lineage", lineage_here), *found.opened.statement.subjects)
    signers = persons([signature.signer, found.opened.signer])
    for claim in said.opened:
        own = persons([claim.opened.signer]) <= signers
        if claim.opened.statement.predicate_type != recompute.TYPE or own:
            continue
        try:
            subjects, done = recompute.parse(claim.opened.statement, claim.where)
        except StatementError:
            continue  # a line that breaks its schema says nothing
        is_here = subjects == about and done.weights == found.lineage.weights.root
        if Role.VERIFIER in claim.roles and is_here and done.verdict == "verified":
            rungs = ", ".join(f"{one.tensors:,} tensors at rung {one.rung}" for one in done.rungs)
            yield f"{rungs} ({claim.where})"


def _signed(files: FileSet) -> Authority:
    if MODEL_SIG not in files.files or CLAIMS not in files.files:
        raise _nothing(files)
    parsed = bundle.parse(files.files[MODEL_SIG].read_small(MAX_BUNDLE), MODEL_SIG)
    signature = parse_statement(parsed.payload, MODEL_SIG)
    signed = oms.parse(signature)
    expected = (
        Subject("model", signature.subjects[0].sha256),
        Subject(TENSORS, claims.table_digest(files)),
        Subject("oms-statement", hashlib.sha256(parsed.payload).hexdigest()),
    )
    lines = _unverified(files)
    found = [
        line.statement
        for line in lines
        if line.hint == parsed.hint
        and line.statement.predicate_type == LINEAGE
        and line.statement.subjects == expected
    ]
    if not found:
        raise StatementError(
            "no lineage here is about these weights and this model.sig",
            where=CLAIMS,
            hint="parentage declare, parentage sign",
        )
    if len({one.payload for one in found}) > 1:
        raise StatementError(
            "several lineages of these weights",
            where=CLAIMS,
            hint="say whose counts: --key release.pub, or --policy FILE",
        )
    return Authority(
        lineage=lineage.parse(found[0].predicate, where="lineage"),
        state="signed",
        resources=signed.resources,
        files=_weights_files(files),
        benchmarks=tuple(_benchmarks((line.statement, line.where) for line in lines)),
    )


class _Line(msgspec.Struct, frozen=True):
    """A line of claims whose signature nobody verified."""

    where: str
    hint: str
    statement: Statement


def _unverified(files: FileSet) -> list[_Line]:
    """Return what the lines of `claims.jsonl` say; nothing is verified."""
    found: list[_Line] = []
    if CLAIMS not in files.files:
        return found
    lines = files.files[CLAIMS].read_small(claims.MAX_CLAIMS).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{CLAIMS}:{number}"
        try:
            parsed = bundle.parse(line, where)
            found.append(_Line(where, parsed.hint, parse_statement(parsed.payload, where)))
        except MalformedError:
            continue  # claims.jsonl: unknown lines are ignored
    return found


def _benchmarks(statements: Iterable[tuple[Statement, str]]) -> Iterator[Benchmark]:
    for statement, where in statements:
        if statement.predicate_type == benchmark.TYPE:
            with suppress(StatementError):  # a line that breaks its schema says nothing
                yield benchmark.parse(statement, where)[1]


def _weights_files(files: FileSet) -> tuple[FileLine, ...]:
    """Return the last lines of the tensor table, without reading those of the tensors."""
    if TENSORS not in files.files:
        return ()
    data = files.files[TENSORS].read_small(table.MAX_TABLE)
    found: list[FileLine] = []
    end = len(data) - data.endswith(b"\n")
    while end > 0:
        start = data.rfind(b"\n", 0, end) + 1
        line, end = data[start:end], start - 1
        if b'"name":' in line:
            break
        try:
            found.append(msgspec.json.decode(line, type=FileLine))
        except msgspec.DecodeError as error:
            raise StatementError(
                "bad line in tensor table", where=TENSORS, found=str(error)
            ) from error
    return tuple(reversed(found))


def _nothing(files: FileSet) -> UnsignedError:
    return UnsignedError(
        "no manifest here",
        where=str(files.root),
        expected=f"{MODEL_SIG} and {CLAIMS}, or {DRAFT}",
        hint=f"parentage declare {files.root}, then parentage card sync {files.root}, then parentage sign {files.root}",
    )
