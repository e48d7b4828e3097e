"""`dispute/v0.1`: somebody disagrees with a claim, and says how it could be otherwise."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from parentage.attest.statement import Statement
from parentage.attest.statements.shared import (
    About,
    Digest,
    Evidence,
    Reason,
    Words,
    read,
    write,
)
from parentage.attest.statements.shared import about as about_of
from parentage.manifest.errors import RecipeError, StatementError
from parentage.manifest.lineage import NAMESPACE, LineageRecipe, Parent
from parentage.manifest.recipe import check_graph
from parentage.manifest.wire import Wire

TYPE: Final = f"{NAMESPACE}/dispute/v0.1"


class CounterRecipe(Wire, frozen=True, kw_only=True):
    """How the weights were made, as whoever disagrees says."""

    parents: Annotated[tuple[Parent, ...], msgspec.Meta(max_length=64)]
    recipe: LineageRecipe


class Dispute(Wire, frozen=True, kw_only=True):
    """The predicate. Subjects: `lineage` and `model`, as of a status.

    Attributes:
        claim: payload of the claim that is disputed: the lineage, or another.
        reason: what is wrong with it.
        statement: for people.
        counter: another recipe.
        evidence: such as a recompute's.
    """

    claim: Digest
    reason: Reason
    statement: Words = ""
    counter: CounterRecipe | None = None
    evidence: Annotated[tuple[Evidence, ...], msgspec.Meta(max_length=64)] = ()


def build(about: About, dispute: Dispute) -> bytes:
    """Return the payload of a dispute.

    Raises:
        StatementError: its recipe can't be one.
    """
    _check(dispute, "dispute")
    return write(about.subjects(), TYPE, dispute)


def parse(statement: Statement, where: str) -> tuple[About, Dispute]:
    """Read a dispute.

    Raises:
        StatementError: other subjects or fields, or its recipe can't be one.
    """
    dispute = read(statement, TYPE, Dispute, where)
    _check(dispute, where)
    return about_of(statement, where), dispute


def _check(dispute: Dispute, where: str) -> None:
    if dispute.counter is None:
        return
    try:
        parents = [parent.id for parent in dispute.counter.parents]
        check_graph(parents, dispute.counter.recipe.steps, where=where)
    except RecipeError as error:
        raise StatementError(
            f"counter-recipe: {error.what}",
            where=error.where,
            expected=error.expected,
            found=error.found,
        ) from error
