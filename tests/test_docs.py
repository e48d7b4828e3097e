"""What the documents promise exists: tests by name, files by link, schemas by path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(path: Path) -> None:
    for target in re.findall(
        r"`((?:manifest|attest|verify|schemas|tests|docs)/[\w./-]+)`", path.read_text()
    ):
        assert (ROOT / target).exists(), target


def test_every_threat_names_a_test_that_exists() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| threat")
    ]
    assert len(rows) > 20
    for row in rows:
        named = row.split("|")[3]
        functions = re.findall(r"`(test_\w+)`", named)
        files = re.findall(r"`(test_\w+\.py)`", named)
        spoilt = [n for n in re.findall(r"`(\w+)`", named) if not n.startswith("test_")]
        assert functions or files or spoilt, row
        for name in functions:
            assert f"def {name}(" in TESTS, name
        for name in files:
            assert list((ROOT / "tests").rglob(name)), name
        for name in spoilt if "attacks" in named else []:
            assert f"def _{name}(" in TESTS or f'"{name}"' in TESTS, name


def test_the_readme_keeps_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()

    assert "    make demo " in readme
    assert "    make test " in readme


@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
)
def test_the_readme_in_python_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the golden case, laid out as the README has it."""
    case = ROOT / "tests" / "vectors" / "honest-linear"
    (tmp_path / "rio").symlink_to(case / "release")
    (tmp_path / "release.pub").symlink_to(case / "release.pub")
    (tmp_path / "nex").symlink_to(case / "parents" / "a")
    (tmp_path / "qwen").symlink_to(case / "parents" / "b")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102

    assert names["report"].verified  # type: ignore[attr-defined]


def test_the_recipe_in_the_readme_is_one() -> None:
    from parentage.manifest.recipe import load_yaml, parse

    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    assert parse(load_yaml(text.encode(), where="README"), where="README").steps[0].id == "merge"
