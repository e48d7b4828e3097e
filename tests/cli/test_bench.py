"""Scores bound to weights: commands, real keys, real results files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from commandline import Run, ok
from worlds import World

from parentage import PrivateKey
from parentage.attest.bundle import CLAIMS, parse
from parentage.attest.statement import parse_statement
from parentage.attest.statements import benchmark

RESULTS = Path(__file__).parent.parent / "verify" / "results"
LM_EVAL = RESULTS / "lm-eval-0.4.13.json"
LOG = RESULTS / "lm-eval-0.4.13-samples.jsonl"


@pytest.fixture
def lab(world: World) -> World:
    """A release by `owner`, and a lab with a key of its own."""
    world.merge()
    for name, key in (("owner", world.key), ("lab", PrivateKey.generate())):
        (world.root / f"{name}.key").write_bytes(key.to_pem(None))
        (world.root / f"{name}.pub").write_bytes(key.public.pem)
    return world


def said(release: Path) -> list[benchmark.Benchmark]:
    lines = (release / CLAIMS).read_bytes().splitlines()
    found = [parse_statement(parse(line, "t").payload, "t") for line in lines]
    return [benchmark.parse(s, "t")[1] for s in found if s.predicate_type == benchmark.TYPE]


def test_attach(lab: World, run: Run) -> None:
    release = lab.root / "merged"
    out = ok(run("bench", "attach", release, LM_EVAL, "--samples", LOG, "--key", lab.root / "lab.key",
                 "--publisher", lab.root / "owner.pub", "--json"))  # fmt: skip
    document = json.loads(out)

    assert document["predicateType"] == benchmark.TYPE
    (found,) = said(release)
    assert found.binding == "asserted"
    assert dict(found.weights) == dict(lab.lineage("merged").weights.root)
    assert found.results.sha256 == hashlib.sha256(LM_EVAL.read_bytes()).hexdigest()
    assert found.samples[0].sha256 == hashlib.sha256(LOG.read_bytes()).hexdigest()
    assert found.samples[0].count == 16
    assert (found.scores[0].metric, found.scores[0].value) == ("acc", "0.4375")
    report = lab.verify("merged", ["a", "b"])
    assert report.verified


def test_attach_refuses_nan_and_strangers(lab: World, run: Run, tmp_path: Path) -> None:
    release, before = lab.root / "merged", (lab.root / "merged" / CLAIMS).read_bytes()
    broken = tmp_path / "nan.json"
    broken.write_text(LM_EVAL.read_text().replace("0.4375", "NaN"))

    code, out, _ = run("bench", "attach", release, broken, "--key", lab.root / "lab.key",
                       "--publisher", lab.root / "owner.pub", "--json")  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "json")
    assert json.loads(out)["error"]["found"] == "NaN"
    code, out, _ = run("bench", "attach", release, LM_EVAL, "--key", lab.root / "lab.key",
                       "--publisher", lab.root / "lab.pub", "--json")  # fmt: skip
    assert (code, json.loads(out)["error"]["code"]) == (1, "signature")
    assert (release / CLAIMS).read_bytes() == before


def test_tokenizer_and_template_are_those_of_the_signature(world: World, run: Run) -> None:
    folder = world.save("plain", world.weights("a"))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (world.root / "owner.key").write_bytes(world.key.to_pem(None))
    ok(run("sign", folder, "--observed", "--key", world.root / "owner.key"))
    ok(run("bench", "attach", folder, LM_EVAL, "--key", world.root / "owner.key"))

    (found,) = said(folder)
    digests: Any = (found.tokenizer, found.chat_template)
    assert [one.sha256 for one in digests] == [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("tokenizer.json", "tokenizer_config.json")
    ]
