"""Parents' own claims: followed to a depth, by whom the policy lists, and never in a ring."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gates import Gate, codes, write
from worlds import MERGE, World, training

import parentage
from parentage import Demands, KeySigner, Report
from parentage.attest import bundle, oms
from parentage.attest.bundle import CLAIMS
from parentage.attest.policy_file import load
from parentage.manifest import canonical
from parentage.manifest.lineage import Lineage
from parentage.verify import ancestry
from parentage.verify.ancestry import Family, Kin

COPY = {"id": "copy", "op": "copy/v1", "inputs": ["a"]}


@pytest.fixture
def gate(world: World) -> Gate:
    """A merge of a and b; a is signed, too: observed, without a recipe."""
    world.declare("a", [], [])
    return Gate(world)


def verify(
    gate: Gate, *parents: str, level: str = "integrity", above: tuple[str, ...] = ()
) -> Report:
    return parentage.verify_release(
        gate.release,
        trust=load(gate.root / "trust.yaml"),
        parents=[(None, gate.root / name) for name in parents],
        demands=Demands(level=level, device="cpu", ancestors=tuple(gate.root / n for n in above)),  # type: ignore[arg-type]
    )


def found(report: Report, code: str) -> list[Any]:
    return [f for f in report.findings if f.code == code]


def rule(gate: Gate, text: str, rest: str = "") -> None:
    gate.policy(f"parents: {{{text}}}\n{rest}")


def test_parents_claims_are_followed(gate: Gate) -> None:
    report = verify(gate, "a", "b", level="recompute")

    assert report.verified
    (one,) = report.ancestors
    assert (one.id, one.path, one.has_lineage) == ("a", "a <- merged", True)
    assert one.signer is not None
    assert one.signer.key_sha256 == gate.keys["owner"].public.fingerprint
    assert [f.where for f in found(report, "parent-unsigned")] == ["b <- merged"]
    assert any(text.startswith("the history of b:") for text in report.not_checked)


def test_also_where_nothing_is_recomputed(gate: Gate) -> None:
    assert [one.id for one in verify(gate, "a", "b").ancestors] == ["a"]


def test_with_a_key_alone(gate: Gate) -> None:
    report = gate.world.verify("merged", ["a", "b"])

    assert [one.id for one in report.ancestors] == ["a"]
    assert found(report, "parent-unsigned") == []
    assert any(text.startswith("the history of b:") for text in report.not_checked)


@pytest.mark.parametrize(("unsigned", "verdict", "notes"), [("ignore", "verified", 0), ("warn", "verified", 1), ("fail", "denied", 1)])  # fmt: skip
def test_an_unsigned_parent(gate: Gate, unsigned: str, verdict: str, notes: int) -> None:
    rule(gate, f"unsigned: {unsigned}")
    report = verify(gate, "a", "b")

    assert report.verdict.value == verdict
    assert len(found(report, "parent-unsigned")) == notes


def test_parents_that_nobody_gives_are_unsigned(gate: Gate) -> None:
    rule(gate, "unsigned: fail")

    assert len(found(verify(gate), "parent-unsigned")) == 2


def test_a_parent_signed_by_a_stranger_is_unsigned_until_it_is_listed(gate: Gate) -> None:
    nex = gate.keys["stranger"]
    (gate.root / "b" / ".parentage").mkdir()
    gate.world.key, gate.world.trust = nex, parentage.TrustedKeys((nex.public,))
    gate.world.declare("b", [], [])
    rule(gate, "unsigned: fail")
    report = verify(gate, "a", "b")
    assert [f.where for f in found(report, "parent-unsigned")] == ["b <- merged"]
    assert "not trusted" in found(report, "parent-unsigned")[0].found

    rule(gate, "unsigned: fail, any: [{key: stranger.pub}]")
    report = verify(gate, "a", "b")
    assert report.verified
    assert [one.id for one in report.ancestors] == ["a", "b"]


def test_who_signs_parents_signs_no_release(gate: Gate) -> None:
    """Listed for parents is not listed as a publisher."""
    gate.world.key = gate.keys["stranger"]
    gate.world.trust = parentage.TrustedKeys((gate.world.key.public,))
    gate.world.declare("merged", ["a", "b"], [MERGE])
    rule(gate, "any: [{key: stranger.pub}]")

    assert verify(gate, "a", "b").verdict.value == "refuted"


def test_depth(gate: Gate) -> None:
    world = gate.world
    world.declare("base", [], [])
    world.save("mid", world.weights("a"))
    step = {"id": "mid", "op": "weighted_sum/v1", "inputs": ["base", "a"],
            "params": {"weights": ["0.5", "0.5"], "normalize": True}, "arithmetic": {"profile": "parentage-1"}}  # fmt: skip
    world.merge("middle", step)
    top = {**MERGE, "inputs": ["middle", "b"]}
    gate.release = world.merge("child", top)

    def reached(depth: int, *above: str) -> list[str]:
        rule(gate, f"depth: {depth}, unsigned: ignore")
        return [one.path for one in verify(gate, "middle", "b", above=above).ancestors]

    assert reached(0, "base", "a") == []
    assert reached(1, "base", "a") == ["middle <- child"]
    assert reached(2, "base", "a") == [
        "middle <- child",
        "base <- middle <- child",
        "a <- middle <- child",
    ]
    assert reached(2, "base") == ["middle <- child", "base <- middle <- child"]
    rule(gate, "depth: 2, unsigned: fail, any: [{key: owner.pub}]")
    assert len(found(verify(gate, "middle", "b", above=("base",)), "parent-unsigned")) == 2


@pytest.mark.parametrize("level", ["integrity", "recompute"])
def test_children_inherit_a_warning(gate: Gate, level: str) -> None:
    gate.do("withdraw", "{}/a", "--key", "{}/owner.key", "--reason", "license")
    report = verify(gate, "a", "b", level=level)
    assert report.verified
    assert [f.denies for f in found(report, "parent-withdrawn")] == [False]
    assert "license" in found(report, "parent-withdrawn")[0].message

    rule(gate, "onWithdrawn: fail")
    report = verify(gate, "a", "b", level=level)
    assert report.verdict.value == "denied"


def test_a_superseded_parent_is_told_and_denies_nothing(gate: Gate) -> None:
    gate.do("supersede", "{}/a", "--by", gate.release, "--key", "{}/owner.key", "--reason", "other")
    rule(gate, "onWithdrawn: fail")
    report = verify(gate, "a", "b")

    assert report.verified
    assert len(found(report, "parent-superseded")) == 1


def test_a_stranger_withdraws_no_parent(gate: Gate) -> None:
    gate.do(
        "withdraw",
        "{}/a",
        "--key",
        "{}/stranger.key",
        "--publisher",
        "{}/owner.pub",
        "--reason",
        "other",
    )
    rule(gate, "onWithdrawn: fail")

    assert verify(gate, "a", "b").verified


def test_a_grandparents_withdrawal_reaches_the_child(gate: Gate) -> None:
    gate.release = gate.world.merge("child", {**MERGE, "inputs": ["merged", "b"]})
    gate.do("withdraw", "{}/a", "--key", "{}/owner.key", "--reason", "security")
    rule(gate, "depth: 2, onWithdrawn: fail")
    report = verify(gate, "merged", "b", above=("a",))

    assert [f.where for f in found(report, "parent-withdrawn")] == ["a <- merged <- child"]


def test_a_ring_is_refused_by_name(gate: Gate) -> None:
    """a is said to be trained from merged, which is made from a."""
    gate.world.declare("a", ["merged"], [training("merged")])
    rule(gate, "depth: 2")
    report = verify(gate, "a", "b")

    assert report.verdict.value == "refuted"
    (ring,) = found(report, "lineage-ring")
    assert ring.where == "merged -> a -> merged"


def test_a_ring_further_up_is_found_too(gate: Gate) -> None:
    gate.release = gate.world.merge("child", {**MERGE, "inputs": ["merged", "b"]})
    gate.world.declare("a", ["merged"], [training("merged")])
    rule(gate, "depth: 3")

    (ring,) = found(verify(gate, "merged", "b", above=("a",)), "lineage-ring")
    assert ring.where == "merged -> a -> merged"


def test_a_copy_is_no_ring(gate: Gate) -> None:
    gate.world.save("again", gate.world.weights("a"))
    gate.release = gate.world.declare("again", ["a"], [COPY])
    rule(gate, "depth: 3")
    report = verify(gate, "again", "a", level="recompute")

    assert report.verified
    assert [one.path for one in report.ancestors] == ["a <- again"]
    line = (gate.root / "a" / CLAIMS).read_bytes().split(b"\n")[0]
    assert (
        report.ancestors[0].payload == hashlib.sha256(bundle.parse(line, "t").payload).hexdigest()
    )


def test_a_parent_with_another_lineage_than_the_child_names(gate: Gate) -> None:
    statement = json.loads(gate.payloads()[1])
    parent = statement["predicate"]["parents"][0]
    parent["lineage"] = {"sha256": "0" * 64}
    write(gate.release / CLAIMS, [])
    gate.sign(canonical.dumps(statement), "owner")
    assert len(found(verify(gate, "a", "b"), "parent-lineage")) == 1

    line = (gate.root / "a" / CLAIMS).read_bytes().split(b"\n")[0]
    parent["lineage"]["sha256"] = hashlib.sha256(bundle.parse(line, "t").payload).hexdigest()
    write(gate.release / CLAIMS, [])
    gate.sign(canonical.dumps(statement), "owner")
    assert found(verify(gate, "a", "b"), "parent-lineage") == []


def oms_only(gate: Gate, name: str) -> Path:
    """Sign a folder as a model, without a lineage."""
    folder = gate.root / name
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*.safetensors")
    }
    (folder / "model.sig").write_bytes(
        bundle.build(oms.build(name, digests), KeySigner(gate.keys["owner"]))
    )
    return folder


def test_a_parent_signed_as_a_model_alone(gate: Gate) -> None:
    folder = oms_only(gate, "b")
    rule(gate, "unsigned: fail")
    assert verify(gate, "a", "b", level="recompute").verified
    assert "not hashed" in found(verify(gate, "a", "b"), "parent-unsigned")[0].found

    rule(gate, "unsigned: fail, require: [lineage]")
    report = verify(gate, "a", "b", level="recompute")
    assert [f.code for f in report.findings if f.denies] == ["parent-lineage"]

    # A true signature beside other weights is worth nothing.
    rule(gate, "unsigned: fail")
    good = (folder / "model.safetensors").read_bytes()
    signature = (folder / "model.sig").read_bytes()
    (folder / "model.safetensors").write_bytes(
        (gate.root / "base" / "model.safetensors").read_bytes()
    )
    oms_only(gate, "b")
    stolen = (folder / "model.sig").read_bytes()
    (folder / "model.safetensors").write_bytes(good)
    (folder / "model.sig").write_bytes(stolen)
    report = verify(gate, "a", "b", level="recompute")
    assert "not the signed one" in found(report, "parent-unsigned")[0].found
    (folder / "model.sig").write_bytes(signature)
    assert verify(gate, "a", "b", level="recompute").verified


@pytest.mark.parametrize("junk", [b"", b"junk", b"[" * 100_000, b"{}"])
def test_a_parent_with_broken_claims_is_unsigned(gate: Gate, junk: bytes) -> None:
    rule(gate, "unsigned: fail")
    (gate.root / "a" / "model.sig").write_bytes(junk)
    report = verify(gate, "a", "b")

    assert report.verdict.value == "denied"
    assert len(found(report, "parent-unsigned")) == 2


def test_a_web_of_parents_costs_no_more_than_its_threads() -> None:
    """Five layers of eight, each made from all of the layer above: 8^5 ways up, and forty releases."""

    def root(layer: int, place: int) -> dict[str, str]:
        return {"ptd1-b3": f"{layer:02d}{place:02d}".ljust(64, "0")}

    def lineage(layer: int) -> Lineage:
        parents = [{"id": f"n{layer}.{place}", "weights": root(layer, place)} for place in range(8)]
        weights = {"root": {"ptd1-b3": "f" * 64}, "tensors": 1, "bytes": "1"}
        document = {
            "weights": weights,
            "parents": parents,
            "recipe": {"steps": []},
            "created": "2026-01-01T00:00:00Z",
        }
        return msgspec.convert(document, Lineage)

    class Opened(msgspec.Struct):
        payload: bytes
        signer: Any

    from parentage.attest.identity import KeyIdentity
    from parentage.attest.policy import ParentsRule
    from parentage.attest.roles import Believed

    class Deep(Believed, frozen=True):
        @property
        def parents(self) -> ParentsRule:
            return ParentsRule(depth=5, unsigned="ignore")

    kin = [
        Kin(f"{layer}.{place}", weights=root(layer, place), lineage=lineage(layer + 1),  # type: ignore[arg-type]
            opened=Opened(f"{layer} {place}".encode(), KeyIdentity("0" * 64)))  # type: ignore[arg-type]
        for layer in range(6) for place in range(8)
    ]  # fmt: skip
    family = Family()
    start = ancestry._At(("rio",), ({"ptd1-b3": "e" * 64},), ("e" * 64,))
    ancestry._up(family, lineage(0), start, 5, kin, Deep(everyone=None), {})  # type: ignore[arg-type]

    assert len(family.ancestors) == 40


def test_on_the_command_line(gate: Gate) -> None:
    gate.release = gate.world.merge("child", {**MERGE, "inputs": ["merged", "b"]})
    gate.do("withdraw", "{}/a", "--key", "{}/owner.key", "--reason", "security")
    rule(gate, "depth: 2, onWithdrawn: fail")
    report = gate.verify("--parent", "{}/merged", "--parent", "{}/b", "--ancestor", "{}/a", code=5)

    assert codes(report) == ["parent-withdrawn"]
    assert [one["path"] for one in report["ancestors"]] == [
        "merged <- child",
        "a <- merged <- child",
    ]
    nowhere = gate.verify("--ancestor", "{}/nowhere", code=2)
    assert "no such file" in nowhere["error"]["message"]
