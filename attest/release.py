"""Sign a release: OMS bundle over every file, lineage bundle over what the files are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import bundle, claims, oms
from parentage.attest.additional import Beside
from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.attest.coverage import DEFAULT_IGNORES, is_ignored
from parentage.attest.identity import Identity
from parentage.attest.opening import open_bundle
from parentage.attest.signer import AnySigner, require_oms
from parentage.attest.statement import Subject
from parentage.attest.trust import Trust
from parentage.manifest import atomic, build, canonical, lineage, table
from parentage.manifest.errors import FileSetError, MalformedError, SignatureError, UsageError
from parentage.manifest.files import FileSet, open_files
from parentage.manifest.hashing import Progress, hash_model
from parentage.manifest.lineage import DRAFT, Lineage
from parentage.manifest.model import Model, model_of
from parentage.manifest.recipe import Recipe
from parentage.manifest.table import Table

_OURS: Final = frozenset({MODEL_SIG, CLAIMS, DRAFT})


class Signed(msgspec.Struct, frozen=True):
    """What `sign` wrote.

    Attributes:
        lineage: the predicate that is now signed.
        oms_root: digest of the OMS statement's subject.
        signer: who signed.
        files: how many files the signature covers.
    """

    lineage: Lineage
    oms_root: str
    signer: Identity
    files: int


def sign_release(
    model: Path,
    signer: AnySigner,
    trust: Trust,
    *,
    also: Beside | None = None,
    observed: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Signed:
    """Sign what `declare` drafted; every byte is hashed again, so nothing can have changed since.

    Args:
        model: the release's folder.
        signer: makes the signatures.
        trust: the signer's own public key: what was signed is opened again before it is written.
        also: signs the same bytes, beside.
        observed: without a draft: declare the weights alone, in the same pass over the bytes.
        threads: of the hash pass.
        progress: told of the bytes done.

    Raises:
        UsageError: there is no draft, or one although the weights are observed only.
        SigningKeyError: a key that model signatures are not made with.
        FileSetError: a link is in the folder, or a file changed since `declare`.
    """
    require_oms(signer)
    _check_draft(model, observed=observed)
    _record_card(model)
    with open_files(model) as files:
        _refuse_links(model, files)
        hashed = _observe if observed else _drafted
        predicate, digests = hashed(files, threads, progress)
        payload = oms.build(model.resolve().name or "model", digests)
        signature = bundle.build(payload, signer)
        opened = open_bundle(signature, trust, MODEL_SIG)
        statement = claims.lineage_statement(opened, digests[table.TENSORS], predicate)
        line = bundle.build(statement, signer)
        open_bundle(line, trust, CLAIMS)
        lines, ours = [line], [trust]
        stale = _has_stale(files, payload)
        if also is not None:
            beside = also.sign(payload, MODEL_MLDSA)
            lines.append(also.sign(statement, CLAIMS))
            ours.append(also.trust)
        about = claims.subjects(opened, digests[table.TENSORS])
        kept = _other_claims(files, ours, about) + [line.rstrip(b"\n") + b"\n" for line in lines]
    atomic.write_bytes(model / CLAIMS, b"".join(kept))
    if also is not None:
        atomic.write_bytes(model / MODEL_MLDSA, beside)
    elif stale:
        (model / MODEL_MLDSA).unlink()
    atomic.write_bytes(model / MODEL_SIG, signature)
    (model / DRAFT).unlink(missing_ok=True)
    return Signed(predicate, opened.statement.subjects[0].sha256, opened.signer, len(digests))


def _record_card(model: Path) -> None:
    """Keep digests of the card's parts; reading a card takes YAML, which nothing else here does."""
    from parentage.manifest import card

    card.record(model)


def _check_draft(model: Path, *, observed: bool) -> None:
    drafted = (model / DRAFT).is_file()
    if not drafted and not observed:
        raise UsageError(
            "nothing declared here",
            where=str(model),
            hint=f"parentage declare {model}, or --observed for weights alone",
        )
    if drafted and observed:
        raise UsageError(
            "a lineage is declared here, which --observed would lose",
            where=str(model / DRAFT),
            hint=f"parentage sign {model} without --observed, or remove the draft",
        )


