"""Gates as a CI job meets them: written, explained, asked, and shown in the platforms' formats."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commandline import Run, ok
from worlds import World

from parentage import PrivateKey

CARD = "---\nbase_model: [elsewhere]\nbase_model_relation: merge\nlicense: mit\n---\n# merged\n"

HOSTILE = "x \x1b[2J \u202e ##[add-mask]y ::error::z [l](http:) <script>a"


@pytest.fixture
def place(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release with its card, and a gate with a lock."""
    monkeypatch.chdir(world.root)
    Path("release.pub").write_bytes(world.key.public.pem)
    Path("stranger.pub").write_bytes(PrivateKey.generate().public.pem)
    world.merge()
    Path("merged/README.md").write_text(CARD)
    world.declare("merged", ["a", "b"], [])
    ok(run("trust", "init", "-o", "trust.yaml", "--publisher", "release.pub"))
    written = ok(
        run(
            "gate",
            "init",
            "-o",
            "gate.yaml",
            "--trust",
            "trust.yaml",
            "--lock",
            "parentage.lock",
            "--json",
        )
    )
    assert json.loads(written)["gate"] == "gate.yaml"
    return world.root


def test_a_download_is_let_through_and_remembered(run: Run, place: Path) -> None:
    code, out, _ = run("gate", "download", "merged", "--gate", "gate.yaml", "--json")
    document = json.loads(out)
    assert (code, document["verdict"], document["gate"]) == (0, "verified", "download")
    assert document["report"]["lock"]["state"] == "first use"

    again = json.loads(run("gate", "download", "merged", "--gate", "gate.yaml", "--json")[1])
    assert again["report"]["lock"]["state"] == "as remembered"
    Path("merged/model.sig").unlink()
    code, out, _ = run("gate", "download", "merged", "--gate", "gate.yaml", "--json")
    codes = {one["code"] for one in json.loads(out)["reasons"] if one["verdict"] == "denied"}
    assert (code, codes) == (5, {"unsigned", "signature-vanished"})


def test_what_is_refused_is_not_remembered(run: Run, place: Path) -> None:
    Path("gate.yaml").write_text(
        Path("gate.yaml")
        .read_text()
        .replace("status: any\n  licences", "status: current\n  licences")
    )
    assert run("gate", "download", "merged", "--gate", "gate.yaml")[0] == 5

    assert not Path("parentage.lock").exists()


def test_a_status_that_is_demanded_and_there(run: Run, place: Path, world: World) -> None:
    Path("gate.yaml").write_text(
        Path("gate.yaml")
        .read_text()
        .replace("status: any\n  licences", "status: current\n  licences")
    )
    Path("release.key").write_bytes(world.key.to_pem(None))
    Path("release.key").chmod(0o600)
    ok(run("affirm", "merged", "--key", "release.key"))
    document = json.loads(ok(run("gate", "download", "merged", "--gate", "gate.yaml", "--json")))

    assert document["report"]["standing"]["state"] == "current"


def test_whoever_is_trusted_must_be_at_hand(run: Run, place: Path) -> None:
    Path("trust.yaml").write_text(
        f'version: "0.1"\nroles: {{publisher: {{any: [{{keySha256: "{"0" * 64}"}}]}}}}\n'
    )
    code, out, _ = run("gate", "download", "merged", "--gate", "gate.yaml", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "policy")
    Path("trust.yaml").write_text('version: "0.1"\nroles: {publisher: {any: []}}\n')
    assert run("gate", "download", "merged", "--gate", "gate.yaml", "--exit-zero")[0] == 2


