"""A release whose scores somebody signed, and a gate that is asked about them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from commandline import Run
from worlds import World

from parentage import Demands, KeySigner, PrivateKey
from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS
from parentage.attest.statement import parse_statement
from parentage.attest.statements import benchmark
from parentage.attest.statements.benchmark import Benchmark, Replayed, Spread
from parentage.attest.statements.shared import Digest, sha256
from parentage.attest.trust import TrustedKeys
from parentage.verify.attesting import Verifier, attest

RESULTS = Path(__file__).parent.parent / "verify" / "results"
LM_EVAL = RESULTS / "lm-eval-0.4.13.json"
SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
TRUST = """
version: "0.1"
roles:
  publisher: {any: [{key: owner.pub}]}
  evaluator: {any: [{key: lab.pub}, {key: other.pub}]}
  verifier: {any: [{key: judge.pub}]}
"""
GATE = 'version: "0.1"\ntrust: trust.yaml\nbenchmark: {binding: asserted, lineage: exact%s}\n'
PEOPLE = ("owner", "lab", "other", "judge", "stranger")


class Board:
    """A release whose scores `lab` signed and whose recipe `judge` recomputed, and a gate."""

    def __init__(self, root: Path, run: Run) -> None:
        self.root, self.run = root, run
        self.release, self.results = root / "merged", root / "results.json"

    def gate(self, rest: str = "", trust: str = TRUST, whole: str = "") -> None:
        (self.root / "gate.yaml").write_text(whole or GATE % rest)
        (self.root / "trust.yaml").write_text(trust)

    def ask(self, *more: object, results: Path | None = None) -> tuple[int, Any]:
        code, out, _ = self.run("gate", "benchmark", results or self.results, "--release", self.release,
                                "--gate", self.root / "gate.yaml", "--device", "cpu", "--json", *more)  # fmt: skip
        return code, json.loads(out)

    def codes(self, *more: object, code: int, results: Path | None = None) -> set[str]:
        """Return the codes of what decided, with the exit code that was expected."""
        found, report = self.ask(*more, results=results)
        assert found == code, report
        return {one["code"] for one in report["findings"] if one["refutes"] or one["denies"]}

    def key(self, name: str) -> PrivateKey:
        return PrivateKey.load(self.root / f"{name}.key", None)

    def lines(self, kind: str) -> list[bytes]:
        return [line for line in (self.release / CLAIMS).read_bytes().splitlines(keepends=True)
                if parse_statement(bundle.parse(line, "t").payload, "t").predicate_type == kind]  # fmt: skip

    def without(self, kind: str) -> None:
        gone = self.lines(kind)
        kept = [x for x in (self.release / CLAIMS).read_bytes().splitlines(keepends=True) if x not in gone]  # fmt: skip
        (self.release / CLAIMS).write_bytes(b"".join(kept))

    def said(self) -> tuple[str, tuple[Any, ...], Benchmark]:
        payload = bundle.parse(self.lines(benchmark.TYPE)[0], "t").payload
        subjects, found = benchmark.parse(parse_statement(payload, "t"), "t")
        return sha256(payload), subjects, found

    def say(self, by: str, change: Callable[[Benchmark], Benchmark] | None = None) -> None:
        """Sign the lab's statement again, as somebody else or changed."""
        _, subjects, found = self.said()
        made = benchmark.build(Digest(sha256=subjects[0].sha256), subjects[1:], change(found) if change else found)  # fmt: skip
        with (self.release / CLAIMS).open("ab") as file:
            file.write(bundle.build(made, KeySigner(self.key(by))) + b"\n")


def make(root: Path) -> Path:
    """A release, everybody's keys, and what `judge` recomputed."""
    world = World(root)
    world.merge()
    keys = {name: PrivateKey.generate() for name in PEOPLE} | {"owner": world.key}
    for name, key in keys.items():
        (root / f"{name}.pub").write_bytes(key.public.pem)
        (root / f"{name}.key").write_bytes(key.to_pem(None))
    shutil.copy(LM_EVAL, root / "results.json")
    judge = Verifier(signer=KeySigner(keys["judge"]), trust=TrustedKeys((keys["judge"].public,)))
    done = attest(root / "merged", judge, trust=world.trust, parents=[("a", root / "a"), ("b", root / "b")],
                  demands=Demands(device="cpu"))  # fmt: skip
    with (root / "merged" / CLAIMS).open("ab") as file:
        file.write(b"".join(done.fit))
    return root


def replayed(**changes: Any) -> Replayed:
    """What a replay of half a log showed; it agrees."""
    found = Replayed(
        claim=Digest(sha256="1" * 64), nonce="6" * 64, requests=16, of_requests=32, median="0", most="0.00001",
        tolerance="0.0001", median_tolerance="0.0001", agrees=True, device="cpu", dtype="float32",
        same_weights=Spread(reruns=3, median="0", most="0.00001"),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)
