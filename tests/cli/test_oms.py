"""`parentage oms`, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from models import FILES, Desk
from worlds import command

SCHEMA = Path(__file__).parents[2] / "schemas" / "oms-v0.1.json"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A publisher with a model of three files."""
    return Desk(tmp_path)


def report(desk: Desk, *options: object) -> tuple[int, dict[str, Any]]:
    done = command("oms", "verify", desk.model, "--key", desk.public, "--json", *options)
    document = json.loads(done.stdout)
    if document["schema"].endswith("/oms/v0.1"):
        jsonschema.validate(document, json.loads(SCHEMA.read_bytes()))
    return done.returncode, document


def test_sign_and_verify(desk: Desk) -> None:
    done = command("oms", "sign", desk.model, "--key", desk.private, "--json")
    signed = json.loads(done.stdout)
    assert signed["coverage"]["files_signed"] == 3

    code, found = report(desk)
    assert (code, found["verdict"], found["exitCode"]) == (0, "verified", 0)
    assert found["root"] == signed["root"]
    assert found["coverage"]["bytes_signed"] == sum(map(len, FILES.values()))
    assert found["signer"]["keySha256"] == desk.key.public.fingerprint


def test_text(desk: Desk) -> None:
    done = command("oms", "sign", desk.model, "--key", desk.private)
    assert "covered" in done.stdout
    done = command("oms", "verify", desk.model, "--key", desk.public)

    assert done.stdout.startswith("VERIFIED")
    assert "covered   3 of 3 files" in done.stdout
    assert "not checked\n  - tensors, lineage and recipe" in done.stdout


def test_a_changed_file(desk: Desk) -> None:
    desk.sign()
    desk.write("config.json", b"[]")
    code, found = report(desk)

    assert (code, found["verdict"]) == (1, "refuted")
    assert [f["code"] for f in found["findings"]] == ["file-digest"]
    assert found["findings"][0]["where"] == "config.json"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--signature", "{r}/nowhere.sig"], 3, "no signature here"),
        (["--signature", "{r}/model"], 2, "is a directory"),
        (["--ignore-paths", "../x"], 2, "inside the model"),
        (["--key", "{r}/nowhere.pub"], 2, "does not exist"),
        (["--key", "{r}/k.key"], 2, "not a public key"),
    ],
)
def test_mistakes(desk: Desk, options: list[str], code: int, message: str) -> None:
    desk.sign()
    given = [option.replace("{r}", str(desk.root)) for option in options]
    done = command("oms", "verify", desk.model, "--key", desk.public, *given)
    assert done.returncode == code
    assert message in done.stdout + done.stderr

    found, document = report(desk, *given)
    assert found == document["exitCode"] == code


def test_no_such_model(desk: Desk) -> None:
    for arguments in (["sign", "--key", desk.private], ["verify", "--key", desk.public]):
        done = command("oms", arguments[0], desk.root / "nowhere", *arguments[1:])
        assert done.returncode == 2
        assert "no such file or folder" in done.stderr


def test_a_shard_size_needs_shards(desk: Desk) -> None:
    done = command("oms", "sign", desk.model, "--key", desk.private, "--shard-size", 5)

    assert done.returncode == 2
    assert "--method shards" in done.stderr


def test_text_from_outside_is_escaped(desk: Desk) -> None:
    desk.write("\x1b[31mred.txt", b"x")
    desk.sign()
    desk.write("\x1b[31mred.txt", b"y")
    done = command("oms", "verify", desk.model, "--key", desk.public)

    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred.txt" in done.stdout


def test_a_normal_release_says_its_coverage_too(tmp_path: Path) -> None:
    from worlds import World

    world = World(tmp_path)
    release = world.merge()
    (tmp_path / "k.pub").write_bytes(world.key.public.pem)
    for spoilt in (False, True):
        if spoilt:
            (release / "model.sig").write_bytes(b"{}")
        done = command("verify", release, "--key", tmp_path / "k.pub", "--level", "integrity")
        line = next(row for row in done.stdout.splitlines() if row.startswith("  covered"))
        assert ("no file was compared" in line) == spoilt
        assert spoilt or "3 of 3 files" in line
        assert spoilt or "unsigned 0 (0 bytes)" in line
