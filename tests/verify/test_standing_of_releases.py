"""Over a real file of claims: every subset, many orders, and what each comes to at a gate."""

from __future__ import annotations

import itertools
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gates import Gate, write
from worlds import World

import parentage
from parentage import Demands, Report
from parentage.attest import clock
from parentage.attest.bundle import CLAIMS
from parentage.attest.policy_file import load
from parentage.attest.statements import dispute, endorsement, status
from parentage.attest.statements.dispute import Dispute
from parentage.attest.statements.shared import About, Digest, sha256
from parentage.attest.statements.status import Status
from parentage.manifest import canonical

START = datetime(2026, 6, 1, tzinfo=UTC)
#: From worst to best.
ORDER = [3, 1, 5, 4, 0]


def at(day: int) -> str:
    return clock.to_text(START + timedelta(days=day))


class Said(Gate):
    """A gate whose clock stands where the test puts it."""

    def about(self) -> About:
        oms, lineage = self.payloads()[:2]
        return About(sha256(lineage), json.loads(oms)["subject"][0]["digest"]["sha256"])

    def state(self, state: str, sequence: int, name: str, on: int = 0, **fields: Any) -> None:
        if state == "current":
            fields["valid_until"] = at(fields.pop("until", 30))
        else:
            fields.setdefault("reason", "license")
        if sequence > 1:
            fields.setdefault("previous", Digest(sha256="0" * 64))
        found = Status(state=state, sequence=sequence, effective_at=at(on), **fields)  # type: ignore[arg-type]
        self.sign(status.build(self.about(), found), name)

    def judged(self, day: int = 5) -> Report:
        return parentage.verify_release(
            self.release,
            trust=load(self.root / "trust.yaml"),
            demands=Demands(level="integrity", now=START + timedelta(days=day)),
        )


@pytest.fixture
def gate(world: World) -> Said:
    return Said(world)


def test_leaving_lines_out_raises_nothing(gate: Said) -> None:
    """128 subsets of one file.

    Its one line that can lower a verdict is the publisher's withdrawal. Where that stays, nothing passes;
    where it is left out, what passes has a `current` in it, and none of it passes when that has ended.
    """
    gate.policy("require: [{endorsement: {}}]\nstatus: {onMissing: fail, onDispute: warn}")
    gate.state("current", 1, "owner")
    gate.state("withdrawn", 2, "owner", on=2)
    gate.sign(endorsement.build(gate.about().lineage, endorsement.Endorsement()), "hub")
    gate.sign(
        dispute.build(gate.about(), Dispute(claim=Digest(sha256="0" * 64), reason="other")),
        "stranger",
    )
    gate.state("withdrawn", 9, "safe1", on=1)
    lines = [*gate.lines(), b"junk"]
    lineage, current, withdrawn, endorsed = range(4)
    passed = 0
    for size in range(len(lines) + 1):
        for kept in itertools.combinations(range(len(lines)), size):
            write(gate.release / CLAIMS, [lines[i] for i in kept])
            found = gate.judged()
            if withdrawn in kept:
                assert ORDER.index(found.exit_code) <= ORDER.index(5)
            if found.exit_code == 0:
                passed += 1
                assert {lineage, current, endorsed} <= set(kept)
                assert gate.judged(31).exit_code == 5
    assert passed == 8


def test_order_means_nothing(gate: Said) -> None:
    gate.policy("status: {onMissing: fail}")
    gate.state("current", 1, "owner")
    gate.state("current", 2, "owner", on=1)
    gate.state("withdrawn", 3, "safe1", on=1)
    gate.state("withdrawn", 3, "safe2", on=1)
    gate.sign(endorsement.build(gate.about().lineage, endorsement.Endorsement()), "hub")
    lines = [*gate.lines(), b"junk", b"[" * 5000]
    expected = gate.judged()
    assert (expected.exit_code, expected.standing and expected.standing.by) == (5, "recovery")
    for seed in range(30):
        random.Random(seed).shuffle(lines)
        write(gate.release / CLAIMS, lines)
        found = gate.judged()
        assert (found.exit_code, found.standing) == (5, expected.standing)


def test_lines_moved_from_another_release_say_nothing_here(gate: Said) -> None:
    gate.policy("status: {onMissing: fail}")
    gate.state("current", 1, "owner")
    theirs = gate.lines()
    other = gate.world.merge("other", {"id": "m", "op": "weighted_sum/v1", "inputs": ["a", "b"],
                                       "params": {"weights": ["0.5", "0.5"], "normalize": True},
                                       "arithmetic": {"profile": "parentage-1"}})  # fmt: skip
    gate.release = other
    write(other / CLAIMS, [*gate.lines(), *theirs])

    assert gate.judged().exit_code == 5


def test_the_clock_is_an_argument(gate: Said) -> None:
    gate.policy("status: {onMissing: fail, maxAge: 10d}")
    gate.state("current", 1, "owner", on=0, until=30)

    assert [gate.judged(day).exit_code for day in (-1, 0, 10, 11, 31)] == [5, 0, 0, 5, 5]


def test_what_strangers_say_is_bounded(gate: Said) -> None:
    """A payload that nobody trusted signed is read only where it is small, and only so many of them."""

    def said(words: str) -> bytes:
        return dispute.build(
            gate.about(), Dispute(claim=Digest(sha256="0" * 64), reason="other", statement=words)
        )

    for number in range(100):
        gate.sign(said(f"no {number}"), "stranger")
    report = gate.judged()
    assert report.standing is not None
    assert len(report.standing.disputes) == 64
    assert any("36 lines" in text for text in report.not_checked)

    large = json.loads(said(""))
    large["predicate"]["evidence"] = [{"sha256": "0" * 64, "uri": "x" * 100_000}]
    write(gate.release / CLAIMS, gate.lines()[:1])
    gate.sign(canonical.dumps(large), "stranger")
    report = gate.judged()
    assert report.standing is not None
    assert report.standing.disputes == ()
