"""The hooks of pre-commit: their manifest, their entries run by pre-commit itself, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cards import TRUE, card, draft, sha256
from commandline import Run

from parentage.verify.cards import lfs

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "vectors" / "honest-linear" / "release"
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())


@pytest.fixture
def rio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A golden release in a git repository, at `rio`, from whose root commands run."""
    shutil.copytree(GOLDEN, tmp_path / "rio")
    monkeypatch.chdir(tmp_path)
    for name, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    git("init", "-q")
    return tmp_path / "rio"


def git(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(["git", *arguments], input=data, capture_output=True, check=True).stdout


def stage(name: str, data: bytes) -> None:
    """Put bytes into git's index under a name, as git-lfs's filter does with a pointer."""
    oid = git("hash-object", "-w", "--stdin", data=data).decode().strip()
    git("update-index", "--add", "--cacheinfo", f"100644,{oid},{name}")


def pointer(data: bytes) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(data)}\nsize {len(data)}\n".encode()


def errors(out: str) -> list[str]:
    report = json.loads(out)
    return [
        p["code"] for one in report["releases"] for p in one["problems"] if p["level"] == "error"
    ]


def test_the_manifest_is_one_by_pre_commits_own_schema() -> None:
    from pre_commit.clientlib import load_manifest

    assert [hook["id"] for hook in load_manifest(ROOT / ".pre-commit-hooks.yaml")] == [
        "parentage-card",
        "parentage-check",
    ]


def test_pre_commit_runs_the_entries(rio: Path) -> None:
    """By pre-commit itself, with the command of this environment instead of one that it installs."""
    hooks = [
        {
            **hook,
            "language": "system",
            "entry": hook["entry"].replace("parentage ", f"{sys.executable} -m parentage ", 1),
        }
        for hook in HOOKS
    ]
    config = {"repos": [{"repo": "local", "hooks": hooks}]}
    Path(".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    (rio / "README.md").write_text("---\nbase_model_relation: merge\n---\nIt was post-trained.\n")
    Path("README.md").write_text("# a repository\n")
    git("add", "-A")

    def run_hook(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", name, "--all-files"],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PRE_COMMIT_HOME": str(rio.parent / ".cache"), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    refused, fine = run_hook("parentage-card"), run_hook("parentage-check")

    assert refused.returncode == fine.returncode == 1
    assert "[C04] (rio/README.md:4)" in refused.stdout
    (rio / "README.md").unlink()
    git("add", "-A")
    assert "Failed" in run_hook("parentage-card").stdout  # C01: no card
    (rio / "README.md").write_text("---\nbase_model: [a/b, c/d]\nbase_model_relation: merge\n---\n")
    git("add", "-A")
    for hook in HOOKS:
        passed = run_hook(hook["id"])
        assert passed.returncode == 0, passed.stdout


@pytest.mark.parametrize(
    ("hook", "name", "meant"),
    [
        ("parentage-card", "README.md", True),
        ("parentage-card", "a/b/README.md", True),
        ("parentage-card", "a/.parentage/claims.jsonl", True),
        ("parentage-card", "model.safetensors", False),
        ("parentage-card", "notes.md", False),
        ("parentage-check", "a/model-00001-of-00002.safetensors", True),
        ("parentage-check", "a/.eval_results/x.yaml", True),
        ("parentage-check", "train.py", False),
    ],
)
def test_which_files_a_hook_is_called_for(hook: str, name: str, meant: bool) -> None:
    (found,) = [one for one in HOOKS if one["id"] == hook]

    assert (re.search(found["files"], name) is not None) == meant


def test_weights_that_are_newer_may_be_others(run: Run, rio: Path) -> None:
    table = (rio / ".parentage" / "tensors.jsonl").stat().st_mtime
    os.utime(rio / "model.safetensors", (table + 60, table + 60))
    (rio / "README.md").write_text("---\nbase_model: [a/b, c/d]\nbase_model_relation: merge\n---\n")

    code, out, _ = run("staged", "rio/model.safetensors", "--json")
    assert (code, errors(out)) == (1, ["weights-newer"])

    os.utime(rio / "model.safetensors", (table + 1, table + 1))
    assert run("staged", "rio/model.safetensors")[0] == 0


def test_a_staged_pointer_says_it_exactly(run: Run, rio: Path) -> None:
    """Times say nothing after a checkout; the digest in the pointer does, and no byte is hashed."""
    data = (rio / "model.safetensors").read_bytes()
    table = (rio / ".parentage" / "tensors.jsonl").stat().st_mtime
    (rio / "README.md").write_text("---\nbase_model: [a/b, c/d]\nbase_model_relation: merge\n---\n")

    os.utime(rio / "model.safetensors", (table + 60, table + 60))
    stage("rio/model.safetensors", pointer(data))
    assert run("staged", "rio/model.safetensors")[0] == 0

    os.utime(rio / "model.safetensors", (table - 60, table - 60))
    stage("rio/model.safetensors", pointer(data + b"x"))
    code, out, _ = run("staged", "rio/model.safetensors", "--json")
    assert (code, errors(out)) == (1, ["weights-staged"])


def test_a_pointer_in_place_of_the_weights(run: Run, rio: Path) -> None:
    data = (rio / "model.safetensors").read_bytes()
    (rio / "README.md").write_text("---\nbase_model: [a/b, c/d]\nbase_model_relation: merge\n---\n")

    (rio / "model.safetensors").write_bytes(pointer(data))
    code, out, _ = run("staged", "rio/README.md")
    assert code == 0
    assert "git lfs pull" in out

    (rio / "model.safetensors").write_bytes(pointer(data + b"x"))
    code, out, _ = run("staged", "rio/README.md", "--json")
    assert (code, errors(out)) == (1, ["C09"])


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tensors.jsonl", b'"dtype":', b'"dtyp":'),
        ("claims.jsonl", b'"payload":"', b'"payload":"!'),
        ("draft.json", b"", b"{"),
        ("card.json", b"", b"{}"),
    ],
)
def test_files_that_break_their_form(
    run: Run, rio: Path, name: str, old: bytes, new: bytes
) -> None:
    path = rio / ".parentage" / name
    path.write_bytes(path.read_bytes().replace(old, new, 1) if path.exists() else new)

    code, out, _ = run("staged", f"rio/.parentage/{name}", "--json")

    codes = [p["code"] for one in json.loads(out)["releases"] for p in one["problems"]]
    assert code in {1, 3}
    assert "manifest-malformed" in codes


