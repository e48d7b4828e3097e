"""The golden cases: whatever is changed, these bytes keep these verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from worlds import command

import parentage
from parentage import Demands, PublicKey, TrustedKeys
from parentage.attest.clock import parse_time
from parentage.attest.policy_file import load

CASES = sorted(path.parent for path in (Path(__file__).parent / "vectors").glob("*/case.json"))


def test_there_are_cases() -> None:
    assert len(CASES) >= 17


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
