"""`--format`, `--output` and `--exit-zero` as a CI job meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import Run
from worlds import World


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(tmp_path_factory.mktemp("release"))
    world.merge()
    (world.root / "release.pub").write_bytes(world.key.public.pem)
    return world.root


@pytest.fixture
def verify(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)

    def runner(*arguments: object) -> tuple[int, str, str]:
        return run("verify", "merged", "--key", "release.pub", "--level", "integrity", *arguments)

    return runner


def test_one_run_writes_every_format(verify: Run, place: Path, tmp_path: Path) -> None:
    names = ("json", "sarif", "junit", "markdown", "github", "gitlab", "human", "quiet")
    outputs = [f"--output={name}={tmp_path / name}" for name in names]
    code, out, _ = verify("--format", "json", *outputs)

    assert (code, json.loads(out)["verdict"]) == (0, "verified")
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    assert (tmp_path / "json").read_text() == out == verify("--json")[1]
    assert (tmp_path / "human").read_text().startswith("VERIFIED  merged")
    assert json.loads((tmp_path / "sarif").read_text())["runs"][0]["results"] == []


def test_problems_are_shown_beside_a_text_file_of_the_repository(verify: Run, place: Path) -> None:
    (place / "merged" / "extra.py").write_text("1")
    try:
        code, out, _ = verify("--format", "github")
        assert code == 1
        assert out.startswith(
            "::error file=merged/model.sig,line=1,title=parentage verify%3A file-unsigned"
        )
        (place / "merged" / "README.md").write_text("# rio")
        issues = json.loads(verify("--format", "gitlab")[1])
        assert {issue["location"]["path"] for issue in issues} == {"merged/README.md"}
    finally:
        (place / "merged" / "extra.py").unlink()
        (place / "merged" / "README.md").unlink(missing_ok=True)


def test_exit_zero_changes_the_exit_code_and_nothing_else(
    verify: Run, run: Run, place: Path
) -> None:
    (place / "merged" / "extra.py").write_text("1")
    try:
        refused = verify("--format", "json")
        let_be = verify("--format", "json", "--exit-zero")
        shown = verify("--exit-zero")
    finally:
        (place / "merged" / "extra.py").unlink()

    assert (refused[0], let_be[0]) == (1, 0)
    assert refused[1] == let_be[1]
    assert json.loads(let_be[1])["exitCode"] == 1
    assert "0 by --exit-zero; the verdict is refuted (1)" in let_be[2]
    assert "exit code 0 by --exit-zero" in shown[1]
    # What could not be run is never a success.
    assert run("verify", "nowhere", "--key", "release.pub", "--exit-zero")[0] == 2


def test_every_format_shows_an_error(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    outputs = ["--output", f"junit={tmp_path / 'j.xml'}", "--output", f"json={tmp_path / 'e.json'}"]
    code, out, err = run("verify", "nowhere", "--key", "release.pub", *outputs)
    assert (code, out) == (2, "")
    assert "error [usage]" in err
    assert json.loads((tmp_path / "e.json").read_text())["error"]["code"] == "usage"
    assert '<failure type="usage"' in (tmp_path / "j.xml").read_text()

    code, out, _ = run("verify", "nowhere", "--key", "release.pub", "--format", "json")
    assert (code, json.loads(out)["exitCode"]) == (2, 2)
    code, out, _ = run("verify", "nowhere", "--format", "sarif")
    assert (code, json.loads(out)["runs"][0]["results"][0]["ruleId"]) == (2, "usage")
    # click's own mistakes, too
    for asked in (["--format", "json"], ["--format=json"], ["--json"]):
        code, out, _ = run("verify", "merged", "--no-such-option", *asked)
        assert (code, json.loads(out)["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "sarif"], "not a format and a file"),
        (["--output", "pdf=x.pdf"], "NAME one of human, json"),
        (["--output", "sarif=no/such/folder/x"], "no file can be written there"),
        (["--output", "sarif=x", "--output", "json=x"], "one file for two formats"),
        (["--json", "--format", "sarif"], "two answers"),
        (["--format", "pdf"], "Invalid value for '--format'"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(
    verify: Run, arguments: list[str], said: str
) -> None:
    code, out, err = verify(*arguments)

    assert code == 2
    assert said in out + err
