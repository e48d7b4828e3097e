"""Rows of leaderboards: what was signed of them, and what stands against them."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from boards import GATE, LM_EVAL, SCHEMAS, Board, replayed
from commandline import ok
from hub_rig import LocalHub
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st

from parentage.attest.statements.shared import Digest
from parentage.manifest.errors import MalformedError
from parentage.verify.benchmarks.leaderboard import same_score
from parentage.verify.benchmarks.rows import read_rows

TASK = "tiny_choice"


def asked(board: Board, rows: object, *more: object, code: int) -> dict[str, Any]:
    """Ask about a board; return its rows' states and the first reasons."""
    path = board.root / "board.json"
    path.write_text(json.dumps(rows))
    return said(board, path, "--release", f"acme/rio={board.release}", *more, code=code)


def said(board: Board, *arguments: object, code: int) -> dict[str, Any]:
    found, out, err = board.run("gate", "leaderboard", *arguments, "--gate", board.root / "gate.yaml", "--json")  # fmt: skip
    report = json.loads(out)
    assert found == code, out + err
    jsonschema.validate(report, json.loads((SCHEMAS / "leaderboard-v0.1.json").read_text()))
    return report


def row(value: float, **more: object) -> dict[str, Any]:
    return {"model": "acme/rio", "value": value, "task": TASK, "metric": "acc", **more}


def states(report: dict[str, Any]) -> list[str]:
    return [one["state"] for one in report["rows"]]


def test_a_proven_row(board: Board) -> None:
    report = asked(board, [row(0.3125)], code=0)
    (found,) = report["rows"]
    assert (found["state"], found["binding"], report["verdict"]) == (
        "proven",
        "asserted",
        "verified",
    )
    assert found["root"] == dict(board.said()[2].weights)
    assert states(asked(board, [row(31.2), row(31.25), row(0.31)], code=0)) == ["proven"] * 3


def test_every_state_at_once(board: Board) -> None:
    report = asked(board, [row(0.3125), row(0.9), row(0.3125, model="acme/other"), row(0.3125, task="mmlu")], code=1)  # fmt: skip
    assert states(report) == ["proven", "contradicted", "none", "none"]
    assert report["counts"] == {"proven": 1, "claimed": 0, "contradicted": 1, "none": 2}
    assert "signed 0.3125" in report["rows"][1]["why"][0]


def test_claimed_where_the_gate_demands_more(board: Board) -> None:
    board.gate(whole=GATE.replace("asserted", "replayed") % "")
    report = asked(board, [row(0.3125)], code=5)
    assert states(report) == ["claimed"]
    assert report["rows"][0]["why"] == ["asserted, and replayed is demanded"]
    board.gate(", tasks: [{id: arc}]")
    assert states(asked(board, [row(0.3125)], code=5)) == ["claimed"]
    board.gate()
    board.without("https://parentage.dev/recompute/v0.1")
    board.without("https://slsa.dev/verification_summary/v1")
    report = asked(board, [row(0.3125)], code=5)
    assert states(report) == ["claimed"]
    assert report["rows"][0]["why"][0].startswith("lineage:")


def test_scores_that_only_a_stranger_signed(board: Board) -> None:
    board.say("owner")
    lab = board.lines("https://parentage.dev/benchmark/v0.1")[0]
    claims = board.release / ".parentage" / "claims.jsonl"
    claims.write_bytes(claims.read_bytes().replace(lab, b""))
    assert states(asked(board, [row(0.3125)], code=5)) == ["claimed"]
    assert states(asked(board, [row(0.9)], code=5)) == ["none"]  # the publisher contradicts nobody


def test_weights_that_are_not_the_signed_ones(board: Board) -> None:
    weights = board.release / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    report = asked(board, [row(0.3125)], code=1)
    assert states(report) == ["contradicted"]
    assert "tensor-digest" in report["rows"][0]["why"][0]


def test_a_replay_that_disagrees(board: Board) -> None:
    """By the publisher it is nothing; by a verifier it contradicts the row."""
    no = replayed(claim=Digest(sha256=board.said()[0]), agrees=False, most="0.5")
    for by, state, code in (("owner", "proven", 0), ("judge", "contradicted", 1)):
        board.say(by, lambda s: msgspec.structs.replace(s, binding="replayed", replayed=no))
        assert states(asked(board, [row(0.3125)], code=code)) == [state]


def test_withdrawn(board: Board) -> None:
    ok(board.run("withdraw", board.release, "--reason", "security", "--key", board.root / "owner.key"))  # fmt: skip
    assert states(asked(board, [row(0.3125)], code=5)) == ["claimed"]


def test_a_board_that_names_no_task(board: Board) -> None:
    plain = {"model": "acme/rio", "score": 0.3125}
    assert states(asked(board, [plain], code=0)) == ["proven"]
    assert states(asked(board, [plain], "--task", "mmlu", code=5)) == ["none"]
    assert states(asked(board, [{**plain, "score": 0.5}], code=5)) == ["none"]
    assert states(asked(board, [{**plain, "score": 0.5}], "--task", TASK, code=1)) == ["contradicted"]  # fmt: skip


