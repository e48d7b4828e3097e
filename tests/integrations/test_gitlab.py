"""The GitLab component: inputs filled in as GitLab does, its script run by a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

TEMPLATE = Path(__file__).parents[2] / "templates" / "verify" / "template.yml"
SPEC, JOBS = yaml.safe_load_all(TEMPLATE.read_text())
INPUTS = SPEC["spec"]["inputs"]


def filled(value: Any, given: dict[str, str]) -> Any:
    """Fill inputs into the parsed file, as GitLab does before it looks at jobs."""
    if isinstance(value, dict):
        return {filled(k, given): filled(v, given) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(one, given) for one in value]
    if isinstance(value, str):
        return re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda found: given[found[1]], value)
    return value


def job(**inputs: str) -> dict[str, Any]:
    defaults = {name: one["default"] for name, one in INPUTS.items() if "default" in one}
    given = {**defaults, "version": "0.1.0", **inputs}
    assert set(given) == set(INPUTS)
    (only,) = filled(JOBS, given).values()
    return only


def run(workspace: Path, programs: Path, **inputs: str) -> int:
    """Run the part of the script that comes after the installation."""
    variables = job(**inputs)["variables"]
    assert all(one["expand"] is False for one in variables.values())
    (workspace / ".parentage-venv").symlink_to(programs.parent)
    environment = {name: one["value"] for name, one in variables.items()}
    done = subprocess.run(
        ["sh", "-e", "-c", job(**inputs)["script"][-1]],
        cwd=workspace,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )
    return done.returncode


def test_a_release_that_does_not_hold_fails_the_job_with_its_reports(
    workspace: Path, programs: Path
) -> None:
    code = run(workspace, programs, target="nex", keys="release.pub", parents="qwen\n")
    assert code == 3
    artifacts = job(target="x")["artifacts"]
    assert artifacts["when"] == "always"
    report = json.loads((workspace / artifacts["paths"][0]).read_bytes())
    assert report["verdict"] == "unsigned"
    assert json.loads((workspace / artifacts["reports"]["codequality"]).read_bytes())
    suite = ET.fromstring((workspace / artifacts["reports"]["junit"]).read_text())  # noqa: S314
    assert suite.tag == "testsuites"


@pytest.mark.parametrize(
    "hostile", ["$(touch pwned)", "`touch pwned`", '"; touch pwned; "', "\nPARENTS\ntouch pwned\n"]
)
def test_hostile_inputs_are_words(workspace: Path, programs: Path, hostile: str) -> None:
    names = dict.fromkeys(["target", "parents", "keys"], hostile)
    assert run(workspace, programs, **names) not in (0, 1)
    assert not list(workspace.rglob("pwned"))


def test_what_is_installed_is_a_version_and_nothing_else() -> None:
    for line in job(target="$(id)", parents="$(id)", version="1.0")["script"]:
        assert "$(" not in line
        assert "$[[" not in line
    for text in ("$(id)", "1 --pre", "--pre", "", "1\n2"):
        assert not re.search(INPUTS["version"]["regex"], text)
