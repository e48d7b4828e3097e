"""The lineage predicate: parents, recipe, training, weights root (DESIGN 5.1)."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from parentage.manifest.errors import LineageError
from parentage.manifest.recipe import Source, check_graph
from parentage.manifest.steps import Step
from parentage.manifest.wire import DigestSet, Hex, Id, Wire

NAMESPACE: Final = "https://parentage.dev"
LINEAGE: Final = f"{NAMESPACE}/lineage/v0.1"
DRAFT: Final = ".parentage/draft.json"
_TIME: Final = r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$(?!\n)"


class Weights(Wire, frozen=True, kw_only=True):
    """The identity of the released weights.

    Attributes:
        root: weights root by digest profile.
        tensors: how many.
        bytes: of all tensors, as a decimal string (it may pass 2^53).
    """

    root: DigestSet
    tensors: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    bytes: Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,19})$(?!\n)")]


class Parent(Wire, frozen=True, kw_only=True):
    """A parent by the root of its weights; the locator is a hint.

    Attributes:
        id: name inside this recipe.
        weights: weights root by digest profile, observed by whoever signs.
        uri: package URL with a full revision.
        lineage: SHA-256 of the parent's own lineage payload, if it has one.
        license: SPDX expression.
    """

    id: Id
    weights: DigestSet
    uri: str = ""
    lineage: dict[str, Hex] | None = None
    license: str = ""


class LineageRecipe(Wire, frozen=True, kw_only=True):
    """The steps, and the document that they were imported from."""

    steps: tuple[Step, ...]
    source: Source | None = None


class Lineage(Wire, frozen=True, kw_only=True):
    """The predicate. An empty recipe declares weights without a history (an observation)."""

    weights: Weights
    parents: tuple[Parent, ...]
    recipe: LineageRecipe
    created: Annotated[str, msgspec.Meta(pattern=_TIME)]


def to_document(lineage: Lineage) -> dict[str, Any]:
    """Return the JSON object of a predicate."""
    document: dict[str, Any] = msgspec.to_builtins(lineage)
    return document


def parse(document: object, *, where: str) -> Lineage:
    """Turn a parsed JSON object into a checked predicate.

    Raises:
        LineageError: the schema is broken, or roots contradict each other.
        RecipeError: the graph is broken.
    """
    try:
        lineage = msgspec.convert(document, Lineage)
    except msgspec.ValidationError as error:
        raise LineageError(f"not a lineage predicate: {error}", where=where) from error
    check_graph([parent.id for parent in lineage.parents], lineage.recipe.steps, where=where)
    if not lineage.weights.root:
        raise LineageError("lineage without a weights root", where=where)
    if any(not parent.weights for parent in lineage.parents):
        raise LineageError("parent without a weights root", where=where)
    if lineage.recipe.steps:
        final = lineage.recipe.steps[-1].output
        if final is not None and final != lineage.weights.root:
            raise LineageError(
                "the last step's output is not the released weights",
                where=f"{where}: step {lineage.recipe.steps[-1].id}",
                expected=str(lineage.weights.root),
                found=str(final),
            )
    return lineage
