"""A verifier's word: made by verifying, the same bytes for whoever finds the same, counted by a policy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gates import Gate, codes, write
from worlds import MERGE, World, training

from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS
from parentage.attest.statement import parse_statement
from parentage.attest.statements import recompute, summary
from parentage.manifest import digest, table

DEMAND = "require: [{recompute: {min: exact, coverage: 1.0, by: verifier}}]\n"


@pytest.fixture
def gate(world: World) -> Gate:
    return Gate(world)


def attest(gate: Gate, name: str, *arguments: object, code: int = 0, parents: str = "ab") -> Any:
    given = [word for parent in parents for word in ("--parent", f"{{}}/{parent}")]
    return gate.do("attest", gate.release, "--policy", "{}/trust.yaml", "--sign-key", f"{{}}/{name}.key",
                   "--device", "cpu", *given, *arguments, code=code)  # fmt: skip


def statements(data: list[bytes]) -> dict[str, Any]:
    found = {}
    for line in data:
        statement = parse_statement(bundle.parse(line, "t").payload, "t")
        found[statement.predicate_type] = statement
    return found


def test_recomputed_and_counted(gate: Gate) -> None:
    """A policy that demands what is being made is asked again with it."""
    gate.policy(DEMAND)
    assert codes(gate.verify(code=5)) == ["requirement-not-met"]
    done = attest(gate, "lab1")
    assert [s["predicateType"] for s in done["statements"]] == [recompute.TYPE, summary.TYPE]
    assert done["report"]["required"][0]["met"]

    report = gate.verify()
    assert report["required"][0]["met"]
    assert report["verdict"] == "verified"


def test_what_it_says(gate: Gate) -> None:
    attest(gate, "lab1", "--evidence", "{}/evidence.jsonl", "--verifier-id", "https://lab.example/1",
           "--resource", "pkg:huggingface/acme/rio@1", "--policy-uri", "https://lab.example/policy")  # fmt: skip
    made = statements(gate.lines()[1:])
    lineage = gate.world.lineage("merged")
    subjects, found = recompute.parse(made[recompute.TYPE], "t")

    assert [s.name for s in subjects] == [
        "lineage",
        "model",
        ".parentage/tensors.jsonl",
        "oms-statement",
    ]
    assert subjects[0].sha256 == hashlib.sha256(gate.payloads()[1]).hexdigest()
    assert (found.verdict, found.demanded, found.device) == ("verified", "A", "cpu")
    assert [(s.id, s.op, s.rung, s.engine) for s in found.steps] == [
        ("merge", "weighted_sum/v1", "A", "parentage-1")
    ]
    assert [p.id for p in found.parents] == ["a", "b"]
    (line,) = found.rungs
    assert (line.rung, line.tensors, int(line.elements)) == ("A", 5, 4 * 96 * 64 + 64)
    assert dict(line.root) == dict(lineage.weights.root) == dict(found.weights)
    data = (gate.root / "evidence.jsonl").read_bytes()
    assert hashlib.sha256(data).hexdigest() == found.evidence.sha256
    tensors = [json.loads(text) for text in data.splitlines()]
    assert [t["name"] for t in tensors] == sorted(t["name"] for t in tensors)
    held = table.parse((gate.release / table.TENSORS).read_bytes())
    again = digest.weights_root("ptd1-b3", [(t["name"], t["identity"]["ptd1-b3"]) for t in tensors])
    assert again == held.roots["ptd1-b3"]

    about, vsa = summary.parse(made[summary.TYPE], "t")
    assert about == subjects[1:]
    assert vsa.verifier.id == "https://lab.example/1"
    assert vsa.resource_uri == "pkg:huggingface/acme/rio@1"
    assert vsa.policy.uri == "https://lab.example/policy"
    assert vsa.policy.digest == {
        "sha256": hashlib.sha256((gate.root / "trust.yaml").read_bytes()).hexdigest()
    }
    assert vsa.verification_result == "PASSED"
    assert list(vsa.verified_levels) == ["PARENTAGE_IDENTITY", "PARENTAGE_INTEGRITY", "PARENTAGE_LINEAGE_DECLARED",
                                         "PARENTAGE_RECIPE_SAMPLED", "PARENTAGE_RECIPE_EXACT"]  # fmt: skip
    used = {
        hashlib.sha256(x).hexdigest()
        for x in [(gate.release / "model.sig").read_bytes(), gate.lines()[0]]
    }
    assert {entry.digest["sha256"] for entry in vsa.input_attestations} == used


def test_two_labs_say_the_same_bytes(gate: Gate) -> None:
    pair = "{key: lab2.pub}], threshold: 2}"
    text = (gate.root / "trust.yaml").read_text().replace("{key: lab2.pub}]}", pair)
    (gate.root / "trust.yaml").write_text(text + DEMAND)
    first = attest(gate, "lab1", code=5)
    assert [s["predicateType"] for s in first["statements"]] == [recompute.TYPE]
    attest(gate, "lab1", code=5)  # the same person again
    second = attest(gate, "lab2")
    assert [s["predicateType"] for s in second["statements"]] == [recompute.TYPE, summary.TYPE]
    payloads = [p for p in gate.payloads() if b"/recompute/" in p]
    assert len(payloads) == 3
    assert len(set(payloads)) == 1

    assert gate.verify()["required"][0]["met"]
    write(gate.release / CLAIMS, gate.lines()[:3])
    assert codes(gate.verify(code=5)) == ["requirement-not-met"]


def test_the_publisher_is_no_verifier(gate: Gate) -> None:
    assert "can't verify its own release" in attest(gate, "owner", code=2)["error"]["message"]
    assert len(gate.lines()) == 1


def test_a_publishers_statement_is_not_counted(gate: Gate) -> None:
    """Whoever signs the release signs a recompute of it, too: it counts for nothing."""
    attest(gate, "lab1")
    payload = next(p for p in gate.payloads() if b"/recompute/" in p)
    (gate.release / CLAIMS).write_bytes(gate.lines()[0] + b"\n")
    gate.sign(payload, "owner")
    gate.sign(payload, "hub")
    text = (gate.root / "trust.yaml").read_text()
    (gate.root / "trust.yaml").write_text(
        text.replace("{key: lab1.pub}", "{key: lab1.pub}, {key: owner.pub}") + DEMAND
    )

    assert codes(gate.verify(code=5)) == ["requirement-not-met"]


def test_refuted_is_said_elsewhere_and_counts_for_nothing(gate: Gate) -> None:
    gate.release = gate.world.merge("forged")
    tensors = gate.world.weights("forged")
    tensors["layers.1.w"].view(torch.int32)[2, 3] += 1
    gate.world.save("forged", tensors)
    gate.world.declare("forged", ["a", "b"], [MERGE])
    before = gate.lines()
    done = attest(gate, "lab1", code=1)
    assert (done["writtenTo"], gate.lines()) == ("", before)

    attest(gate, "lab1", "-o", "{}/said.jsonl", code=1)
    data = (gate.root / "said.jsonl").read_bytes().splitlines()
    made = statements(data)
    _, found = recompute.parse(made[recompute.TYPE], "t")
    assert found.verdict == "refuted"
    assert {line.rung for line in found.rungs} == {"A", "refuted"}
    _, vsa = summary.parse(made[summary.TYPE], "t")
    assert (vsa.verification_result, vsa.verified_levels) == ("FAILED", ("FAILED",))
    gate.policy(DEMAND)
    with (gate.release / CLAIMS).open("ab") as file:
        file.write(data[0] + b"\n")
    report = gate.verify(code=5)
    assert "says refuted" in json.dumps(report["required"])


def test_what_is_undecided_is_not_signed(gate: Gate) -> None:
    done = attest(gate, "lab1", "-o", "{}/said.jsonl", code=4, parents="a")

    assert (done["writtenTo"], done["statements"]) == ("", [])
    assert not (gate.root / "said.jsonl").exists()


def test_digests_alone_and_samples_say_no_more_than_that(gate: Gate) -> None:
    def levels(*arguments: object, code: int = 0) -> list[str]:
        attest(gate, "lab1", "-o", "{}/said.jsonl", *arguments, code=code)
        made = statements((gate.root / "said.jsonl").read_bytes().splitlines())
        assert list(made) == [summary.TYPE]
        return list(summary.parse(made[summary.TYPE], "t")[1].verified_levels)

    assert levels("--level", "integrity")[-1] == "PARENTAGE_LINEAGE_DECLARED"
    assert levels("--sample", "2", code=4)[-1] == "PARENTAGE_RECIPE_SAMPLED"


def test_a_step_that_was_only_declared_is_never_exact(gate: Gate) -> None:
    tensors = {name: tensor + 0.0002 for name, tensor in gate.world.weights("merged").items()}
    gate.world.save("trained", tensors)
    gate.release = gate.world.declare("trained", ["a", "b"], [MERGE, training("merge")])

    assert attest(gate, "lab1", code=4)["statements"] == []


def test_a_statement_of_another_release_meets_nothing(gate: Gate) -> None:
    attest(gate, "lab1")
    theirs = gate.lines()[1:]
    gate.release = gate.world.merge(
        "other", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}}
    )
    with (gate.release / CLAIMS).open("ab") as file:
        file.write(b"\n".join(theirs) + b"\n")
    gate.policy(DEMAND)

    assert "of another release" in json.dumps(gate.verify(code=5)["required"])


def test_mistakes(gate: Gate, tmp_path: Path) -> None:
    assert attest(gate, "lab1", "--verifier-id", "lab", code=2)["error"]["message"] == "not a URI"
    assert "unsigned" in json.dumps(
        gate.do("attest", "{}/a", "--key", "{}/owner.pub", "--sign-key", "{}/lab1.key", code=3)
    )
    assert "Missing option" in json.dumps(
        gate.do("attest", gate.release, "--key", "{}/owner.pub", code=2)
    )
