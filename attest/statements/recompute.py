"""`recompute/v0.1`: what a verifier recomputed, and the rung that each tensor reached.

It has no time, no version and no name in it: whoever recomputes the same release in the same way gets the
same bytes, so that signatures by several verifiers are over one payload and can be counted. When and by
whom is the summary's business.

Tensors are named by root: for each rung, the weights root over the tensors that reached it. If all
reached one rung, that root is the release's own.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Final, Literal

import msgspec

from parentage.attest.statement import Statement, Subject
from parentage.attest.statements.shared import Count, Digest, Evidence, read, write
from parentage.manifest.errors import StatementError
from parentage.manifest.lineage import NAMESPACE
from parentage.manifest.wire import DigestSet, Id, Wire

TYPE: Final = f"{NAMESPACE}/recompute/v0.1"
EVIDENCE: Final = "application/vnd.parentage.evidence+jsonl"
Grade = Literal["A", "B", "C", "D", "-", "?", "refuted"]
#: What a policy calls the rungs, and which satisfy it.
ENOUGH: Final = {
    "exact": frozenset({"A"}),
    "witnessed": frozenset({"A", "B"}),
    "in-cell": frozenset({"A", "B", "C"}),
}
_Int = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Reached(Wire, frozen=True, kw_only=True):
    """The tensors that reached one rung.

    Attributes:
        rung: the best that holds for each.
        tensors, elements: how many.
        root: weights root over exactly these tensors, by digest profile.
    """

    rung: Grade
    tensors: _Int
    elements: Count
    root: DigestSet


class StepDone(Wire, frozen=True, kw_only=True):
    """A step of the recipe: how far it was established, and under which engine."""

    id: Id
    op: str
    rung: Grade
    engine: str = ""


class Used(Wire, frozen=True, kw_only=True):
    """A parent whose weights were at hand, by root."""

    id: Id
    weights: DigestSet


class Recompute(Wire, frozen=True, kw_only=True):
    """The predicate. Subjects: those of the lineage, and `lineage`, the SHA-256 of its payload.

    Attributes:
        weights: root of the release.
        parents: that were at hand.
        verdict: of the recompute.
        demanded: the weakest rung that counted.
        device: kind of device.
        steps: of the recipe.
        rungs: of the last step's tensors, strongest first.
        evidence: one line a tensor; `parentage attest --evidence` writes it.
    """

    weights: DigestSet
    parents: Annotated[tuple[Used, ...], msgspec.Meta(max_length=64)]
    verdict: Literal["verified", "refuted"]
    demanded: Literal["A", "B", "C"]
    device: str
    steps: Annotated[tuple[StepDone, ...], msgspec.Meta(min_length=1, max_length=256)]
    rungs: Annotated[tuple[Reached, ...], msgspec.Meta(max_length=7)]
    evidence: Evidence

    def coverage(self, enough: str) -> Fraction:
        """Return the share of the elements that reached a rung: a key of `ENOUGH`."""
        total = sum(int(line.elements) for line in self.rungs)
        reached = sum(int(line.elements) for line in self.rungs if line.rung in ENOUGH[enough])
        return Fraction(reached, total) if total else Fraction(0)


def build(lineage: Digest, subjects: tuple[Subject, ...], recompute: Recompute) -> bytes:
    """Return the payload; `subjects` are those of the release's lineage.

    Raises:
        StatementError: it contradicts itself.
    """
    _check(recompute, "recompute")
    return write((Subject("lineage", lineage.sha256), *subjects), TYPE, recompute)


def parse(statement: Statement, where: str) -> tuple[tuple[Subject, ...], Recompute]:
    """Read a recompute statement, and its subjects: `lineage`, then those of the lineage.

    Raises:
        StatementError: other fields, or it contradicts itself.
    """
    recompute = read(statement, TYPE, Recompute, where)
    if statement.subjects[0].name != "lineage":
        raise StatementError("recompute of no lineage", where=where, expected="subject lineage")
    _check(recompute, where)
    return statement.subjects, recompute


def _check(recompute: Recompute, where: str) -> None:
    grades = [line.rung for line in recompute.rungs]
    if len(set(grades)) != len(grades):
        raise StatementError("a rung stands twice", where=where, found=", ".join(grades))
    if recompute.verdict != "verified":
        return
    wanted = {"A": "exact", "B": "witnessed", "C": "in-cell"}[recompute.demanded]
    weak = [step.id for step in recompute.steps if step.rung not in ENOUGH[wanted]]
    if weak or recompute.coverage(wanted) != 1:
        raise StatementError(
            "called verified, and not all of it reached the rung that was demanded",
            where=where,
            expected=f"rung {recompute.demanded}",
            found=", ".join(weak or grades),
        )
    # The whole is one rung: then its root is the release's, and counts can't say otherwise.
    if len(grades) == 1 and dict(recompute.rungs[0].root) != dict(recompute.weights):
        raise StatementError(
            "all tensors reached one rung, and their root is not the release's",
            where=where,
            expected=str(dict(recompute.weights)),
            found=str(dict(recompute.rungs[0].root)),
        )
