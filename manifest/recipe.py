"""Recipe v0.1: a graph of typed steps from parents to the release.

An unknown op or field is an error. A step names its inputs: parents or earlier steps; the last step's
output is the release.

    version: "0.1"
    parents: [{id: nex}, {id: qwen}]
    steps:
      - {id: merge, op: weighted_sum/v1, inputs: [nex, qwen],
         params: {weights: ["0.6", "0.4"], normalize: true},
         arithmetic: {profile: parentage-1, store: BF16}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import JsonError, RecipeError
from parentage.manifest.step_checks import check_step
from parentage.manifest.steps import Material, Step
from parentage.manifest.wire import Hex, Id, Wire

MAX_RECIPE: Final = 8 << 20
MAX_STEPS: Final = 256


class Source(Wire, frozen=True, kw_only=True):
    """The document that a recipe was imported from, as evidence.

    Attributes:
        media_type: e.g. "application/vnd.mergekit+yaml".
        sha256: of its bytes.
        text: its bytes, verbatim.
        warnings: what the importer could not know.
        materials: files that it was resolved with, by digest: tokenizers, adapter configs, and the
            parents' files where the document names them by SHA-256.
    """

    media_type: str
    sha256: Hex
    text: str = ""
    warnings: tuple[str, ...] = ()
    materials: tuple[Material, ...] = ()


class ParentHint(Wire, frozen=True, kw_only=True):
    """A parent in a recipe file: where it may be found, not yet what it is."""

    id: Id
    uri: str = ""
    license: str = ""


class Recipe(Wire, frozen=True, kw_only=True):
    """A recipe file, as a publisher writes it."""

    version: Literal["0.1"]
    parents: Annotated[tuple[ParentHint, ...], msgspec.Meta(max_length=64)]
    steps: Annotated[tuple[Step, ...], msgspec.Meta(max_length=MAX_STEPS)]
    source: Source | None = None


def load(path: Path) -> Recipe:
    """Read a recipe file: YAML, or JSON where the name ends in `.json`.

    Raises:
        RecipeError: it is not a recipe; the message names field and value.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_RECIPE + 1)
    except OSError as error:
        raise RecipeError(f"can't read the recipe: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_RECIPE:
        raise RecipeError("recipe too large", where=str(path), expected=f"<= {MAX_RECIPE} bytes")
    if path.suffix == ".json":
        try:
            return parse(canonical.loads(data, where=str(path)), where=str(path))
        except JsonError as error:
            raise RecipeError(error.what, where=error.where, found=error.found) from error
    return parse(load_yaml(data, where=str(path)), where=str(path))


def load_yaml(data: bytes, *, where: str) -> object:
    """Parse YAML without aliases or duplicate keys; 0.6 stays the text "0.6", so it is exact."""
    from parentage.manifest.strict_yaml import parse_yaml

    return parse_yaml(data, where=where)


def parse(document: object, *, where: str) -> Recipe:
    """Turn parsed JSON or YAML into a checked recipe."""
    try:
        recipe = msgspec.convert(document, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(
            f"not a recipe: {error}",
            where=where,
            hint='ratios are exact numbers in quotes, such as "0.6"',
        ) from error
    check_graph([parent.id for parent in recipe.parents], recipe.steps, where=where)
    return recipe


def check_graph(parents: list[str], steps: tuple[Step, ...], *, where: str) -> None:
    """Check ids, order, cycles, arity and that no step is idle.

    Raises:
        RecipeError: naming the step.
    """
    ids = parents + [step.id for step in steps]
    for name in ids:
        if ids.count(name) > 1:
            raise RecipeError("id stands twice", where=where, found=name)
    by_id = {step.id: step for step in steps}
    seen = set(parents)
    for step in steps:
        for name in step.inputs:
            if name in seen:
                continue
            if name not in by_id:
                raise RecipeError(
                    "unknown input",
                    where=f"{where}: step {step.id}",
                    expected=f"one of {sorted(seen)}",
                    found=name,
                )
            if step.id in _reach(name, by_id):
                raise RecipeError(
                    "recipe has a cycle", where=f"{where}: step {step.id}", found=name
                )
            raise RecipeError(
                "step reads a later step",
                where=f"{where}: step {step.id}",
                found=name,
                hint="list steps in order",
            )
        check_step(step, f"{where}: step {step.id}")
        seen.add(step.id)
    used = {name for step in steps for name in step.inputs}
    for name in ids[:-1] if steps else []:
        if name not in used:
            raise RecipeError("nothing uses it", where=where, found=name)


def _reach(name: str, by_id: dict[str, Step]) -> set[str]:
    found: set[str] = set()
    pending = [name]
    while pending:
        at = pending.pop()
        if at in by_id and at not in found:
            found.add(at)
            pending.extend(by_id[at].inputs)
    return found
