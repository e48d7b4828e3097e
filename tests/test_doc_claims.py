"""What documents show in YAML and Python is taken, and their lists of codes, inputs and hooks are whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from parentage.attest import policy
from parentage.manifest.errors import HubError
from parentage.verify.gates import policy as gates
from parentage.verify.gates.checks import CHECKS

ROOT = Path(__file__).parent.parent
CASE = ROOT / "tests" / "vectors" / "card-signed"


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


def test_the_gates_and_policies_in_documents_are_some() -> None:
    (gate,) = blocks("gates.md", "yaml")
    (board,) = blocks("benchmarks.md", "yaml")
    (trust,) = blocks("trust.md", "yaml")
    rules = gates.parse(gate.replace("<64 hex>", "1" * 64).encode(), where="gates.md").upload
    scores = gates.parse(board.encode(), where="benchmarks.md").benchmark
    digests = (f"{n:064x}" for n in range(99))
    whole = re.sub(r'"…"', lambda _: f'"{next(digests)}"', trust)
    roles = policy.parse(whole.encode(), where="trust.md").roles

    assert rules is not None
    assert rules.deny_steps == ("abliterate/v1",)
    assert scores is not None
    assert scores.isolated
    assert roles.recovery is not None
    assert roles.recovery.threshold == 2


def test_every_check_of_a_gate_is_in_its_table() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:always|`[a-z])", page("gates.md"), re.MULTILINE)

    assert sorted(rows) == sorted(check.code for check in CHECKS)


def test_every_reason_of_a_gate_for_scores_is_named() -> None:
    source = "".join(path.read_text() for path in (ROOT / "verify" / "benchmarks").glob("*.py"))
    codes = re.findall(r"(?:finding|denial)\(\s*\"([a-z-]+)\"", source)

    assert len(set(codes)) > 10
    for code in codes:
        assert f"`{code}`" in page("benchmarks.md"), code


def test_every_way_a_hub_fails_is_in_the_table() -> None:
    kinds = HubError.__subclasses__()

    assert len(kinds) >= 7
    for kind in kinds:
        assert f"`{kind.code}`" in page("hub.md"), kind


def test_the_action_and_the_component_have_what_the_page_gives_them() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    table = re.findall(r"^\| (`.*?) \| ", page("ci.md"), re.MULTILINE)
    listed = {name for row in table for name in re.findall(r"`([a-z-]+)`", row)}
    github, gitlab = (yaml.safe_load(text) for text in blocks("ci.md", "yaml"))
    steps: list[Any] = github["jobs"]["gate"]["steps"]
    template = (ROOT / "templates" / "verify" / "template.yml").read_text()
    spec = next(iter(yaml.safe_load_all(template)))["spec"]["inputs"]
    outputs = re.search(r"^Outputs: (.*)$", page("ci.md"), re.MULTILINE)

    assert listed == set(action["inputs"])
    assert set(steps[1]["with"]) <= set(action["inputs"])
    assert set(gitlab["include"][0]["inputs"]) <= set(spec)
    assert outputs is not None
    assert set(re.findall(r"`([a-z-]+)`", outputs[1])) == set(action["outputs"])


def test_the_hooks_in_the_page_exist() -> None:
    (shown,) = blocks("cards.md", "yaml")
    hooks = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}

    assert {hook["id"] for hook in yaml.safe_load(shown)["repos"][0]["hooks"]} == hooks


@pytest.mark.parametrize(("name", "at"), [("cards.md", 0), ("loading.md", 0)])
def test_python_in_documents_runs(
    name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rio").symlink_to(CASE / "release")
    (tmp_path / "release.pub").symlink_to(CASE / "release.pub")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(blocks(name, "python")[at], name, "exec"), names)  # noqa: S102

    if "report" in names:
        assert names["report"].verdict == "verified"
    else:
        assert set(names["weights"]) == {"layers.0.w", "layers.1.w", "norm"}
