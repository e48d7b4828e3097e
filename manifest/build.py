"""Declare: a folder and a recipe become tensor table, leaves and an unsigned lineage draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from parentage.manifest import atomic, canonical, digest, table
from parentage.manifest.digest import Profile
from parentage.manifest.errors import LineageError, ParentMissingError, UsageError
from parentage.manifest.hashing import Digests, Progress, hash_model
from parentage.manifest.lineage import (
    DRAFT,
    Lineage,
    LineageRecipe,
    Parent,
    Weights,
    parse,
    to_document,
)
from parentage.manifest.model import Model, open_model
from parentage.manifest.recipe import Recipe
from parentage.manifest.steps import Step
from parentage.manifest.wire import DigestSet


class Declared(msgspec.Struct, frozen=True):
    """What `declare` found and wrote.

    Attributes:
        lineage: the unsigned predicate.
        table: bytes of `.parentage/tensors.jsonl`.
        leaves: bytes of `.parentage/leaves.bin`.
    """

    lineage: Lineage
    table: bytes
    leaves: bytes


def declare(
    model: Path,
    recipe: Recipe,
    *,
    parents: Mapping[str, Path | str | DigestSet],
    step_outputs: Mapping[str, Path | str | DigestSet] | None = None,
    profiles: Sequence[Profile] = (digest.B3,),
    created: datetime | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Declared:
    """Digest a release and its parents, and write the draft that `sign` turns into a statement.

    Args:
        model: the release's folder.
        recipe: how it was made.
        parents: by id in the recipe: a folder or file, or the weights root (64 hex digits, or by
            profile); of a pickle, `verify.weights.with_roots`.
        step_outputs: by step id: an intermediate's folder, or its weights root.
        profiles: digest profiles of the tensor identities.
        created: time to record; now by default.
        threads: of the digest pass.
        progress: told of the bytes done.

    Raises:
        UsageError: `model` is not a folder, or an id is not in the recipe.
        ParentMissingError: a parent of the recipe was not given.
        MalformedError: the weights or the recipe break a rule.
    """
    if not model.is_dir():
        raise UsageError("a release is a folder", where=str(model), hint="put the file in a folder")
    roots = _roots_of_inputs(recipe, parents, step_outputs or {}, profiles, threads, progress)
    with open_model(model) as opened:
        digests = hash_model(
            opened, profiles=profiles, files=opened.headers, threads=threads, progress=progress
        )
        lineage = build_lineage(
            recipe,
            weights=weights_of(opened, digests),
            roots=roots,
            created=created or datetime.now(UTC),
        )
        data, leaves = table.build(opened, digests)
    write_draft(model, lineage, data, leaves)
    return Declared(lineage, data, leaves)


def weights_of(model: Model, digests: Digests) -> Weights:
    """Return the lineage's `weights` of a digested model."""
    return Weights(root=dict(digests.roots), tensors=len(model.tensors), bytes=str(model.nbytes))


def build_lineage(
    recipe: Recipe, *, weights: Weights, roots: Mapping[str, DigestSet], created: datetime
) -> Lineage:
    """Put together a predicate; `roots` are those of parents and of known step outputs."""
    parents = tuple(
        Parent(id=hint.id, weights=roots[hint.id], uri=hint.uri, license=hint.license)
        for hint in recipe.parents
    )
    steps: list[Step] = [
        msgspec.structs.replace(step, output=roots[step.id]) if step.id in roots else step
        for step in recipe.steps
    ]
    if steps:
        last = steps[-1]
        if last.id in roots and roots[last.id] != weights.root:
            raise LineageError(
                "the last step's output is not the released weights",
                where=f"step {last.id}",
                expected=str(weights.root),
                found=str(roots[last.id]),
            )
        steps[-1] = msgspec.structs.replace(last, output=weights.root)
    lineage = Lineage(
        weights=weights,
        parents=parents,
        recipe=LineageRecipe(steps=tuple(steps), source=recipe.source),
        created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return parse(to_document(lineage), where="draft")


def write_draft(model: Path, lineage: Lineage, data: bytes, leaves: bytes) -> None:
    """Write `.parentage/tensors.jsonl`, `leaves.bin` and `draft.json`, the draft last."""
    write_table(model, data, leaves)
    atomic.write_bytes(model / DRAFT, canonical.dumps(to_document(lineage)) + b"\n")


def write_table(model: Path, data: bytes, leaves: bytes) -> None:
    """Write `.parentage/tensors.jsonl` and `leaves.bin`."""
    folder = model / ".parentage"
    with atomic.reporting(folder):
        folder.mkdir(exist_ok=True)
    atomic.write_bytes(model / table.TENSORS, data)
    atomic.write_bytes(model / table.LEAVES, leaves)


def root_of(
    source: Path | str | DigestSet,
    *,
    profiles: Sequence[Profile] = (digest.B3,),
    threads: int | None = None,
    progress: Progress | None = None,
) -> DigestSet:
    """Return the weights root of a folder or file; a string of 64 hex digits is one already."""
    if isinstance(source, dict):
        return source
    if isinstance(source, str):
        if len(source) != 64 or set(source) - set("0123456789abcdef"):
            raise UsageError("not a weights root", expected="64 hex digits", found=source)
        return {digest.B3: source}
    with open_model(source) as opened:
        return dict(hash_model(opened, profiles=profiles, threads=threads, progress=progress).roots)


def _roots_of_inputs(
    recipe: Recipe,
    parents: Mapping[str, Path | str | DigestSet],
    step_outputs: Mapping[str, Path | str | DigestSet],
    profiles: Sequence[Profile],
    threads: int | None,
    progress: Progress | None,
) -> dict[str, DigestSet]:
    known = [hint.id for hint in recipe.parents]
    steps = [step.id for step in recipe.steps]
    for given, ids in ((parents, known), (step_outputs, steps)):
        for name in given:
            if name not in ids:
                raise UsageError("not in the recipe", found=name, expected=", ".join(ids) or "none")
    for name in known:
        if name not in parents:
            raise ParentMissingError(
                "parent not given", where=name, hint=f"add --parent {name}=FOLDER (or its root)"
            )
    given = {**parents, **step_outputs}
    return {
        name: root_of(source, profiles=profiles, threads=threads, progress=progress)
        for name, source in given.items()
    }