def _drafted(
    files: FileSet, threads: int | None, progress: Progress | None
) -> tuple[Lineage, dict[str, str]]:
    """Return the draft's predicate, and the SHA-256 of every file to be signed."""
    predicate, claimed = _read_draft(files)
    weights = model_of(files)
    digests = hash_model(
        weights, profiles=(), files=_to_sign(files), threads=threads, progress=progress
    ).files
    _check_unchanged(weights, claimed, digests)
    return predicate, digests


def _observe(
    files: FileSet, threads: int | None, progress: Progress | None
) -> tuple[Lineage, dict[str, str]]:
    """Digest tensors and files in one pass and write the tensor table; return likewise."""
    weights = model_of(files)
    names = [name for name in _to_sign(files) if name not in {table.TENSORS, table.LEAVES}]
    found = hash_model(weights, files=names, threads=threads, progress=progress)
    data, leaves = table.build(weights, found)
    build.write_table(files.root, data, leaves)
    predicate = build.build_lineage(
        Recipe(version="0.1", parents=(), steps=()),
        weights=build.weights_of(weights, found),
        roots={},
        created=datetime.now(UTC),
    )
    tables = {table.TENSORS: data, table.LEAVES: leaves}
    ours = {name: hashlib.sha256(data).hexdigest() for name, data in tables.items()}
    return predicate, found.files | ours


def _to_sign(files: FileSet) -> list[str]:
    return [n for n in files.files if n not in _OURS and not is_ignored(n, DEFAULT_IGNORES)]


def _read_draft(files: FileSet) -> tuple[Lineage, Table]:
    document = canonical.loads(files.files[DRAFT].read_small(canonical.MAX_BYTES), where=DRAFT)
    predicate = lineage.parse(document, where=DRAFT)
    for name in (table.TENSORS, table.LEAVES):
        if name not in files.files:
            raise MalformedError("declared file is missing", where=name, hint="run declare again")
    claimed = table.parse(files.files[table.TENSORS].read_small(table.MAX_TABLE))
    if dict(predicate.weights.root) != dict(claimed.roots):
        raise MalformedError("draft and tensor table differ", where=DRAFT, hint="run declare again")
    return predicate, claimed


def _check_unchanged(model: Model, claimed: Table, digests: dict[str, str]) -> None:
    for name in sorted(set(model.headers) | set(claimed.files)):
        expected = claimed.files[name].sha256 if name in claimed.files else "absent"
        found = digests.get(name, "absent")
        if found != expected:
            raise FileSetError(
                "weights changed since they were declared",
                where=name,
                expected=f"sha256 {expected}",
                found=f"sha256 {found}",
                hint="run declare again",
            )


def _refuse_links(model: Path, files: FileSet) -> None:
    """OMS statements are made without links: what is signed must be what is uploaded."""
    for name in files.files:
        if (model / name).is_symlink():
            raise FileSetError(
                "a signed release has no links",
                where=name,
                hint="copy the file itself (cp -L) into the folder",
            )


def _has_stale(files: FileSet, payload: bytes) -> bool:
    """Say whether an additional signature over other bytes lies here: what it signs is gone."""
    if MODEL_MLDSA not in files.files:
        return False
    try:
        held = bundle.parse(files.files[MODEL_MLDSA].read_small(bundle.MAX_BUNDLE), MODEL_MLDSA)
    except MalformedError:
        return True
    return held.payload != payload


def _other_claims(files: FileSet, ours: Sequence[Trust], about: tuple[Subject, ...]) -> list[bytes]:
    """Keep every line but these signers' lineages of the same subjects, which new ones replace."""
    if CLAIMS not in files.files:
        return []
    kept: list[bytes] = []
    for line in files.files[CLAIMS].read_small(claims.MAX_CLAIMS).split(b"\n"):
        if line.strip() and not any(_replaced(line, trust, about) for trust in ours):
            kept.append(line + b"\n")
    return kept


def _replaced(line: bytes, trust: Trust, about: tuple[Subject, ...]) -> bool:
    try:
        statement = open_bundle(line, trust, CLAIMS).statement
    except (MalformedError, SignatureError):
        return False
    return statement.predicate_type == lineage.LINEAGE and statement.subjects == about
