"""Make the golden cases of scores and cards: `python tests/vectors/make_claims.py NAME...`, as make.py.

Such a case is one more: beside what `verify` says, `benchmark` in `case.json` is what `gate benchmark` says
of `results.json` by `gate.yaml`, and `card` is what `card check` says.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import make
import msgspec
from make import NOW, SmallWorld, Speakers, _attested, case
from worlds import MERGE

import parentage
from parentage.attest.claims import choose_lineage, read_claims
from parentage.attest.opening import open_bundle
from parentage.attest.roles import believed as as_believed
from parentage.attest.statement import parse_statement
from parentage.attest.statements import benchmark
from parentage.manifest import recipe as recipes
from parentage.manifest.files import open_files
from parentage.verify.benchmarks.claim import Bound, bound, claim
from parentage.verify.benchmarks.readers import read_results

RESULTS = Path(__file__).parents[1] / "verify" / "results" / "lm-eval-0.4.13.json"
TRUST = """version: "0.1"
roles:
  publisher: {any: [{key: release.pub}]}
  evaluator: {any: [{key: lab2.pub}]}
  verifier: {any: [{key: lab1.pub}]}
"""
GATE = """version: "0.1"
trust: trust.yaml
benchmark:
  binding: asserted
  lineage: exact
  maxAge: 30d
  tasks: [{id: tiny_choice, metrics: [acc]}]
"""
CARD = """---
license: apache-2.0
base_model:
- acme/Nex
- acme/qwen
base_model_relation: merge
tags: [merge, parentage]
threshold: 0.50
released: 2026-06-14
gated: no
draft: false
note: ~
---
# Rio

0.6 Nex and 0.4 qwen, nothing else.
"""


class Board(Speakers):
    """A merge that lab1 recomputed, and an evaluator, lab2."""

    def __init__(self, world: SmallWorld) -> None:
        super().__init__(world, "")
        (world.root / "trust.yaml").write_text(TRUST)
        (world.root / "gate.yaml").write_text(GATE)
        shutil.copy(RESULTS, world.root / "results.json")
        _attested(self, "lab1")

    def scores(self, of: str) -> str:
        """Say as lab2 that the results are those of a release."""
        data = (self.world.root / "results.json").read_bytes()
        release = self._bound(of)
        payload = claim(release, read_results(data, "results.json"), data)
        _, said = benchmark.parse(parse_statement(payload, "t"), "t")
        said = msgspec.structs.replace(said, created=NOW)
        return self.say(benchmark.build(release.lineage, release.subjects, said), "lab2")

    def _bound(self, name: str) -> Bound:
        trust = self.world.trust
        with open_files(self.world.root / name) as files:
            opened = open_bundle(files.files["model.sig"].read_small(), trust, "model.sig")
            found = choose_lineage(files, opened, read_claims(files, as_believed(trust)))
            return bound(opened, found)

    def outcome(self, verdict: str, *codes: str, **more: Any) -> dict[str, Any]:
        """Return what `case.json` says."""
        asked = {"results": "results.json", "gate": "gate.yaml", "verdict": verdict}
        asked |= {"codes": sorted(codes), **more}
        files = ["results.json", "gate.yaml"]
        return self.expect("verified", state="unknown", benchmark=asked, files=files)


@case
def scores_attached(world: SmallWorld) -> dict[str, Any]:
    """Scores that an evaluator signed, of weights that a verifier recomputed."""
    board = Board(world)
    said = board.scores("release")
    return board.outcome("verified", binding="asserted", statement=said)


@case
def scores_edited(world: SmallWorld) -> dict[str, Any]:
    """The results file says 0.9125, and the evaluator signed 0.3125."""
    board = Board(world)
    board.scores("release")
    path = world.root / "results.json"
    path.write_text(path.read_text().replace("0.3125", "0.9125"))
    return board.outcome("refuted", "benchmark-unsigned", "score-differs")


@case
def scores_of_other_weights(world: SmallWorld) -> dict[str, Any]:
    """The evaluator signed them as those of another ratio, and they were moved here."""
    board = Board(world)
    world.merge("other", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}})
    board.scores("other")
    return board.outcome("refuted", "statement-not-counted", "weights-differ")


@case
def card_signed(world: SmallWorld) -> dict[str, Any]:
    """A card that says what the manifest says, and the digests of its parts."""
    _carded(world)
    return _of_card("verified", "verified", [], [])


@case
def card_edited(world: SmallWorld) -> dict[str, Any]:
    """Licence and text of the card were changed after signing."""
    path = _carded(world)
    said = path.read_text().replace("apache-2.0", "mit").replace("nothing else", "and no more")
    path.write_text(said)
    return _of_card("refuted", "verified", ["file-digest"], [["C08", "license"]])


@case
def card_text_edited(world: SmallWorld) -> dict[str, Any]:
    """Only its text was changed, which is a note."""
    path = _carded(world)
    path.write_text(path.read_text().replace("nothing else", "and no more"))
    return _of_card("refuted", "verified", ["file-digest"], [["C08", ""]])


def _of_card(
    verdict: str, carded: str, codes: list[str], problems: list[list[str]]
) -> dict[str, Any]:
    return make.expect(verdict, codes, card={"verdict": carded, "problems": problems})


def _carded(world: SmallWorld) -> Path:
    """Release a merge of parents that lie on a Hub, with a card."""
    places = {"a": "acme/nex", "b": "acme/qwen"}
    parents = [
        {"id": name, "uri": f"pkg:huggingface/{place}@{name * 40}", "license": "apache-2.0"}
        for name, place in places.items()
    ]
    document = {"version": "0.1", "parents": parents, "steps": [MERGE]}
    given = {name: world.root / name for name in places}
    recipe = recipes.parse(document, where="make_claims")
    parentage.merge(recipe, world.root / "release", parents=given)
    (world.root / "release" / "README.md").write_text(CARD)
    parentage.declare(world.root / "release", recipe, parents=given)
    world.sign("release")
    return world.root / "release" / "README.md"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or make.CASES:
        if not (make.HERE / wanted).exists():
            make.make(wanted)
