"""Sign a model as OpenSSF Model Signing v1.0 does: a folder or one file, no tensors, no lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from parentage.attest import bundle, oms, oms_files
from parentage.attest.bundle import CLAIMS, MODEL_SIG
from parentage.attest.coverage import DEFAULT_IGNORES, Cover, cover_of
from parentage.attest.identity import Identity
from parentage.attest.oms import Oms
from parentage.attest.oms_files import Survey
from parentage.attest.oms_opening import open_oms
from parentage.attest.signer import AnySigner, require_oms
from parentage.attest.trust import Trust
from parentage.manifest import atomic
from parentage.manifest.errors import FileSetError, UsageError
from parentage.manifest.hashing import Progress
from parentage.manifest.ranges import Algorithm

_MAX_RESOURCES: Final = 1_000_000


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is signed.

    Attributes:
        hash_type: of the digests.
        shard_size: bytes of a shard; 0: whole files.
        ignore_paths: files and folders to leave out, as `oms_files.ignore_names` reads them.
        allow_symlinks: links to files inside the model stand for those.
        allow_uncovered: files that loaders read may be left out.
    """

    hash_type: Algorithm = "sha256"
    shard_size: int = 0
    ignore_paths: tuple[str, ...] = ()
    allow_symlinks: bool = False
    allow_uncovered: bool = False


class SignedModel(msgspec.Struct, frozen=True):
    """What `sign_model` wrote.

    Attributes:
        signature: the file.
        oms: what it says.
        signer: who signed.
        cover: how much of the model it covers.
    """

    signature: Path
    oms: Oms
    signer: Identity
    cover: Cover


def default_signature(model: Path) -> Path:
    """Return where a model's signature lies: in the folder, or beside the file."""
    return model / MODEL_SIG if model.is_dir() else model.with_name(model.name + ".sig")


def sign_model(
    model: Path,
    signer: AnySigner,
    trust: Trust,
    *,
    signature: Path | None = None,
    how: How | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> SignedModel:
    """Hash every file of a model and sign the list.

    Args:
        model: a folder or one file.
        signer: makes the signature.
        trust: the signer's own: what was signed is opened again before it is written.
        signature: file to write; None: the default place.
        how: which digests, and of what.
        threads: of the hash pass.
        progress: told of the bytes done.

    Raises:
        UsageError: no such model; a release with a lineage; a file that loaders read is left out.
        FileSetError: a link or special file, or a file that changes meanwhile.
        StatementError: an empty model, or more resources than a statement holds.
        SigningKeyError: a key that model signatures are not made with.
    """
    require_oms(signer)
    how = how or How()
    signature = signature or default_signature(model)
    own = oms_files.inside(signature, model) if model.is_dir() else None
    if own == MODEL_SIG and (model / CLAIMS).exists():
        raise UsageError(
            "this release has a lineage about its model.sig, which would no longer match",
            where=str(model),
            hint=f"parentage sign {model}, or --signature with another file",
        )
    ignored = {*DEFAULT_IGNORES, *oms_files.ignore_names(how.ignore_paths, model)}
    ignored |= {own} if own else set()
    found = oms_files.survey(
        model, ignore_paths=ignored, signature=signature, follow=how.allow_symlinks
    )
    _check(found, how)
    plan = Oms(root="", resources={}, files={}, hash_type=how.hash_type, shard_size=how.shard_size)
    digests = oms_files.digests(found, found.entries, plan, threads=threads, progress=progress)
    payload = oms.build(
        model.resolve().name or "model",
        digests,
        ignore_paths=sorted(ignored),
        hash_type=how.hash_type,
        shard_size=how.shard_size,
        allow_symlinks=how.allow_symlinks,
    )
    data = bundle.build(payload, signer)
    opened = open_oms(data, trust, str(signature))
    atomic.write_bytes(signature, data)
    cover = cover_of(found.sizes, opened.oms.files, found.ignored)
    cover.ignored.take(found.aside)
    return SignedModel(signature, opened.oms, opened.signer, cover)


def _check(found: Survey, how: How) -> None:
    for name, entry in found.entries.items():
        if entry.problem:
            raise FileSetError(
                f"can't be signed: {entry.problem}",
                where=name,
                expected="a regular file",
                hint="--allow-symlinks, or a copy of the file itself (cp -L)"
                if entry.problem == oms_files.LINK
                else "remove it, or --ignore-paths",
            )
    if how.shard_size:
        shards = sum(-(-entry.size // how.shard_size) for entry in found.entries.values())
        if shards > _MAX_RESOURCES:
            raise UsageError(
                "too many shards", expected=f"<= {_MAX_RESOURCES}", found=str(shards),
                hint="larger shards: --shard-size",
            )  # fmt: skip
    if not how.allow_uncovered:
        _refuse_uncovered(found, sharded=bool(how.shard_size))


def _refuse_uncovered(found: Survey, *, sharded: bool) -> None:
    for name, entry in found.entries.items():
        if sharded and not entry.size and entry.read_by_loaders(name):
            raise UsageError(
                "an empty file has no shards, so nothing would cover it",
                where=name,
                hint="--method files, or --allow-uncovered",
            )
    for name, entry in found.ignored.items():
        # Of our own defaults, model.sig and claims.jsonl: signatures sign themselves.
        if name not in DEFAULT_IGNORES and entry.read_by_loaders(name):
            raise UsageError(
                "a file that loaders read would not be covered",
                where=name,
                hint="leave it out of --ignore-paths, or --allow-uncovered",
            )
