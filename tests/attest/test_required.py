"""Demands of a policy: what counts, by whom, over the same bytes."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sayings import ABOUT, PEOPLE, ROOT, SUBJECTS, believed, claim, reached, recomputed, who

from parentage.attest.policy import EndorsementRule, RecomputeRule, ReleaseRule, Requirement, Role
from parentage.attest.required import Met, Wanted, required
from parentage.attest.roles import Believed, persons
from parentage.attest.statement import build_statement
from parentage.attest.statements import endorsement, recompute, release
from parentage.attest.statements.shared import Digest

FILES = {"config.json": "1" * 64, "model.safetensors": "2" * 64}
WANTED = Wanted(ABOUT.lineage, SUBJECTS, ROOT, 2, FILES, persons([who("owner")]))  # type: ignore[arg-type]
PURL = "pkg:huggingface/acme/rio@1"


def rules(*demands: Any, thresholds: dict[Role, int] | None = None) -> Believed:
    found = believed(thresholds)
    assert found.policy is not None
    policy = msgspec.structs.replace(found.policy, require=demands)
    return msgspec.structs.replace(found, policy=policy)


def exact(**changes: Any) -> Requirement:
    return Requirement(recompute=RecomputeRule(**changes))


def said(lineage: str = ABOUT.lineage, subjects: Any = SUBJECTS, **changes: Any) -> bytes:
    return recompute.build(Digest(sha256=lineage), subjects, recomputed(**changes))


def met(believe: Believed, *signed: tuple[bytes, str]) -> Met:
    (found,) = required(
        believe, WANTED, [claim(payload, name, believe) for payload, name in signed]
    )
    return found


@pytest.mark.parametrize("name", [*PEOPLE, "stranger"])
def test_who_recomputes_for_a_policy(name: str) -> None:
    assert met(rules(exact()), (said(), name)).met is (PEOPLE.get(name) is Role.VERIFIER)


MORE = {
    "rungs": (reached("A", 90), recompute.Reached(rung="B", tensors=0, elements="10", root=ROOT))
}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (said(lineage="0" * 64), "another release"),
        (said(subjects=(SUBJECTS[0],)), "another release"),
        (said(weights={"ptd1-b3": "8" * 64}, rungs=(reached("A", 1, root="8"),)), "other weights"),
        (said(verdict="refuted", rungs=(reached("refuted", 100),)), "says refuted"),
        (
            said(rungs=(recompute.Reached(rung="A", tensors=1, elements="1", root=ROOT),)),
            "not of every tensor",
        ),  # type: ignore[arg-type]
        (said(demanded="B", **MORE), "90.0000%"),
        (
            said(demanded="B", steps=(recompute.StepDone(id="x", op="slerp/v1", rung="B"),)),
            "step x is not exact",
        ),
        (build_statement(SUBJECTS, recompute.TYPE, {}), "not a recompute"),
    ],
)
def test_what_a_recompute_must_be_to_count(payload: bytes, why: str) -> None:
    found = met(rules(exact()), (payload, "lab1"))

    assert not found.met
    assert why in found.why_not[0]


def test_weaker_rungs_and_shares_where_the_policy_says_so() -> None:
    payload = said(demanded="B", **MORE)

    assert met(rules(exact(min="witnessed")), (payload, "lab1")).met
    assert met(rules(exact(coverage="0.9")), (payload, "lab1")).met
    assert not met(rules(exact(coverage="0.91")), (payload, "lab1")).met


def test_verifiers_are_counted_over_the_same_bytes() -> None:
    two = rules(exact(), thresholds={Role.VERIFIER: 2})
    other = said(device="cuda")

    assert not met(two, (said(), "lab1"), (said(), "lab1")).met
    assert not met(two, (said(), "lab1"), (other, "lab2")).met
    assert met(two, (said(), "lab1"), (other, "lab2"), (said(), "lab2")).met


def test_the_releases_own_signers_are_not_counted_whatever_they_are_listed_as() -> None:
    wanted = msgspec.structs.replace(WANTED, signers=persons([who("lab1")]))
    believe = rules(exact())
    (found,) = required(believe, wanted, [claim(said(), "lab1", believe)])

    assert not found.met
    assert "publisher of the release" in found.why_not[0]


def test_endorsements() -> None:
    by_witness = rules(Requirement(endorsement=EndorsementRule()))
    mine = endorsement.build(ABOUT.lineage, endorsement.Endorsement())
    other = endorsement.build("0" * 64, endorsement.Endorsement())

    assert met(by_witness, (mine, "hub")).met
    assert not met(by_witness, (mine, "lab1")).met
    assert met(by_witness, (other, "hub")).why_not[0].endswith("another claim")
    assert met(rules(Requirement(endorsement=EndorsementRule(by="verifier"))), (mine, "lab1")).met


def test_a_release_statement_binds_the_files_to_a_place() -> None:
    demand = rules(Requirement(release=ReleaseRule(purl="pkg:huggingface/acme/rio@*")))
    here = release.build({**FILES, "README.md": "3" * 64}, release.Release(purl=PURL))
    elsewhere = release.build(FILES, release.Release(purl="pkg:huggingface/evil/rio@1"))
    other = release.build({**FILES, "config.json": "0" * 64}, release.Release(purl=PURL))

    assert met(demand, (here, "owner")).met
    assert not met(demand, (here, "stranger")).met
    assert "evil" in met(demand, (elsewhere, "owner")).why_not[0]
    assert met(demand, (other, "owner")).why_not[0].endswith("other files")
    exactly = rules(Requirement(release=ReleaseRule(purl=PURL.replace("@1", "@2"))))
    assert not met(exactly, (here, "owner")).met


PAYLOADS = [
    said(),
    said(device="cuda"),
    said(lineage="0" * 64),
    endorsement.build(ABOUT.lineage, endorsement.Endorsement()),
]
LINES = st.lists(
    st.tuples(st.sampled_from(PAYLOADS), st.sampled_from([*PEOPLE, "stranger"])), max_size=6
)


@given(LINES, st.integers(1, 2))
def test_leaving_statements_out_meets_no_demand(lines: Any, threshold: int) -> None:
    demands = (exact(), Requirement(endorsement=EndorsementRule()))
    believe = rules(*demands, thresholds={Role.VERIFIER: threshold})

    def held(some: Any) -> list[bool]:
        return [m.met for m in required(believe, WANTED, [claim(p, n, believe) for p, n in some])]

    whole = held(lines)
    for size in range(len(lines)):
        for kept in itertools.combinations(lines, size):
            assert all(full or not part for full, part in zip(whole, held(kept), strict=True))
