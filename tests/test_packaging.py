"""What is installed, what it weighs to import, and that the house matches its plan."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import parentage

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = {
    "torch",
    "numpy",
    "sigstore",
    "cyclonedx",
    "huggingface_hub",
    "safetensors",
    "yaml",
    "cryptography",
    "blake3",
}
#: Beside torch and its like, what a verification by key does without: 20 of its 150 ms.
UNUSED = {"ssl", "http", "email", "xml", "asyncio", "yaml", "concurrent", "socket", "subprocess"}


def test_every_package_is_listed() -> None:
    found = {
        "parentage"
        + (
            ""
            if path.parent == ROOT / "parentage"
            else "." + ".".join(path.parent.relative_to(ROOT).parts)
        )
        for room in ("manifest", "attest", "verify", "schemas")
        for path in (ROOT / room).rglob("__init__.py")
    } | {"parentage", "parentage.cli"}

    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found


@pytest.mark.parametrize("room", ["manifest", "attest", "verify", "schemas"])
def test_rooms_are_links_in_the_checkout(room: str) -> None:
    link = ROOT / "parentage" / room

    assert link.is_symlink()
    assert os.readlink(link) == f"../{room}"  # noqa: PTH115


def test_torch_is_pinned_by_constraints_only() -> None:
    wanted = PYPROJECT["project"]["optional-dependencies"]["recompute"]

    assert not any("==" in requirement for requirement in wanted)
    assert not any("torch" in requirement for requirement in PYPROJECT["project"]["dependencies"])
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code",
    [
        "import parentage",
        "import parentage.cli",
        "from parentage.cli import cli\ncli.main(['--help'], standalone_mode=False)",
        "from parentage.cli import cli\ncli.main(['verify', '--help'], standalone_mode=False)",
        "from parentage.cli import cli\ncli.main(['export', '--help'], standalone_mode=False)",
        (
            "from parentage.cli import cli\n"
            "cli.main(['show', 'tests/vectors/honest-linear/release'], standalone_mode=False)"
        ),
    ],
)
def test_help_and_show_import_nothing_heavy(code: str) -> None:
    assert not modules_after(code) & HEAVY


def test_integrity_needs_no_torch() -> None:
    found = modules_after(
        "from pathlib import Path\nimport parentage as p\n"
        "case = Path('tests/vectors/honest-linear')\n"
        "trust = p.TrustedKeys((p.PublicKey.load(case / 'release.pub'),))\n"
        "report = p.verify_release(case / 'release', trust=trust, demands=p.Demands(level='integrity'))\n"
        "assert report.verified"
    )

    assert not found & {"torch", "numpy", "sigstore"}


def test_the_command_imports_only_what_a_key_needs() -> None:
    found = modules_after(
        "from parentage.cli import cli\ncase = 'tests/vectors/honest-linear'\n"
        "words = ['verify', f'{case}/release', '--key', f'{case}/release.pub', '--level', 'integrity']\n"
        "assert cli.main(words, standalone_mode=False) == 0"
    )

    assert "cryptography" in found
    assert not found & (UNUSED | HEAVY - {"cryptography", "blake3"})


def test_provenance_is_exported_without_torch_and_cyclonedx() -> None:
    found = modules_after(
        "from pathlib import Path\nimport parentage as p\n"
        "case = Path('tests/vectors/honest-linear')\n"
        "trust = p.TrustedKeys((p.PublicKey.load(case / 'release.pub'),))\n"
        "report, document = p.export_release(case / 'release', 'slsa', trust=trust)\n"
        "assert document"
    )

    assert not found & {"torch", "numpy", "sigstore", "cyclonedx", "packageurl"}


def test_without_torch_a_recompute_says_what_to_install(tmp_path: Path) -> None:
    """A real interpreter in which torch can't be found."""
    (tmp_path / "torch.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    )
    case = ROOT / "tests" / "vectors" / "honest-linear"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "parentage",
            "verify",
            case / "release",
            "--key",
            case / "release.pub",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )

    assert done.returncode == 4, done.stderr
    assert "pip install 'parentage[recompute]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_public_names_exist_and_are_documented() -> None:
    for name in parentage.__all__:
        assert getattr(parentage, name).__doc__
    assert set(parentage.__all__) <= set(dir(parentage))
    with pytest.raises(AttributeError, match="no attribute"):
        parentage.nonsense  # noqa: B018
