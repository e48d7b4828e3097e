"""Submitters of scores who cheat: replays of themselves, borrowed strength, numbers that read as others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from boards import GATE, TRUST, Board

from parentage import KeySigner
from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS
from parentage.attest.statements import benchmark
from parentage.attest.statements.benchmark import Benchmark, Replayed, Spread
from parentage.attest.statements.shared import Digest
from parentage.manifest.lineage import LINEAGE
from parentage.verify.benchmarks.leaderboard import same_score

REPLAYED = Replayed(
    claim=Digest(sha256="1" * 64), nonce="6" * 64, requests=16, of_requests=32, median="0", most="0.00001",
    tolerance="0.0001", median_tolerance="0.0001", agrees=True, device="cpu", dtype="float32",
    same_weights=Spread(reruns=3, median="0", most="0.00001"),
)  # fmt: skip
SEEN = benchmark.Observed(
    argv=("lm_eval",), isolation="unshare",
    environment=benchmark.Environment(platform="Linux", executable="1" * 64),
)  # fmt: skip
REPLAYS = GATE.replace("asserted", "replayed") % ""
TWO = TRUST.replace("{key: other.pub}]}", "{key: other.pub}], threshold: 2}")


def replays(board: Board) -> Any:
    said = msgspec.structs.replace(REPLAYED, claim=Digest(sha256=board.said()[0]))
    return lambda one: msgspec.structs.replace(one, binding="replayed", replayed=said)


def observed(one: Benchmark) -> Benchmark:
    return msgspec.structs.replace(one, binding="observed", observed=SEEN)


def test_nobody_counts_as_the_replayer_of_their_own_scores(board: Board) -> None:
    """`bench replay` refuses to sign this; a program of one's own does not."""
    board.gate(whole=REPLAYS)
    board.say("lab", replays(board))
    assert board.codes(code=5) == {"binding-too-weak"}


def test_who_signed_the_same_claim_is_no_replayer(board: Board) -> None:
    board.gate(whole=REPLAYS)
    board.say("other")
    board.say("other", replays(board))
    assert board.codes(code=5) == {"binding-too-weak"}
    board.say("judge", replays(board))
    assert board.ask()[0] == 0


def test_as_many_stand_for_the_binding_as_for_the_scores(board: Board) -> None:
    """Two are demanded, and one of them saw the run."""
    board.gate(whole=GATE.replace("asserted", "observed") % "", trust=TWO)
    board.say("other", observed)
    assert board.codes(code=5) == {"binding-too-weak"}
    board.say("lab", observed)
    assert board.ask()[0] == 0


@pytest.mark.parametrize(("shown", "signed"), [
    ("1", "0.55"), ("100", "0.996"), ("0", "0.4"), ("1", "0.5"), ("10", "9.5"), ("2", "1.6"),
])  # fmt: skip
def test_what_is_rounded_to_nothing_is_another_score(shown: str, signed: str) -> None:
    """A row chooses its own digits; rounded to one it would be whatever ranks best."""
    assert same_score(shown, signed) == (shown == "100")


def test_a_summary_of_another_lineage_of_the_same_files(board: Board) -> None:
    """What was verified, exchanged for another story of the same weights."""
    true = board.lines(LINEAGE)[0]
    payload = bundle.parse(true, "t").payload
    told = payload.replace(b'"0.6"', b'"0.7"')
    assert told != payload
    board.without("https://parentage.dev/recompute/v0.1")
    assert "lineage-not-known" not in board.codes(code=0)
    path = board.release / CLAIMS
    made = bundle.build(told, KeySigner(board.key("owner"))) + b"\n"
    path.write_bytes(path.read_bytes().replace(true, made))
    # Nobody spoke of it; and no score is contradicted, for the weights are the same.
    assert board.codes(code=5) == {"lineage-not-known", "statement-not-counted"}
