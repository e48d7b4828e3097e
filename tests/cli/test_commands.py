"""The commands as a user meets them: in order, with --json, with mistakes, with a prompt."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import Run, ok
from worlds import World, command

from parentage.cli import _COMMANDS

RECIPE = """
version: "0.1"
parents: [{id: a, uri: "pkg:huggingface/org/a@0000"}, {id: b}]
steps:
  - id: merge
    op: weighted_sum/v1
    inputs: [a, b]
    params: {weights: [0.6, 0.4], normalize: true}
    arithmetic: {profile: parentage-1, store: BF16}
"""


@pytest.fixture
def place(world: World) -> Path:
    (world.root / "recipe.yaml").write_text(RECIPE)
    return world.root


def test_the_whole_way(run: Run, place: Path) -> None:
    parents = ["--parent", f"a={place / 'a'}", "--parent", f"b={place / 'b'}"]
    assert "key sha256" in ok(run("keygen", "-o", place / "r.key", "--no-passphrase"))
    assert "next" in ok(run("merge", place / "recipe.yaml", "-o", place / "out", *parents))
    assert "signed" in ok(run("sign", place / "out", "--key", place / "r.key"))
    shown = ok(run("show", place / "out"))
    assert "step     merge: weighted_sum/v1(a, b)" in shown
    assert "nothing here is verified" in shown
    verified = ok(
        run("verify", place / "out", "--key", place / "r.pub", "--parent", place / "a",
            "--parent", f"b={place / 'b'}", "--device", "cpu")
    )  # fmt: skip
    assert verified.startswith("VERIFIED")
    assert "rung A on 5 of 5 tensors" in verified
    assert "not checked" in verified


def test_the_whole_way_in_json(run: Run, place: Path) -> None:
    parents = ["--parent", f"a={place / 'a'}", "--parent", f"b={place / 'b'}"]

    def document(*arguments: object) -> Any:
        return json.loads(ok(run(*arguments, "--json")))

    key = document("keygen", "-o", place / "r.key", "--no-passphrase")
    lineage = document(
        "merge", place / "recipe.yaml", "-o", place / "out", *parents, "--key", place / "r.key"
    )
    assert document("show", place / "out")["claims"][1]["predicate"] == lineage
    report = document("verify", place / "out", "--key", place / "r.pub", *parents)
    assert report["signer"]["keySha256"] == key["keySha256"]
    assert report["root"] == lineage["weights"]["root"]
    declared = document("declare", place / "out", "--recipe", place / "recipe.yaml", *parents)
    assert declared["weights"] == lineage["weights"]
    signed = document("sign", place / "out", "--key", place / "r.key")
    assert signed["root"] == lineage["weights"]["root"]


def test_declare_from_mergekit(run: Run, place: Path) -> None:
    (place / "m.yml").write_text(
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 0.6}}\n"
        "- {model: b, parameters: {weight: 0.4}}\n"
    )
    code, out, err = run("declare", place / "base", "--mergekit", place / "m.yml",
                         "--parent", f"a={place / 'a'}", "--parent", f"b={place / 'b'}")  # fmt: skip

    assert code == 0
    assert "warning: no dtype" in err
    assert "declared 5 tensors" in out


def test_one_command_may_not_be_two(run: Run, place: Path) -> None:
    assert run("declare", place / "a", "--observed", "--recipe", place / "recipe.yaml")[0] == 2
    assert run("declare", place / "a")[0] == 2


MISTAKES: list[tuple[list[str], int, str]] = [
    (["verify", "nowhere", "--key", "{r}/r.pub"], 2, "no such file"),
    (["verify", "{r}/a"], 2, "--key"),
    (["verify", "{r}/a", "--key", "{r}/none.pub"], 2, "does not exist"),
    (["verify", "{r}/a", "--key", "{r}/recipe.yaml"], 2, "not a public key"),
    (["verify", "{r}/a", "--key", "{r}/r.pub", "--rung", "Z"], 2, "--rung"),
    (["verify", "{r}/a", "--key", "{r}/r.pub"], 3, "no signature here"),
    (["verify", "{r}/out", "--key", "{r}/r.pub", "--parent", "nowhere"], 2, "no such file"),
    (["verify", "{r}/out", "--key", "{r}/r.pub", "--device", "cuda"], 4, "CUDA"),
    (["sign", "{r}/a", "--key", "{r}/r.key"], 2, "parentage declare"),
    (["sign", "{r}/a", "--key", "{r}/r.pub"], 2, "not a private key"),
    (["show", "{r}/a"], 3, "no claims here"),
    (["show", "nowhere"], 2, "no such file"),
    (["merge", "{r}/recipe.yaml", "-o", "{r}/new"], 4, "--parent a=FOLDER"),
    (["merge", "{r}/recipe.yaml", "-o", "{r}/a", "--parent", "a={r}/a"], 2, "exists already"),
    (["merge", "{r}/recipe.yaml", "-o", "{r}/new", "--parent", "a"], 2, "ID=PATH"),
    (["declare", "{r}/a", "--recipe", "{r}/recipe.yaml", "--parent", "c={r}/a"], 2, "not in the recipe"),
    (["keygen", "-o", "{r}/r.key", "--no-passphrase"], 2, "exists already"),
    (["nonsense"], 2, "No such command"),
    (["verify", "--nonsense"], 2, "No such option"),
]  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=lambda v: str(v)[:40])
def test_mistakes_say_what_where_and_next(
    run: Run, place: Path, arguments: list[str], code: int, message: str, as_json: bool
) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    run("keygen", "-o", place / "r.key", "--no-passphrase")
    run("merge", place / "recipe.yaml", "-o", place / "out", "--parent", f"a={place / 'a'}",
        "--parent", f"b={place / 'b'}", "--key", place / "r.key")  # fmt: skip
    given = [argument.replace("{r}", str(place)) for argument in arguments]
    found, out, err = run(*given, *(["--json"] if as_json else []))

    assert found == code
    assert message in out + err
    if as_json:
        document = json.loads(out)
        assert document["exitCode"] == code
        assert document["schema"].startswith("https://parentage.dev/")


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_has_an_example_and_json(run: Run, name: str) -> None:
    text = ok(run(name, "--help"))

    assert "Example" in text
    assert f"parentage {name}" in text
    assert "--json" in text


def test_help_lists_commands_and_exit_codes(run: Run) -> None:
    text = ok(run("--help"))

    assert all(name in text for name in _COMMANDS)
    assert "0 verified, 1 refuted, 2 usage, 3 unsigned, 4 unproven" in text
    assert ok(run("--version")).strip().endswith("0.1.0")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    done = command(env={"_PARENTAGE_COMPLETE": f"{shell}_source"})

    assert done.returncode == 0
    assert "parentage" in done.stdout


def test_completion_of_a_command() -> None:
    done = command(
        env={
            "_PARENTAGE_COMPLETE": "bash_complete",
            "COMP_WORDS": "parentage ver",
            "COMP_CWORD": "1",
        }
    )

    assert "verify" in done.stdout


def on_a_terminal(arguments: list[str], typed: list[str]) -> tuple[int, str]:
    """Run a command on a real pseudo-terminal and answer its prompts."""
    child, descriptor = pty.fork()
    if child == 0:  # pragma: no cover  (another process)
        os.execv(sys.executable, [sys.executable, "-m", "parentage", *arguments])  # noqa: S606
    shown = b""
    answers = iter(typed)
    while True:
        try:
            data = os.read(descriptor, 1024)
        except OSError:
            break
        if not data:
            break
        shown += data
        if shown.rstrip().endswith(b":") and data.rstrip().endswith(b":"):
            os.write(descriptor, next(answers).encode() + b"\n")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_a_passphrase_is_asked_for_and_not_shown(tmp_path: Path, world: World) -> None:
    key = tmp_path / "r.key"
    code, shown = on_a_terminal(["keygen", "-o", str(key)], ["tr0ub4dor", "tr0ub4dor"])
    assert code == 0, shown
    assert "tr0ub4dor" not in shown
    assert "ENCRYPTED" in key.read_text()

    assert command("declare", world.root / "a", "--observed").returncode == 0
    code, shown = on_a_terminal(["sign", str(world.root / "a"), "--key", str(key)], ["wrong-one"])
    assert code == 2
    assert "wrong passphrase" in shown
    code, shown = on_a_terminal(["sign", str(world.root / "a"), "--key", str(key)], ["tr0ub4dor"])
    assert code == 0, shown
    assert "tr0ub4dor" not in shown


def test_a_passphrase_from_environment_or_file(tmp_path: Path, world: World) -> None:
    (tmp_path / "pass").write_text("tr0ub4dor\n")
    secret = {"PARENTAGE_PASSPHRASE": "tr0ub4dor"}
    assert command("keygen", "-o", tmp_path / "r.key", env=secret).returncode == 0
    assert command("declare", world.root / "a", "--observed").returncode == 0
    done = command(
        "sign",
        world.root / "a",
        "--key",
        tmp_path / "r.key",
        "--passphrase-file",
        tmp_path / "pass",
    )

    assert done.returncode == 0, done.stderr
    assert "tr0ub4dor" not in done.stdout + done.stderr


def test_without_a_terminal_a_prompt_is_an_error_not_a_wait(tmp_path: Path) -> None:
    done = command("keygen", "-o", tmp_path / "r.key", stdin=subprocess.DEVNULL)

    assert done.returncode == 2
    assert "PARENTAGE_PASSPHRASE" in done.stderr
    assert not (tmp_path / "r.key").exists()


def test_progress_is_drawn_on_a_terminal_only(world: World, tmp_path: Path) -> None:
    code, shown = on_a_terminal(["declare", str(world.root / "a"), "--observed"], [])
    assert code == 0
    assert "GB/s" in shown
    assert "left" in shown
    assert "GB/s" not in command("declare", world.root / "a", "--observed").stderr


def test_a_verdict_is_coloured_on_a_terminal_only(world: World) -> None:
    arguments = [
        "verify",
        str(world.merge()),
        "--key",
        str(world.root / "r.pub"),
        "--level",
        "integrity",
    ]
    (world.root / "r.pub").write_bytes(world.key.public.pem)

    assert "\x1b[32m\x1b[1mVERIFIED\x1b[0m" in on_a_terminal(arguments, [])[1]
    assert command(*arguments).stdout.startswith("VERIFIED  ")
