"""The golden cases: whatever is changed, these bytes keep these verdicts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from worlds import command

import parentage
from parentage import Demands, PublicKey, TrustedKeys
from parentage.attest.clock import parse_time
from parentage.attest.policy_file import load
from parentage.manifest.table import Table, TensorLine
from parentage.verify.benchmarks import gate as benchmarks
from parentage.verify.benchmarks.replaying import positions
from parentage.verify.cards.check import check
from parentage.verify.gates import policy as gates
from parentage.verify.slices import Slice, draw

CASES = sorted(path.parent for path in (Path(__file__).parent / "vectors").glob("*/case.json"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 35


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_verdict(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    key = TrustedKeys((PublicKey.load(folder / "release.pub"),))
    report = parentage.verify_release(
        folder / "release",
        trust=load(folder / case["policy"]) if "policy" in case else key,
        parents=[
            (None, folder / "parents" / name)
            for name in case["parents"]
            if (folder / "parents").exists()
        ],
        against=[folder / "against" / name for name in case.get("against", [])],
        demands=Demands(
            device="cpu",
            level=case.get("level", "recompute"),
            now=parse_time(case["now"], "now") if "now" in case else None,
        ),
    )

    assert report.verdict.value == case["verdict"], report.findings
    assert sorted({found.code for found in report.findings if found.refutes}) == case["codes"]
    assert sorted({f.code for f in report.findings if f.denies}) == case.get("denials", [])
    if "state" in case:
        assert report.standing is not None
        assert report.standing.state == case["state"]
    if "rungs" in case:
        assert {step.id: step.rung.value for step in report.steps} == case["rungs"]
    if "where" in case:
        assert case["where"] in {found.where for found in report.findings}


@pytest.mark.parametrize("name", ["honest-linear", "merge-called-training", "unsigned"])
def test_the_same_on_the_command_line(name: str) -> None:
    folder = Path(__file__).parent / "vectors" / name
    case = json.loads((folder / "case.json").read_text())
    arguments: list[object] = [
        "verify",
        folder / "release",
        "--key",
        folder / "release.pub",
        "--json",
    ]
    for kind, option in (("parents", "--parent"), ("against", "--against")):
        for parent in case.get(kind, []):
            if (folder / kind).exists():
                arguments += [option, folder / kind / parent]
    done = command(*arguments, "--device", "cpu")

    assert json.loads(done.stdout)["verdict"] == case["verdict"]
    assert done.returncode == {"verified": 0, "refuted": 1, "unsigned": 3}[case["verdict"]]


@pytest.mark.parametrize("name", [c.name for c in CASES if c.name.startswith("scores-")])
def test_scores_at_a_gate(name: str) -> None:
    folder = Path(__file__).parent / "vectors" / name
    case = json.loads((folder / "case.json").read_text())
    expected = case["benchmark"]
    gate = gates.load(folder / expected["gate"])
    report = benchmarks.ask(
        benchmarks.Asked(results=folder / expected["results"], release=folder / "release"),
        gate.believed,
        gate.board(),
        demands=Demands(device="cpu", now=parse_time(case["now"], "now")),
    )

    assert report.verdict.value == expected["verdict"], report.findings
    decided = {found.code for found in report.findings if found.refutes or found.denies}
    assert sorted(decided) == expected["codes"]
    if "statement" in expected:
        assert (report.binding, expected["statement"]) == (
            expected["binding"],
            report.statements[0].payload,
        )


@pytest.mark.parametrize("name", [c.name for c in CASES if c.name.startswith("card-")])
def test_cards_of_signed_releases(name: str) -> None:
    folder = Path(__file__).parent / "vectors" / name
    expected = json.loads((folder / "case.json").read_text())["card"]
    report = check(folder / "release", trust=TrustedKeys((PublicKey.load(folder / "release.pub"),)))

    assert report.verdict.value == expected["verdict"], report.problems
    assert [[one.code, one.where] for one in report.problems] == expected["problems"]


def test_digests_of_a_card_by_hand() -> None:
    """Every number is its text, and so are days and `no`: what format.md asks of other implementations."""
    folder = Path(__file__).parent / "vectors" / "card-signed" / "release"
    card = (folder / "README.md").read_bytes()
    says = {
        "license": '"apache-2.0"',
        "base_model": '["acme/Nex","acme/qwen"]',
        "base_model_relation": '"merge"',
        "tags": '["merge","parentage"]',
        "threshold": '"0.50"',
        "released": '"2026-06-14"',
        "gated": '"no"',
        "draft": "false",
        "note": "null",
    }
    body = card.split(b"\n---\n", 1)[1]

    assert json.loads((folder / ".parentage" / "card.json").read_bytes()) == {
        "schema": "https://parentage.dev/card-digests/v0.1",
        "file": hashlib.sha256(card).hexdigest(),
        "body": hashlib.sha256(body).hexdigest(),
        "matter": {k: hashlib.sha256(v.encode()).hexdigest() for k, v in says.items()},
    }


def test_draws_are_those_of_the_format() -> None:
    """The numbers stand in format.md; they were drawn by its formulas, not by this code."""
    text = (Path(__file__).parent.parent / "docs" / "format.md").read_text()
    replayed = positions("11" * 32, "22" * 32, 1000, 5)
    tensors = {
        name: TensorLine(file="m", name=name, dtype="U8", shape=(size,), offsets=(0, size), identity={})
        for name, size in (("a", 5 << 20), ("b", (2 << 20) + 1))
    }  # fmt: skip
    table = Table(tensors=tensors, files={}, roots={})
    sliced = draw(table, 3, bytes.fromhex("55" * 16))

    assert replayed == REPLAYED
    assert sliced == [Slice(name, number) for name, number in SLICED]
    assert f"requests {', '.join(map(str, REPLAYED))}" in text
    assert f"chunks {', '.join(f'{n} {i}' for n, i in SLICED)}" in text


REPLAYED = [80, 362, 380, 642, 929]
SLICED = [("a", 4), ("b", 0), ("b", 2)]
