"""What a policy demands beside signature and lineage, counted over byte-identical statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from parentage.attest import globs
from parentage.attest.claims import Claim
from parentage.attest.policy import EndorsementRule, RecomputeRule, ReleaseRule, Role
from parentage.attest.roles import Believed, persons
from parentage.attest.statement import Subject
from parentage.attest.statements import endorsement, recompute, release
from parentage.attest.statements.shared import sha256
from parentage.manifest.errors import StatementError
from parentage.manifest.wire import DigestSet, ratio

Demand = RecomputeRule | EndorsementRule | ReleaseRule
_D = TypeVar("_D")


class Wanted(msgspec.Struct, frozen=True):
    """The release that a statement must be about.

    Attributes:
        lineage: SHA-256 of its lineage's payload.
        subjects: of that lineage.
        weights: root of its weights.
        tensors: how many it has.
        files: SHA-256 of every signed file, by name.
        signers: persons who signed it: they are counted for nothing else.
    """

    lineage: str
    subjects: tuple[Subject, ...]
    weights: DigestSet
    tensors: int
    files: Mapping[str, str]
    signers: frozenset[str]


class Met(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far one demand is met.

    Attributes:
        demand: in words.
        met: whether it is.
        by: the persons who said so, over one payload.
        needed: how many must.
        payload: SHA-256 of that payload; empty where nobody said so.
        why_not: what other statements lack.
    """

    demand: str
    met: bool
    by: list[str] = []
    needed: int = 1
    payload: str = ""
    why_not: list[str] = []


def required(believed: Believed, wanted: Wanted, claims: Sequence[Claim]) -> list[Met]:
    """Return how far each demand of the policy is met."""
    return [met(demand, believed, wanted, claims) for demand in believed.demands]


def met(demand: Demand, believed: Believed, wanted: Wanted, claims: Iterable[Claim]) -> Met:
    """Return how far one demand is met."""
    kind, words, why_not = _KINDS[type(demand)]
    role = Role(demand.by)
    needed = believed.threshold(role)
    signed: dict[str, list[Claim]] = {}
    for claim in claims:
        if claim.opened.statement.predicate_type == kind and role in claim.roles:
            signed.setdefault(sha256(claim.opened.payload), []).append(claim)
    best: tuple[frozenset[str], str] = frozenset(), ""
    lacks: list[str] = []
    for payload, some in sorted(signed.items()):
        try:
            lack = why_not(demand, wanted, some[0])
        except StatementError as error:
            lack = f"{error.what}: {error.found}"
        # Of its own release a publisher is no verifier and no witness, in whatever role it is listed.
        own = frozenset() if role is Role.PUBLISHER else wanted.signers
        who = persons(claim.opened.signer for claim in some) - own
        if not lack and not who:
            lack = "signed by the publisher of the release"
        if lack:
            lacks.append(f"{payload}: {lack}")
        elif len(who) > len(best[0]):
            best = who, payload
    who, payload = best
    return Met(
        demand=words(demand),
        met=len(who) >= needed,
        by=sorted(who),
        needed=needed,
        payload=payload,
        why_not=lacks,
    )


def _recomputed(demand: RecomputeRule, wanted: Wanted, claim: Claim) -> str:
    subjects, found = recompute.parse(claim.opened.statement, claim.where)
    if subjects != (Subject("lineage", wanted.lineage), *wanted.subjects):
        return "of another release"
    if dict(found.weights) != dict(wanted.weights):
        return "of other weights"
    if found.verdict != "verified":
        return f"says {found.verdict}"
    if sum(line.tensors for line in found.rungs) != wanted.tensors:
        return "not of every tensor"
    reached = found.coverage(demand.min)
    if reached < ratio(demand.coverage):
        return f"only {float(reached):.4%} of the elements are {demand.min}"
    weak = [step.id for step in found.steps if step.rung not in recompute.ENOUGH[demand.min]]
    return f"step {weak[0]} is not {demand.min}" if weak and ratio(demand.coverage) == 1 else ""


def _endorsed(_: EndorsementRule, wanted: Wanted, claim: Claim) -> str:
    subject, _found = endorsement.parse(claim.opened.statement, claim.where)
    return "" if subject == wanted.lineage else "of another claim"


def _released(demand: ReleaseRule, wanted: Wanted, claim: Claim) -> str:
    files, found = release.parse(claim.opened.statement, claim.where)
    if any(files.get(name) != digest for name, digest in wanted.files.items()):
        return "of other files"
    return "" if globs.matches(demand.purl, found.purl) else f"at {found.purl}"


_Entry = tuple[str, Callable[[_D], str], Callable[[_D, Wanted, Claim], str]]
_KINDS: Final[Mapping[type[Demand], _Entry]] = {  # type: ignore[type-arg]  # each row fits its own type
    RecomputeRule: (
        recompute.TYPE,
        lambda rule: f"recompute: {rule.min}, {rule.coverage} of the elements, by {rule.by}s",
        _recomputed,
    ),
    EndorsementRule: (endorsement.TYPE, lambda rule: f"endorsement by {rule.by}s", _endorsed),
    ReleaseRule: (release.TYPE, lambda rule: f"release at {rule.purl} by {rule.by}s", _released),
}
