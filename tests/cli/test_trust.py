"""A trust policy as a user meets it: written, checked, explained, and verified with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from worlds import World, command

from parentage import KeySigner, PrivateKey
from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS
from parentage.manifest.strict_yaml import parse_yaml

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
BY = "https://github.com/acme/rel/.github/workflows/r.yml@refs/tags/* by https://token.actions.githubusercontent.com"


class Gate:
    """A release, keys of publisher, lab and stranger, and policies."""

    def __init__(self, world: World) -> None:
        self.world, self.root = world, world.root
        self.keys = {
            "release": world.key,
            "lab": PrivateKey.generate(),
            "stranger": PrivateKey.generate(),
        }
        for name, key in self.keys.items():
            (self.root / f"{name}.pub").write_bytes(key.public.pem)
        self.release = world.merge()

    def init(self, *arguments: object, code: int = 0) -> Any:
        done = command("trust", "init", "-o", self.root / "trust.yaml", *arguments, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def verify(self, *arguments: object) -> Any:
        done = command("verify", self.release, "--policy", self.root / "trust.yaml", "--device", "cpu",
                       "--parent", self.root / "a", "--parent", self.root / "b", "--json", *arguments)  # fmt: skip
        return json.loads(done.stdout)

    def sign(self, payload: bytes, name: str) -> None:
        with (self.release / CLAIMS).open("ab") as file:
            file.write(bundle.build(payload, KeySigner(self.keys[name])) + b"\n")

    def payloads(self) -> list[bytes]:
        files = [self.release / "model.sig", self.release / CLAIMS]
        return [bundle.parse(file.read_bytes().split(b"\n")[0], "t").payload for file in files]


@pytest.fixture
def gate(world: World) -> Gate:
    return Gate(world)


def test_written_checked_and_verified_with(gate: Gate) -> None:
    written = gate.init("--publisher", gate.root / "release.pub", "--verifier", gate.root / "lab.pub",
                        "--witness", BY)  # fmt: skip
    document = parse_yaml((gate.root / "trust.yaml").read_bytes(), where="t")
    jsonschema.validate(document, json.loads((SCHEMAS / "policy-v0.1.json").read_text()))
    checked = json.loads(command("trust", "check", gate.root / "trust.yaml", "--json").stdout)

    assert checked == written
    assert [member["role"] for member in checked["members"]] == ["publisher", "verifier", "witness"]
    assert any("recovery" in text for text in checked["loose"])
    report = gate.verify()
    assert (report["verdict"], report["exitCode"]) == ("verified", 0)
    assert report["policySha256"] == checked["policySha256"]
    text = command(
        "verify", gate.release, "--policy", gate.root / "trust.yaml", "--level", "integrity"
    ).stdout
    assert f"sha256 {checked['policySha256']}" in text


def test_a_verifiers_signature_is_not_a_publishers(gate: Gate) -> None:
    gate.init("--publisher", gate.root / "stranger.pub", "--verifier", gate.root / "release.pub")
    report = gate.verify()

    assert (report["verdict"], report["findings"][0]["code"]) == ("refuted", "signature")
    assert "no publisher in this policy" in report["findings"][0]["message"]


def test_two_publishers_must_sign_the_same_bytes(gate: Gate) -> None:
    gate.init("--publisher", gate.root / "release.pub", "--publisher", gate.root / "lab.pub",
              "--threshold", "publisher=2")  # fmt: skip
    report = gate.verify()
    assert (report["verdict"], report["exitCode"]) == ("denied", 5)
    assert [f["code"] for f in report["findings"] if f["denies"]] == ["too-few-signers"] * 2

    for payload in gate.payloads():
        gate.sign(payload, "release")  # the same person again
        gate.sign(payload, "stranger")
        gate.sign(payload + b" ", "lab")  # other bytes
    assert gate.verify()["verdict"] == "denied"

    for payload in gate.payloads():
        gate.sign(payload, "lab")
    assert gate.verify()["verdict"] == "verified"


def test_what_is_demanded_and_absent_is_denied(gate: Gate) -> None:
    gate.init("--publisher", gate.root / "release.pub", "--verifier", gate.root / "lab.pub")
    text = (gate.root / "trust.yaml").read_text()
    (gate.root / "trust.yaml").write_text(text.replace("[oms, lineage]", "[{recompute: {}}]"))
    report = gate.verify()

    assert (report["verdict"], report["exitCode"]) == ("denied", 5)
    assert report["findings"][0]["code"] == "requirement-not-met"
    assert report["findings"][0]["denies"]
    done = command(
        "verify", gate.release, "--policy", gate.root / "trust.yaml", "--level", "integrity"
    )
    assert done.returncode == 5
    assert done.stdout.startswith("DENIED")


def test_explained_claim_by_claim(gate: Gate) -> None:
    gate.init(
        "--publisher",
        gate.root / "release.pub",
        "--verifier",
        gate.root / "lab.pub",
        "--witness",
        BY,
    )
    gate.sign(gate.payloads()[1], "lab")
    gate.sign(gate.payloads()[1], "stranger")
    with (gate.release / CLAIMS).open("ab") as file:
        file.write(b"\x1b[31mjunk\n")
    done = command("trust", "explain", gate.root / "trust.yaml", gate.release, "--json")
    claims = json.loads(done.stdout)["claims"]

    assert [claim["where"] for claim in claims] == [
        "model.sig",
        *(f"{CLAIMS}:{n}" for n in (1, 2, 3, 4)),
    ]
    assert [claim["roles"] for claim in claims] == [["parent", "publisher"]] * 2 + [
        ["verifier"],
        [],
        [],
    ]
    assert any("publisher: key" in why and "another key" in why for why in claims[2]["why"])
    assert "not trusted" in claims[3]["why"][0]
    shown = command("trust", "explain", gate.root / "trust.yaml", gate.release)
    assert "role      verifier" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_mistakes(gate: Gate) -> None:
    gate.init("--publisher", gate.root / "release.pub")
    for arguments, message in (
        (["trust", "init", "-o", gate.root / "trust.yaml", "--publisher", gate.root / "lab.pub"], "exists already"),
        (["trust", "init", "-o", gate.root / "new.yaml"], "--publisher"),
        (["trust", "init", "-o", gate.root / "new.yaml", "--publisher", "nowhere.pub"], "can't read"),
        (["trust", "init", "-o", gate.root / "new.yaml", "--publisher", "*@* by https://a"], "leaves open"),
        (["trust", "init", "-o", gate.root / "new.yaml", "--publisher", "0" * 64, "--threshold", "boss=1"], "ROLE=N"),
        (["trust", "init", "-o", gate.root / "new.yaml", "--publisher", "0" * 64, "--threshold", "publisher=2"], "nobody can reach"),
        (["trust", "check", gate.root / "recipe.yaml"], "does not exist"),
        (["trust", "check", gate.root / "lab.pub"], "policy"),
        (["trust", "explain", gate.root / "trust.yaml", gate.root / "a"], "no claims here"),
        (["verify", gate.release], "--policy"),
        (["verify", gate.release, "--policy", gate.root / "trust.yaml", "--key", gate.root / "lab.pub"], "names no such key"),
    ):  # fmt: skip
        done = command(*arguments)
        assert done.returncode in (2, 3), done
        assert message in done.stderr, done.stderr
    assert not (gate.root / "new.yaml").exists()


def test_members_named_in_every_way(gate: Gate) -> None:
    fingerprint = gate.keys["release"].public.fingerprint
    checked = gate.init(
        "--publisher", fingerprint, "--recovery", "me@acme.example by https://accounts.acme.example"
    )

    assert any("give it with --key" in text for text in checked["loose"])
    assert gate.verify()["error"]["code"] == "policy"
    assert gate.verify("--key", gate.root / "release.pub")["verdict"] == "verified"
