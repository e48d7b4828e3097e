"""The action's steps, run as a runner of GitHub would: its shell, its files, inputs in the environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from parentage.cli.gate_benchmark import command as gate_benchmark

ROOT = Path(__file__).parents[2]
TOKEN = "hf_s3cret"  # noqa: S105
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
INSTALL, DECIDE = ACTION["runs"]["steps"]


@dataclass
class Ended:
    """A step that ended, with what the runner would take from it."""

    code: int
    out: str
    outputs: dict[str, str]
    summary: str

    @property
    def commands(self) -> list[str]:
        """The workflow commands that the runner reads in what was printed."""
        found, stopped = [], None
        for line in self.out.splitlines():
            if stopped is None and line.startswith("::stop-commands::"):
                stopped = f"::{line.removeprefix('::stop-commands::')}::"
            elif line == stopped:
                stopped = None
            elif stopped is None and re.match("::[a-z-]+", line):
                found.append(line)
        return found


class Runner:
    """Runs steps in a workspace."""

    def __init__(self, folder: Path) -> None:
        self.temp = folder / "temp"
        self.temp.mkdir()
        self.workspace = folder / "workspace"
        self.workspace.mkdir(exist_ok=True)

    def run(self, step: dict[str, Any], **inputs: str) -> Ended:
        """Run a step with the shell that the documentation of `shell: bash` names."""
        defaults = {name: value.get("default", "") for name, value in ACTION["inputs"].items()}
        given = {**defaults, **{name.replace("_", "-"): value for name, value in inputs.items()}}
        assert set(given) == set(defaults)
        script = self.temp / "step.sh"
        script.write_text(step["run"])
        files = {name: self.temp / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        environment = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], value)
            for name, value in step["env"].items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.workspace,
            env={
                **os.environ,
                **environment,
                **{name: str(path) for name, path in files.items()},
                "GITHUB_ACTION_PATH": str(ROOT),
                "RUNNER_TEMP": str(self.temp),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        outputs = dict(
            line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines()
        )
        return Ended(
            done.returncode, done.stdout, outputs, files["GITHUB_STEP_SUMMARY"].read_text()
        )


@pytest.fixture
def runner(tmp_path: Path, programs: Path) -> Runner:
    started = Runner(tmp_path)
    (started.temp / "parentage").symlink_to(programs.parent)
    return started


@pytest.fixture
def told(workspace: Path) -> dict[str, str]:
    """The inputs of a release, as a workflow gives them: paths in its workspace."""
    return {"keys": "release.pub", "parents": "nex\nqwen=qwen\n", "device": "cpu"}


def test_what_holds_is_let_in(runner: Runner, told: dict[str, str]) -> None:
    done = runner.run(DECIDE, mode="download", target="right", sarif_file="parentage.sarif", **told)
    assert (done.code, done.outputs["verdict"], done.outputs["exit-code"]) == (0, "verified", "0")
    report = json.loads(Path(done.outputs["report-path"]).read_bytes())
    assert report["verdict"] == "verified"
    assert done.outputs["weights-digest"] == f"ptd1-b3:{report['report']['root']['ptd1-b3']}"
    assert "VERIFIED" in done.summary
    assert not any(line.startswith("::error") for line in done.commands)
    assert json.loads((runner.workspace / "parentage.sarif").read_bytes())["version"] == "2.1.0"


def test_what_does_not_is_refused_with_annotations(runner: Runner, told: dict[str, str]) -> None:
    done = runner.run(DECIDE, target="wrong", summary="false", hf_token=TOKEN, **told)
    assert (done.code, done.outputs["verdict"], done.outputs["exit-code"]) == (1, "refuted", "1")
    (error,) = [line for line in done.commands if line.startswith("::error")]
    assert "recipe-mismatch" in error
    assert done.summary == ""
    assert TOKEN not in done.out + str(done.outputs)


HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    '"; touch pwned; "',
    "'; touch pwned; '",
    "x\nverdict=verified\nexit-code=0",
    "x\n::error::pwned\n::set-output name=verdict::verified",
    "--exit-zero",
    "--help",
    "-h",
    "${IFS}touch${IFS}pwned",
    "*",
    "\x1b]0;pwned\x07",
]


@pytest.mark.parametrize(
    ("where", "hostile"),
    [*(("everywhere", h) for h in HOSTILE), *(("target", h) for h in HOSTILE[:2])],
    ids=ascii,
)
def test_hostile_inputs_are_words(
    runner: Runner, told: dict[str, str], hostile: str, where: str
) -> None:
    everywhere = dict.fromkeys(["gate", "parents", "keys", "release", "device"], hostile)
    inputs = {**told, **(everywhere if where == "everywhere" else {}), "target": hostile}
    done = runner.run(DECIDE, **inputs, sarif_file=hostile)
    assert not list(runner.workspace.parent.rglob("pwned"))
    assert done.code not in (0, 1)
    assert done.outputs["exit-code"] == str(done.code)
    assert set(done.outputs) == {"verdict", "exit-code", "weights-digest", "report-path"}
    assert not any(line.startswith(("::error::pwned", "::set-output")) for line in done.commands)


@pytest.mark.parametrize("mode", ["", "verify", "upload --exit-zero", "$(touch pwned)", "init"])
def test_modes_that_are_none(runner: Runner, mode: str) -> None:
    done = runner.run(DECIDE, target="x", mode=mode)
    assert (done.code, done.outputs) == (2, {})
    assert done.commands == ["::error title=parentage::mode: upload, download or benchmark"]
    assert not list(runner.workspace.parent.rglob("pwned"))


def test_what_the_gate_is_asked(runner: Runner) -> None:
    program = runner.temp / "parentage" / "bin" / "parentage"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    done = runner.run(
        DECIDE,
        mode="benchmark",
        target="results.json",
        release="rio",
        samples_file="samples.jsonl",
        keys="a.pub\r\n\nb c.pub",
        junit_file="junit.xml",
        device="cuda",
    )
    assert (done.code, done.outputs["exit-code"]) == (0, "0")
    asked = [line for line in done.out.splitlines()[1:-2] if not line.startswith("--output")]
    assert asked == [
        *("gate", "benchmark", "--gate=gate.yaml", "--key=a.pub", "--key=b c.pub"),
        *("--release=rio", "--samples-file=samples.jsonl", "--device=cuda", "--", "results.json"),
    ]
    assert "--output=junit=junit.xml" in done.out
    known = {option for parameter in gate_benchmark.params for option in parameter.opts}
    assert {line.partition("=")[0] for line in asked[2:-2]} | {"--output", "--parent"} <= known


def test_what_is_printed_is_no_command(runner: Runner) -> None:
    program = runner.temp / "parentage" / "bin" / "parentage"
    program.write_text("#!/bin/sh\necho ::error::pwned\necho ::error::pwned >&2\nexit 4\n")
    done = runner.run(DECIDE, target="x")
    assert (done.code, done.outputs["verdict"], done.outputs["report-path"]) == (4, "unproven", "")
    assert done.out.count("pwned") == 2
    assert done.commands == []
    lenient = runner.run(DECIDE, target="x", exit_zero="true")
    assert (lenient.code, lenient.outputs) == (0, done.outputs)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that only writes down what it is asked, one word a line."""
    path = tmp_path / "python"
    path.write_text(
        "#!/bin/sh\n"
        'printf "%s\\n" "$@" >>"$RUNNER_TEMP/asked"\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/parentage"; fi\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("inputs", "asked"),
    [
        ({}, f"{ROOT}[recompute,hub]"),
        ({"extras": ""}, str(ROOT)),
        ({"version": "0.1.0"}, "parentage[recompute,hub]==0.1.0"),
    ],
)
def test_what_is_installed(
    tmp_path: Path, python: Path, inputs: dict[str, str], asked: str
) -> None:
    runner = Runner(tmp_path)
    done = runner.run(INSTALL, python=str(python), **inputs)
    assert done.code == 0, done.out
    words = (runner.temp / "asked").read_text().splitlines()
    assert words[:3] == ["-m", "venv", str(runner.temp / "parentage")]
    assert words[-3:-1] == ["--", asked]


@pytest.mark.parametrize(
    "inputs",
    [
        {"version": "0.1 --index-url=http://x"},
        {"version": "$(touch pwned)"},
        {"version": "--pre"},
        {"version": "1\n2"},
        {"extras": "hub] @ http://x"},
        {"extras": "`touch pwned`"},
        {"extras": "a,,b"},
    ],
    ids=str,
)
def test_nothing_else_is_installed(tmp_path: Path, python: Path, inputs: dict[str, str]) -> None:
    runner = Runner(tmp_path)
    done = runner.run(INSTALL, python=str(python), **inputs)
    assert done.code == 2
    assert not (runner.temp / "asked").exists()
    assert not list(tmp_path.rglob("pwned"))