def test_an_upload_says_all_reasons_in_every_format(run: Run, place: Path) -> None:
    names = ("json", "sarif", "junit", "markdown", "gitlab", "human")
    outputs = [f"--output={name}=out.{name}" for name in names]
    code, out, _ = run(
        "gate",
        "upload",
        "merged",
        "--gate",
        "gate.yaml",
        "--device",
        "cpu",
        "--format",
        "github",
        *outputs,
    )

    assert code == 1
    reasons = {
        one["code"]: one
        for one in json.loads(Path("out.json").read_text())["reasons"]
        if one["verdict"] != "verified"
    }
    assert reasons["recipe-missing"]["verdict"] == "denied"
    assert reasons["C02"]["verdict"] == "refuted"
    for name in names:
        text = Path(f"out.{name}").read_text()
        assert all(one in text for one in reasons), name
    # the card's own line, named as the repository names it
    assert "::error file=merged/README.md,line=2,title=parentage gate upload%3A C02::" in out
    results = json.loads(Path("out.sarif").read_text())["runs"][0]
    assert {"merged/README.md"} == {
        place["physicalLocation"]["artifactLocation"]["uri"]
        for result in results["results"]
        for place in result["locations"]
    }
    helps = {rule["id"]: rule["help"]["text"] for rule in results["tool"]["driver"]["rules"]}
    assert helps["recipe-missing"].startswith(
        "The lineage does not say where the weights come from"
    )
    assert "other parents" in helps["C02"]
    assert run(
        "gate",
        "upload",
        "merged",
        "--gate",
        "gate.yaml",
        "--device",
        "cpu",
        "--exit-zero",
        "--format",
        "quiet",
    )[:2] == (0, "")


def test_names_of_files_and_sentences_of_cards_act_nowhere(run: Run, place: Path) -> None:
    """What a stranger wrote, through a whole gate, in every format on standard output."""
    Path("merged", HOSTILE).write_bytes(b"1")
    Path("merged/README.md").write_text(
        f"---\nbase_model: ['{HOSTILE}']\nlicense: 'mit {HOSTILE}'\n---\n"
    )
    shown = {
        name: run(
            "gate", "upload", "merged", "--gate", "gate.yaml", "--device", "cpu", "--format", name
        )[1]
        for name in ("human", "json", "sarif", "junit", "markdown", "github", "gitlab")
    }

    for name, text in shown.items():
        assert "\x1b" not in text, name
        assert "\u202e" not in text, name
        assert "file-unsigned" in text, name
    assert not [
        line
        for line in shown["human"].split("\n")
        if line.lstrip().startswith("::") or "##[" in line
    ]
    assert all(line.startswith(("::error ", "::warning ")) for line in shown["github"].splitlines())
    assert "<script" not in shown["junit"]
    assert not re.search(r"(?<!\\)<script", shown["markdown"])
    results = json.loads(shown["sarif"])["runs"][0]["results"]
    assert not any("](http" in result["message"]["text"] for result in results)
    assert json.loads(shown["json"])["verdict"] == "refuted"
    assert json.loads(shown["gitlab"])


def test_explained(run: Run, place: Path) -> None:
    text = ok(run("gate", "explain", "gate.yaml"))
    assert "upload: signature, files, tensors; every step recomputed to rung A" in text
    assert 'pickles: "fail"' in text
    document = json.loads(ok(run("gate", "explain", "gate.yaml", "--json")))
    assert {one["code"] for one in document["checks"]} == {
        one["code"] for one in document["gates"]["upload"]["checks"]
    }
    assert next(o for o in document["gates"]["upload"]["checks"] if o["code"] == "file-denied")[
        "value"
    ] == ["*.exe"]
    every = ok(run("gate", "explain"))
    assert len(every.splitlines()) == len(document["checks"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gate", "init", "-o", "gate.yaml", "--trust", "trust.yaml"], "exists already"),
        (["gate", "init", "-o", "new.yaml", "--trust", "release.pub"], "policy"),
        (["gate", "upload", "merged"], "--gate"),
        (["gate", "upload", "nowhere", "--gate", "gate.yaml"], "no such file"),
        (["gate", "upload", "merged", "--gate", "trust.yaml"], "not the rules of a gate"),
        (
            ["gate", "upload", "merged", "--gate", "gate.yaml", "--key", "stranger.pub"],
            "names no such key",
        ),
        (["gate", "sideload", "merged"], "No such command"),
    ],
)
def test_mistakes(run: Run, place: Path, arguments: list[str], said: str) -> None:
    code, out, _ = run(*arguments, "--json")

    assert code == 2
    assert said in json.loads(out)["error"]["message"] + json.loads(out)["error"]["found"]
    assert not Path("new.yaml").exists()


@pytest.mark.parametrize("name", ["init", "explain", "upload", "download"])
def test_help_has_an_example(run: Run, name: str) -> None:
    assert f"parentage gate {name}" in ok(run("gate", name, "--help"))