def test_a_broken_line_of_claims_is_passed_over_by_readers_and_told_here(
    run: Run, rio: Path
) -> None:
    path = rio / ".parentage" / "claims.jsonl"
    path.write_bytes(path.read_bytes() + b"not a bundle\n")

    _, out, _ = run("staged", "rio/.parentage/claims.jsonl", "--format", "github")

    assert "::warning file=rio/.parentage/claims.jsonl,line=2" in out


def test_no_release_is_no_pass(run: Run, tmp_path: Path) -> None:
    card(tmp_path, TRUE)

    assert run("staged", tmp_path / "README.md")[0] == 3
    code, out, err = run("staged", "--if-any", tmp_path / "README.md")
    assert (code, out) == (0, "")
    assert "none of 1 files belongs to a release" in err


def test_every_release_is_looked_at(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        card(draft(tmp_path / name), TRUE if name == "one" else "")

    code, out, _ = run(
        "staged", "--card", *(tmp_path / n / "README.md" for n in ("one", "two")), "--json"
    )
    report = json.loads(out)

    assert code == 1
    assert [one["verdict"] for one in report["releases"]] == ["verified", "refuted"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        pointer(b"x") + b"more\n",
        pointer(b"x").replace(b"sha256", b"md5"),
        pointer(b"x").replace(b"size 1", b"size 01"),
        pointer(b"x") + b"\n" * 1024,
    ],
)
def test_what_is_no_pointer(data: bytes) -> None:
    assert lfs.parse(data) is None
    assert lfs.parse(pointer(b"x")) == lfs.Pointer(sha256(b"x"), 1)


def test_no_git_is_no_pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lfs.staged(tmp_path, ["a"]) == {}
    monkeypatch.setenv("PATH", "")
    assert lfs.staged(tmp_path, ["a"]) == {}


def test_many_pointers_and_a_large_file(rio: Path) -> None:
    found: dict[str, Any] = {}
    for number in range(40):
        data = str(number).encode() * (number + 1)
        stage(f"rio/{number} ä.bin", pointer(data))
        found[f"{number} ä.bin"] = lfs.Pointer(sha256(data), len(data))
    stage("rio/large.bin", b"x" * 5_000)
    stage("rio/text.md", b"no pointer")

    assert lfs.staged(rio, [*found, "large.bin", "text.md", "absent.bin"]) == found


@pytest.mark.parametrize("kind", ["lineage/v0.1", "status/v0.1"])
def test_a_statement_that_breaks_its_schema_is_an_error(run: Run, rio: Path, kind: str) -> None:
    import base64

    path = rio / ".parentage" / "claims.jsonl"
    bundle = json.loads(path.read_bytes().split(b"\n")[0])
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload |= {"predicateType": f"https://parentage.dev/{kind}", "predicate": {"more": 1}}
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    path.write_bytes(path.read_bytes() + json.dumps(bundle).encode() + b"\n")

    code, out, _ = run("staged", "rio/.parentage/claims.jsonl", "--json")

    assert code == 1
    assert "manifest-malformed" in errors(out)


def test_a_table_that_takes_long_to_read_is_said_not_to_be_read(run: Run, tmp_path: Path) -> None:
    card(draft(tmp_path), TRUE)
    (tmp_path / ".parentage" / "tensors.jsonl").write_bytes(b'{"name":0}\n' * (1 << 20))

    code, out, _ = run("staged", tmp_path / "README.md", "--json")

    assert code == 0
    assert any("which is large" in text for text in json.loads(out)["releases"][0]["notChecked"])