def test_a_table_with_a_column_a_task(board: Board, tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text(f"Model,{TASK},mmlu,License\nacme/rio,31.25,64.1,mit\nacme/new,1,2,mit\n")
    report = said(board, path, "--release", f"acme/rio={board.release}", code=5)
    assert [(one["model"], one["task"], one["state"]) for one in report["rows"]] == [
        ("acme/rio", TASK, "proven"),
        ("acme/rio", "mmlu", "none"),
        ("acme/new", TASK, "none"),
        ("acme/new", "mmlu", "none"),
    ]


def test_no_cell_of_a_table_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "board.csv"
    path.write_text(
        'model,value,note\na,1,mit\u2028b,2,x\nc,3,"two\nlines"\n'.replace(",2,", " 2 ")
    )
    assert [(row.model, row.value) for row in read_rows(path)] == [("a", "1"), ("c", "3")]


def test_a_leaderboard_of_the_hub(
    board: Board, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The board of a data set, models with a declared base among them; weights are not downloaded."""
    edited = json.loads(LM_EVAL.read_text())
    edited["configs"][TASK]["dataset_path"] = "acme/bench"
    board.results.write_text(json.dumps(edited))
    ok(board.run("bench", "attach", board.release, board.results, "--key", board.root / "lab.key",
                 "--publisher", board.root / "owner.pub"))  # fmt: skip
    hub.put_folder("acme/rio", board.release)
    hub.put("acme/bare", {"config.json": b"{}"})
    author = {"type": "org", "name": "acme"}
    names = ("acme/rio", "acme/bare", "acme/gone", "../evil")
    hub.hub.leaderboards["acme/bench"] = [
        {"rank": at, "modelId": name, "value": 31.25, "filename": "x.yaml", "verified": False, "author": author}
        for at, name in enumerate(names, 1)
    ]  # fmt: skip
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)

    report = said(board, "--dataset", "acme/bench", code=5)
    assert states(report) == ["proven", "none", "none", "none"]
    assert report["rows"][0]["place"].startswith("hf://acme/rio")
    assert "unsigned" in report["rows"][1]["why"][0]
    assert any("not downloaded" in text for text in report["notChecked"])
    HfApi(endpoint=hub.url).get_dataset_leaderboard("acme/bench", base_model_only=False)
    ours, theirs = [one.path for one in hub.log.of("leaderboard")]
    assert ours == theirs
    assert hub.log.sent() < board.release.joinpath("model.safetensors").stat().st_size


def test_names_that_drive_a_terminal(board: Board) -> None:
    path = board.root / "board.json"
    evil = "\x1b[31mevil\u202e"
    path.write_text(json.dumps([{"model": evil, "value": 1, "task": evil, "metric": evil}]))
    for name in ("human", "markdown", "github", "junit"):
        code, out, err = board.run("gate", "leaderboard", path, "--gate", board.root / "gate.yaml", "--hub", "--format", name)  # fmt: skip
        assert code == 5
        assert not {"\x1b", "\u202e"} & set(out + err)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "without a row"),
        ("[]", "without a row"),
        ('{"rows": 1}', "not a list"),
        ("[1]", "not an object"),
        ('[{"model": ["a"], "value": 1}]', "without a model"),
        ('[{"model": null, "value": 1}]', "without a model"),
        ('[{"value": 1}]', "no column names the model"),
        ('[{"model": "a", "value": NaN}]', "exact value"),
        ('[{"model": "a", "value": "NaN"}]', "decimal text"),
        ('[{"model": "a", "value": true}]', "not a number"),
        ("model,value\na\n", "another length"),
        ("model,value,value\na,1,2\n", "twice"),
        ("model,value,Model\na,1,b\n", "twice"),
        ('[{"model": "a", "MODEL": "b", "value": 1}]', "twice"),
        ("model,value\n" + "a,1\n" * 10_001, "too many rows"),
    ],
)
def test_boards_that_are_none(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "board"
    path.write_text(text)
    with pytest.raises(MalformedError, match=what):
        read_rows(path)


@given(st.decimals(0, 1, places=9), st.integers(0, 8), st.booleans())
def test_what_is_rounded_is_the_same_score(exact: Decimal, digits: int, percent: bool) -> None:
    shown = (100 * exact if percent else exact).quantize(
        Decimal(1).scaleb(-digits if percent else -digits - 2), ROUND_HALF_EVEN
    )
    assert same_score(format(shown, "f"), format(exact, "f"))
    assert not same_score(format(shown + 3, "f"), "0.5")


@pytest.mark.parametrize(("shown", "signed"), [("31.3", "0.3125"), ("0.32", "0.3125"), ("31.25", "0.3126"), ("0.313", "0.3114")])  # fmt: skip
def test_what_is_rounded_up_is_not(shown: str, signed: str) -> None:
    assert same_score(shown, signed) == (shown == "31.3")
