"""Statements beyond lineage: read as they are written, and refused where they say too little or too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sayings import ABOUT, NEW, ROOT, SUBJECTS, reached, recomputed

from parentage.attest.statement import Statement, Subject, parse_statement
from parentage.attest.statements import (
    STATEMENTS,
    benchmark,
    dispute,
    endorsement,
    recompute,
    release,
    status,
    summary,
)
from parentage.attest.statements.shared import Digest, Evidence
from parentage.manifest.errors import StatementError

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
NOW = "2026-06-14T09:00:00Z"


def summed(**changes: Any) -> summary.Summary:
    found = summary.Summary(
        verifier=summary.Verifier(id="https://lab.example/", version={"parentage": "0.1.0"}),
        time_verified=NOW,
        resource_uri="pkg:huggingface/acme/rio@1",
        policy=summary.Resource(uri="https://lab.example/policy", digest={"sha256": "3" * 64}),
        verification_result="PASSED",
        verified_levels=("PARENTAGE_IDENTITY",),
    )
    return msgspec.structs.replace(found, **changes)


STEP = {"id": "copy", "op": "copy/v1", "inputs": ["a"]}
COUNTER = msgspec.convert(
    {"parents": [{"id": "a", "weights": ROOT}], "recipe": {"steps": [STEP]}}, dispute.CounterRecipe
)


def current(**changes: Any) -> status.Status:
    found = status.Status(
        state="current", sequence=1, effective_at=NOW, valid_until="2026-07-14T09:00:00Z"
    )
    return msgspec.structs.replace(found, **changes)


def gone(state: str = "withdrawn", **changes: Any) -> status.Status:
    found = status.Status(state=state, sequence=1, effective_at=NOW, reason="security")  # type: ignore[arg-type]
    return msgspec.structs.replace(found, **changes)


def contested(**changes: Any) -> dispute.Dispute:
    found = dispute.Dispute(claim=Digest(sha256="4" * 64), reason="undisclosed-parent", counter=COUNTER,
                            evidence=(Evidence(sha256="5" * 64),))  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def measured(**changes: Any) -> benchmark.Benchmark:
    found = benchmark.Benchmark(
        binding="asserted",
        weights=ROOT,  # type: ignore[arg-type]
        created=NOW,
        harness=benchmark.Harness(name="lm-evaluation-harness", version="0.4.13"),
        tasks=(benchmark.Task(id="arc", dataset="allenai/ai2_arc", samples=16),),
        scores=(benchmark.Score(task="arc", metric="acc", value="0.4375", stderr="0.128"),),
        results=benchmark.Results(media_type="application/json", sha256="5" * 64),
    )
    return msgspec.structs.replace(found, **changes)


REPLAYED = benchmark.Replayed(
    claim=Digest(sha256="4" * 64), nonce="6" * 64, requests=16, of_requests=32, median="0",
    most="0.000001", tolerance="0.0001", median_tolerance="0.0001", agrees=True, device="cpu", dtype="float32",
    same_weights=benchmark.Spread(reruns=3, median="0.000001", most="0.000002"),
)  # fmt: skip

#: Schema, payload, and what parsing it gives.
GOOD: dict[str, tuple[str, bytes, Any]] = {
    "current": ("status-v0.1", status.build(ABOUT, current()), (ABOUT, current())),
    "superseded": ("status-v0.1", status.build(ABOUT, gone("superseded", superseded_by=(NEW,))),
                   (ABOUT, gone("superseded", superseded_by=(NEW,)))),
    "dispute": ("dispute-v0.1", dispute.build(ABOUT, contested()), (ABOUT, contested())),
    "endorsement": ("endorsement-v0.1", endorsement.build("6" * 64, endorsement.Endorsement()),
                    ("6" * 64, endorsement.Endorsement())),
    "recompute": ("recompute-v0.1", recompute.build(Digest(sha256="4" * 64), SUBJECTS, recomputed()),
                  ((Subject("lineage", "4" * 64), *SUBJECTS), recomputed())),
    "benchmark": ("benchmark-v0.1", benchmark.build(Digest(sha256="4" * 64), SUBJECTS, measured()),
                  ((Subject("lineage", "4" * 64), *SUBJECTS), measured())),
    "replayed": ("benchmark-v0.1",
                 benchmark.build(Digest(sha256="4" * 64), SUBJECTS, measured(binding="replayed", replayed=REPLAYED)),
                 ((Subject("lineage", "4" * 64), *SUBJECTS), measured(binding="replayed", replayed=REPLAYED))),
    "summary": ("summary-v1", summary.build(SUBJECTS, summed()), (SUBJECTS, summed())),
    "release": ("release-v0.1",
                release.build({"b": "1" * 64, "a": "2" * 64}, release.Release(purl="pkg:huggingface/acme/rio@1")),
                ({"a": "2" * 64, "b": "1" * 64}, release.Release(purl="pkg:huggingface/acme/rio@1"))),
}  # fmt: skip


def parse(payload: bytes) -> Any:
    found = parse_statement(payload, "t")
    return STATEMENTS[found.predicate_type](found, "t")


@pytest.mark.parametrize("name", GOOD)
def test_written_and_read(name: str) -> None:
    schema, payload, expected = GOOD[name]

    assert parse(payload) == expected
    document = json.loads((SCHEMAS / f"{schema}.json").read_text())
    jsonschema.validate(json.loads(payload)["predicate"], document)


def test_every_kind_is_in_the_table() -> None:
    assert {json.loads(payload)["predicateType"] for _, payload, _ in GOOD.values()} == set(
        STATEMENTS
    )


@pytest.mark.parametrize("name", GOOD)
def test_unknown_fields(name: str) -> None:
    """An error in ours; ignored where the document is SLSA's or in-toto's, as they ask."""
    document = json.loads(GOOD[name][1])
    document["predicate"]["https://example.com/more"] = 1
    payload = json.dumps(document).encode()

    if name in {"summary", "release"}:
        assert parse(payload) == GOOD[name][2]
    else:
        with pytest.raises(StatementError, match="predicate"):
            parse(payload)


@pytest.mark.parametrize("name", GOOD)
def test_other_subjects(name: str) -> None:
    document = json.loads(GOOD[name][1])
    document["subject"][0]["name"] = "else"
    payload = json.dumps(document).encode()

    if name in {"summary", "release"}:  # about whatever they are about: their users compare
        assert parse(payload) != GOOD[name][2]
    else:
        with pytest.raises(StatementError):
            parse(payload)


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_any_predicate_is_read_or_refused_by_name(name: str, data: st.DataObject) -> None:
    document = json.loads(GOOD[name][1])
    key = data.draw(st.sampled_from(sorted(document["predicate"]) or ["statement"]))
    document["predicate"][key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(max_size=3), max_size=3)
        | st.dictionaries(st.text(max_size=3), st.integers(), max_size=3)
    )  # fmt: skip
    found = Statement(b"", tuple(Subject(s["name"], s["digest"]["sha256"]) for s in document["subject"]),
                      document["predicateType"], document["predicate"])  # fmt: skip
    try:
        STATEMENTS[found.predicate_type](found, "t")
    except StatementError as error:
        assert error.code == "statement"  # noqa: PT017  (it may also be read)


ONE = Digest(sha256="8" * 64)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (current(previous=ONE), "previous"),
        (current(sequence=2), "previous"),
        (current(valid_until=None), "validUntil"),
        (current(valid_until=NOW), "validUntil"),
        (current(reason="other"), "reason"),
        (current(superseded_by=(NEW,)), "supersededBy"),
        (gone(valid_until="2027-01-01T00:00:00Z"), "validUntil"),
        (gone(reason=None), "reason"),
        (gone("superseded"), "supersededBy"),
        (gone(superseded_by=(NEW,)), "supersededBy"),
        (gone(reason="wrong-artifact"), "falseClaims"),
        (gone(reason="undisclosed-parent"), "falseClaims"),
        (gone(false_claims=(ONE,)), "falseClaims"),
        (gone(effective_at="2026-02-30T00:00:00Z"), "not a time"),
        (current(valid_until="2026-02-30T00:00:00Z"), "not a time"),
    ],
)
def test_a_status_says_neither_too_little_nor_too_much(found: status.Status, what: str) -> None:
    with pytest.raises(StatementError, match=what):
        status.build(ABOUT, found)


def test_a_status_that_says_which_claim_was_false() -> None:
    payload = status.build(ABOUT, gone(reason="wrong-artifact", false_claims=(ONE,)))
    _, found = status.parse(parse_statement(payload, "t"), "t")
    assert found.false_claims == (ONE,)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (recomputed(rungs=(reached("A", 90), reached("B", 10))), "not all of it"),
        (recomputed(rungs=(reached("A", 90), reached("A", 10))), "stands twice"),
        (recomputed(rungs=()), "not all of it"),
        (recomputed(rungs=(reached("A", 0),)), "not all of it"),
        (recomputed(rungs=(reached("D", 100),), demanded="C"), "not all of it"),
        (recomputed(rungs=(reached("A", 100, root="3"),)), "root is not the release's"),
        (
            recomputed(steps=(recompute.StepDone(id="x", op="opaque/v1", rung="-"),)),
            "not all of it",
        ),
    ],
)
def test_a_recompute_does_not_contradict_itself(found: recompute.Recompute, what: str) -> None:
    with pytest.raises(StatementError, match=what):
        recompute.build(ONE, SUBJECTS, found)


def test_coverage_is_counted_in_elements() -> None:
    found = recomputed(
        verdict="refuted", rungs=(reached("A", 70), reached("B", 20), reached("refuted", 10))
    )

    assert [str(found.coverage(word)) for word in ("exact", "witnessed", "in-cell")] == [
        "7/10",
        "9/10",
        "9/10",
    ]


@pytest.mark.parametrize(
    "found",
    [
        summed(verified_levels=()),
        summed(verified_levels=("FAILED",)),
        summed(verification_result="FAILED"),
        summed(policy=summary.Resource()),
    ],
)
def test_a_summary_does_not_contradict_itself(found: summary.Summary) -> None:
    with pytest.raises(StatementError):
        summary.build(SUBJECTS, found)


def replay(**changes: Any) -> benchmark.Benchmark:
    return measured(binding="replayed", replayed=msgspec.structs.replace(REPLAYED, **changes))


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (measured(binding="replayed"), "binding"),
        (measured(binding="observed"), "binding"),
        (measured(replayed=REPLAYED), "binding"),
        (measured(weights={}), "weights"),
        (measured(tasks=(benchmark.Task(id="other"),)), "scores"),
        (measured(tasks=measured().tasks * 2), "tasks"),
        (measured(scores=measured().scores * 2), "scores"),
        (measured(started=NOW), "times"),
        (measured(started=NOW, finished="2026-06-14T08:00:00Z"), "times"),
        (measured(created="2026-02-30T00:00:00Z"), "not a time"),
        (replay(requests=0), "no samples"),
        (replay(requests=33), "no samples"),
        (replay(most="0.5"), "contradicts"),
        (replay(median="0.5"), "contradicts"),
        (replay(median_tolerance="0.00000001"), "contradicts"),
        (replay(agrees=False), "contradicts"),
        (replay(tolerance="0.0000015"), "contradicts"),
    ],
)
def test_a_benchmark_does_not_contradict_itself(found: benchmark.Benchmark, what: str) -> None:
    with pytest.raises(StatementError, match=what):
        benchmark.build(ONE, SUBJECTS, found)


@pytest.mark.parametrize("value", ["NaN", "1e-3", "Infinity", "", "0x1p-1", "01", "1.", 0.5])
def test_a_score_is_a_decimal_text(value: Any) -> None:
    document = json.loads(GOOD["benchmark"][1])
    document["predicate"]["scores"][0]["value"] = value
    with pytest.raises(StatementError):
        parse(json.dumps(document).encode())


def test_a_dispute_with_a_recipe_that_is_none() -> None:
    broken = msgspec.convert({"parents": [], "recipe": {"steps": [STEP]}}, dispute.CounterRecipe)
    with pytest.raises(StatementError, match="counter-recipe"):
        dispute.build(ABOUT, contested(counter=broken))


@pytest.mark.parametrize("purl", ["", "acme/rio@1", "pkg:huggingface/acme/rio", "pkg:huggingface/acme/rio@", "pkg:x/a b@1"])  # fmt: skip
def test_a_release_without_a_place(purl: str) -> None:
    with pytest.raises(StatementError, match="package URL"):
        release.build({"a": "1" * 64}, release.Release(purl=purl))


def test_a_release_of_nothing() -> None:
    with pytest.raises(StatementError, match="no files"):
        release.build({}, release.Release(purl="pkg:huggingface/acme/rio@1"))
