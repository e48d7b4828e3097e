"""A gate asked about scores: one release, one results file, and everything that can be wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from boards import GATE, LM_EVAL, RESULTS, SCHEMAS, TRUST, Board, replayed
from commandline import ok
from worlds import MERGE, World

from parentage.attest.bundle import CLAIMS
from parentage.attest.statements import benchmark
from parentage.attest.statements.shared import Digest
from parentage.attest.trust import TrustedKeys


def test_scores_that_hold_are_let_through(board: Board) -> None:
    code, report = board.ask()
    assert (code, report["verdict"], report["binding"]) == (0, "verified", "asserted"), report
    assert "exact, by key" in report["lineage"]
    assert report["scores"][0]["value"] == "0.3125"
    jsonschema.validate(report, json.loads((SCHEMAS / "bench-v0.1.json").read_text()))


def test_a_lineage_nobody_vouches_for(board: Board) -> None:
    board.without("https://parentage.dev/recompute/v0.1")
    assert board.ask()[0] == 0  # the summary says it, too
    board.without("https://slsa.dev/verification_summary/v1")
    assert board.codes(code=5) == {"lineage-not-known"}
    code, report = board.ask("--parent", board.root / "a", "--parent", board.root / "b")
    assert (code, report["lineage"][:15]) == (0, "recomputed here")


@pytest.mark.parametrize(("word", "code"), [("declared", 0), ("signed", 0), ("exact", 5)])
def test_how_strong_a_lineage_must_be(board: Board, word: str, code: int) -> None:
    board.without("https://parentage.dev/recompute/v0.1")
    board.without("https://slsa.dev/verification_summary/v1")
    board.gate(whole=GATE.replace("exact", word) % "")
    assert board.ask()[0] == code


def test_a_recompute_by_nobody_of_the_policy_is_no_lineage(board: Board) -> None:
    board.gate(trust=TRUST.replace("judge.pub", "stranger.pub"))
    assert board.codes(code=5) == {"lineage-not-known"}


def test_a_results_file_that_was_edited(board: Board) -> None:
    board.results.write_text(LM_EVAL.read_text().replace("0.3125", "0.9125"))
    assert board.codes(code=1) == {"score-differs", "benchmark-unsigned"}


def test_a_results_file_that_nobody_signed(board: Board) -> None:
    other = RESULTS / "inspect_ai-0.3.285.json"
    assert board.codes(code=3, results=other) == {"benchmark-unsigned", "dataset-not-pinned"}


@pytest.mark.parametrize(("by", "code", "reason"), [
    ("stranger", 3, "benchmark-unsigned"), ("owner", 5, "statement-not-counted"),
    ("judge", 5, "statement-not-counted")])  # fmt: skip
def test_who_may_say_it(board: Board, by: str, code: int, reason: str) -> None:
    board.say(by)
    lines = (board.release / CLAIMS).read_bytes().splitlines(keepends=True)
    lab = board.lines(benchmark.TYPE)[0]
    (board.release / CLAIMS).write_bytes(b"".join(x for x in lines if x != lab))
    assert board.codes(code=code) == {reason}


def test_several_evaluators_can_be_demanded(board: Board) -> None:
    board.gate(trust=TRUST.replace("{key: other.pub}]}", "{key: other.pub}], threshold: 2}"))
    assert board.codes(code=5) == {"statement-not-counted"}
    board.say("lab", lambda s: msgspec.structs.replace(s, statement="again"))
    assert board.codes(code=5) == {"statement-not-counted"}
    board.say("other", lambda s: msgspec.structs.replace(s, statement="me, too"))
    assert board.ask()[0] == 0


def test_a_binding_too_weak(board: Board) -> None:
    board.gate(whole=GATE.replace("asserted", "observed") % "")
    assert board.codes(code=5) == {"binding-too-weak"}


@pytest.mark.parametrize(("rest", "reasons"), [
    (", tasks: [{id: arc_easy}]", {"task-not-listed"}),
    (", tasks: [{id: 'tiny_*', dataset: cais/mmlu}]", {"task-differs"}),
    (", tasks: [{id: 'tiny_*', dataset: json, version: '1.0', metrics: [acc]}]", set()),
    (", tasks: [{id: 'tiny_*', taskHash: 'abc'}]", {"task-differs"}),
    (", maxAge: 1h", set()),
])  # fmt: skip
def test_the_board_lists_tasks(board: Board, rest: str, reasons: set[str]) -> None:
    board.gate(rest)
    assert board.codes(code=5 if reasons else 0) == reasons


def test_data_that_is_not_pinned(board: Board) -> None:
    said = json.loads(LM_EVAL.read_text())
    said["task_hashes"] = {}
    board.results.write_text(json.dumps(said))
    ok(board.run("bench", "attach", board.release, board.results, "--key", board.root / "lab.key",
                 "--publisher", board.root / "owner.pub"))  # fmt: skip
    assert board.codes(code=5) == {"dataset-not-pinned"}
    board.gate(", pinned: false")
    assert board.ask()[0] == 0


@pytest.mark.parametrize("change", [
    lambda s: msgspec.structs.replace(s, created="2020-01-01T00:00:00Z"),
    lambda s: msgspec.structs.replace(s, created="2999-01-01T00:00:00Z"),
    lambda s: msgspec.structs.replace(s, scores=(msgspec.structs.replace(s.scores[0], value="0.99"),)),
    lambda s: msgspec.structs.replace(s, harness=benchmark.Harness(name="mine")),
])  # fmt: skip
def test_a_statement_that_does_not_hold(board: Board, change: Any) -> None:
    """Old, of the future, or of other scores than the file that it names."""
    board.gate(", maxAge: 30d")
    board.say("other", change)
    lines = (board.release / CLAIMS).read_bytes().splitlines(keepends=True)
    lab = board.lines(benchmark.TYPE)[0]
    (board.release / CLAIMS).write_bytes(b"".join(x for x in lines if x != lab))
    assert board.codes(code=5) == {"statement-not-counted"}


def test_a_statement_may_know_less_than_this_reader(board: Board) -> None:
    def less(s: benchmark.Benchmark) -> benchmark.Benchmark:
        harness = msgspec.structs.replace(s.harness, dtype="", backend="")
        return msgspec.structs.replace(s, harness=harness)

    board.say("other", less)
    lines = (board.release / CLAIMS).read_bytes().splitlines(keepends=True)
    lab = board.lines(benchmark.TYPE)[0]
    (board.release / CLAIMS).write_bytes(b"".join(x for x in lines if x != lab))
    assert board.ask()[0] == 0


def test_a_release_that_is_not_the_remembered_one(board: Board) -> None:
    board.gate(whole="lock: parentage.lock\n" + GATE % "")
    assert board.ask()[0] == 0
    assert not (board.root / "parentage.lock").exists()
    ok(board.run("verify", board.release, "--key", board.root / "owner.pub", "--level", "integrity",
                 "--lock", board.root / "parentage.lock"))  # fmt: skip
    assert board.ask()[0] == 0
    world = World.__new__(World)
    world.root, world.key = board.root, board.key("owner")
    world.trust = TrustedKeys((world.key.public,))
    shutil.rmtree(board.release)
    world.merge("merged", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}})
    assert "unannounced-replacement" in board.codes(code=3)


@pytest.mark.parametrize(("isolation", "code"), [("environment", 5), ("unshare", 0)])
def test_a_run_with_a_network(board: Board, isolation: str, code: int) -> None:
    board.gate(whole=GATE.replace("asserted", "observed") % ", isolated: true")
    seen = benchmark.Observed(
        argv=("lm_eval",), isolation=isolation,  # type: ignore[arg-type]
        environment=benchmark.Environment(platform="Linux", executable="1" * 64),
    )  # fmt: skip
    board.say("lab", lambda s: msgspec.structs.replace(s, binding="observed", observed=seen))
    assert board.codes(code=code) == ({"binding-too-weak"} if code else set())


def test_a_withdrawn_release(board: Board) -> None:
    ok(board.run("withdraw", board.release, "--reason", "security", "--key", board.root / "owner.key"))  # fmt: skip
    assert board.codes(code=5) == {"release-withdrawn"}


def test_all_reasons_at_once(board: Board) -> None:
    weights = board.release / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    board.without("https://parentage.dev/recompute/v0.1")
    board.without("https://slsa.dev/verification_summary/v1")
    board.gate(whole=GATE.replace("asserted", "replayed") % ", tasks: [{id: arc}]")
    assert board.codes(code=1) == {
        "tensor-digest",
        "lineage-not-known",
        "binding-too-weak",
        "task-not-listed",
    }


def test_scores_of_other_weights_moved_here(board: Board) -> None:
    """The attack that no harness can tell: the same results file, beside other weights."""
    world = World.__new__(World)
    world.root, world.key = board.root, board.key("owner")
    world.trust = TrustedKeys((world.key.public,))
    lines = (board.release / CLAIMS).read_bytes()
    board.release = world.merge("swapped", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}})  # fmt: skip
    assert board.codes(code=3) == {"benchmark-unsigned", "lineage-not-known"}
    with (board.release / CLAIMS).open("ab") as file:
        file.write(lines)
    assert board.codes(code=1) == {"weights-differ", "statement-not-counted", "lineage-not-known"}


@pytest.mark.parametrize(("by", "changes", "code", "reasons"), [
    ("judge", {}, 0, set()),
    ("other", {}, 0, set()),
    ("owner", {}, 5, {"binding-too-weak"}),
    ("judge", {"claim": Digest(sha256="1" * 64)}, 5, {"binding-too-weak"}),
    ("judge", {"requests": 15}, 5, {"binding-too-weak"}),
    ("judge", {"tolerance": "0.6"}, 5, {"binding-too-weak"}),
    ("judge", {"agrees": False, "most": "0.5"}, 1, {"replay-differs", "binding-too-weak"}),
    ("owner", {"agrees": False, "most": "0.5"}, 5, {"binding-too-weak"}),
])  # fmt: skip
def test_which_replays_count(board: Board, by: str, changes: Any, code: int, reasons: set[str]) -> None:  # fmt: skip
    board.gate(whole=GATE.replace("asserted", "replayed") % "")
    claim = board.said()[0]
    board.say(by, lambda s: msgspec.structs.replace(s, binding="replayed", replayed=replayed(**{"claim": Digest(sha256=claim), **changes})))  # fmt: skip
    assert board.codes(code=code) == reasons


def test_a_publisher_who_is_an_evaluator_replays_nothing_of_its_own(board: Board) -> None:
    trust = TRUST.replace("{key: other.pub}]", "{key: other.pub}, {key: owner.pub}]")
    board.gate(whole=GATE.replace("asserted", "replayed") % "", trust=trust)
    claim = Digest(sha256=board.said()[0])
    board.say("owner", lambda s: msgspec.structs.replace(s, binding="replayed", replayed=replayed(claim=claim)))  # fmt: skip
    assert board.codes(code=5) == {"binding-too-weak"}


def test_statements_of_another_file(board: Board) -> None:
    line = board.lines(benchmark.TYPE)[0]
    board.without(benchmark.TYPE)
    assert board.codes(code=3) == {"benchmark-unsigned"}
    (board.root / "said.jsonl").write_bytes(b"not a bundle\n" + line)
    assert board.ask("--statement", board.root / "said.jsonl")[0] == 0


@pytest.mark.parametrize(("whole", "trust", "what"), [
    ('version: "0.1"\ntrust: trust.yaml\ndownload: {}\n', TRUST, "says nothing of benchmarks"),
    (GATE % "", TRUST.replace("evaluator", "witness"), "has none"),
    (GATE % ", binding: observed", TRUST, "YAML"),
    (GATE % ", strict: true", TRUST, "unknown field"),
])  # fmt: skip
def test_rules_that_are_none(board: Board, whole: str, trust: str, what: str) -> None:
    board.gate(whole=whole, trust=trust)
    code, report = board.ask()
    assert code == 2
    assert what in json.dumps(report)


def test_what_a_gate_demands_is_explained(board: Board) -> None:
    board.gate(", tasks: [{id: arc}]")
    _, out, _ = board.run("gate", "explain", board.root / "gate.yaml", "--json")
    said = json.loads(out)["benchmark"]
    assert (said["binding"], said["tasks"], said["pinned"]) == ("asserted", [{"id": "arc"}], True)
    _, out, _ = board.run("gate", "explain", board.root / "gate.yaml")
    assert 'lineage             "exact"' in out


def test_every_format_shows_it(board: Board, tmp_path: Path) -> None:
    board.results.write_text(LM_EVAL.read_text().replace("0.3125", "0.9125"))
    outputs = [f"{name}={tmp_path / name}" for name in ("sarif", "junit", "markdown", "github")]
    code, _ = board.ask(*(part for one in outputs for part in ("--output", one)))
    assert code == 1
    sarif = json.loads((tmp_path / "sarif").read_text())
    assert "score-differs" in json.dumps(sarif)
    assert all((tmp_path / name).stat().st_size for name in ("junit", "markdown", "github"))


def test_a_task_whose_name_drives_a_terminal(board: Board) -> None:
    board.results.write_text(LM_EVAL.read_text().replace("tiny_choice", "\\u001b[31mred\\u202e"))
    for name in ("human", "markdown", "github", "junit"):
        _, out, err = board.run("gate", "benchmark", board.results, "--release", board.release, "--gate",
                                board.root / "gate.yaml", "--format", name)  # fmt: skip
        assert "red" in out or name in {"github", "junit"}
        assert not {"\x1b", "\u202e"} & set(out + err)


def test_nan_is_an_error_in_every_format(board: Board) -> None:
    board.results.write_text(LM_EVAL.read_text().replace("0.3125", "NaN"))
    code, report = board.ask()
    assert (code, report["error"]["code"]) == (1, "json")
