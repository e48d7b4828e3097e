"""Write `schemas/*.json` from the models; `test_schemas.py` fails when they differ."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from parentage.attest.lock import Lock
from parentage.attest.policy import Policy
from parentage.attest.statements.benchmark import Benchmark
from parentage.attest.statements.dispute import Dispute
from parentage.attest.statements.endorsement import Endorsement
from parentage.attest.statements.recompute import Recompute
from parentage.attest.statements.release import Release
from parentage.attest.statements.status import Status
from parentage.attest.statements.summary import Summary
from parentage.manifest.card import Digests
from parentage.manifest.lineage import Lineage
from parentage.manifest.recipe import Recipe
from parentage.manifest.table import FileLine, TensorLine
from parentage.verify.benchmarks.leaderboard import BoardReport
from parentage.verify.benchmarks.report import BenchReport
from parentage.verify.cards.report import CardReport
from parentage.verify.gates.policy import GatePolicy
from parentage.verify.gates.report import GateReport
from parentage.verify.identify import Identification
from parentage.verify.oms_report import OmsReport
from parentage.verify.publication import PushReport
from parentage.verify.report import Report

MODELS: dict[str, Any] = {
    "lineage-v0.1": Lineage,
    "recipe-v0.1": Recipe,
    "tensors-v0.1": TensorLine | FileLine,
    "report-v0.1": Report,
    "push-v0.1": PushReport,
    "oms-v0.1": OmsReport,
    "lock-v0.1": Lock,
    "policy-v0.1": Policy,
    "card-v0.1": CardReport,
    "card-digests-v0.1": Digests,
    "bench-v0.1": BenchReport,
    "benchmark-v0.1": Benchmark,
    "leaderboard-v0.1": BoardReport,
    "dispute-v0.1": Dispute,
    "endorsement-v0.1": Endorsement,
    "recompute-v0.1": Recompute,
    "release-v0.1": Release,
    "status-v0.1": Status,
    "summary-v1": Summary,
    "identify-v0.1": Identification,
    "gate-v0.1": GatePolicy,
    "gate-report-v0.1": GateReport,
}
FOLDER = Path(__file__).parent.parent / "schemas"


def generate(name: str) -> str:
    """Return the schema of one wire format as text."""
    model = MODELS[name]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://parentage.dev/schemas/{name}.json",
        **_dedented(_schema(model)),
    }
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def _schema(model: Any) -> dict[str, Any]:
    if model == TensorLine | FileLine:
        parts, definitions = msgspec.json.schema_components(
            [TensorLine, FileLine], ref_template="#/$defs/{name}"
        )
        return {"anyOf": list(parts), "$defs": definitions}
    return msgspec.json.schema(model)


def _dedented(value: Any) -> Any:
    """Python 3.13 dedents docstrings when it compiles them; earlier ones do not."""
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(item)
            if key == "description" and isinstance(item, str)
            else _dedented(item)
            for key, item in value.items()
        }
    return [_dedented(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    for name in MODELS:
        (FOLDER / f"{name}.json").write_text(generate(name), encoding="utf-8")
