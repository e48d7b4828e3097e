"""A publisher's release at a gate: people with real keys, a policy, and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worlds import World, command

from parentage import KeySigner, PrivateKey
from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS

ROLES = """
version: "0.1"
roles:
  publisher: {any: [{key: owner.pub}]}
  successor: {any: [{key: heir.pub}]}
  verifier: {any: [{key: lab1.pub}, {key: lab2.pub}]}
  witness: {any: [{key: hub.pub}]}
  recovery: {any: [{key: safe1.pub}, {key: safe2.pub}, {key: safe3.pub}], threshold: 2}
"""
PEOPLE = ("owner", "heir", "lab1", "lab2", "hub", "safe1", "safe2", "safe3", "stranger")


class Gate:
    """A merge of a and b by `owner`, and everybody's keys and public keys beside it."""

    def __init__(self, world: World) -> None:
        self.world, self.root = world, world.root
        self.keys = {name: PrivateKey.generate() for name in PEOPLE}
        self.keys["owner"] = world.key
        for name, key in self.keys.items():
            (self.root / f"{name}.pub").write_bytes(key.public.pem)
            (self.root / f"{name}.key").write_bytes(key.to_pem(None))
        self.policy("")
        self.release = world.merge()

    def policy(self, rest: str) -> None:
        (self.root / "trust.yaml").write_text(ROLES + rest)

    def do(self, *arguments: object, code: int = 0) -> Any:
        """Run a command with --json; `{}` in an argument is the folder."""
        given = [str(a).replace("{}", str(self.root)) for a in arguments]
        done = command(*given, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def say(self, what: str, name: str, *arguments: object, code: int = 0) -> Any:
        """Say something about the release, believing this gate's policy."""
        return self.do(what, self.release, "--key", f"{{}}/{name}.key", "--policy", "{}/trust.yaml",
                       *arguments, code=code)  # fmt: skip

    def verify(self, *arguments: object, code: int = 0) -> Any:
        return self.do("verify", self.release, "--policy", "{}/trust.yaml", "--level", "integrity",
                       *arguments, code=code)  # fmt: skip

    def sign(self, payload: bytes, name: str) -> None:
        with (self.release / CLAIMS).open("ab") as file:
            file.write(bundle.build(payload, KeySigner(self.keys[name])) + b"\n")

    def lines(self) -> list[bytes]:
        return (self.release / CLAIMS).read_bytes().splitlines()

    def payloads(self) -> list[bytes]:
        """Return what is signed: model.sig's payload, then those of all lines."""
        data = [(self.release / "model.sig").read_bytes(), *self.lines()]
        return [bundle.parse(line, "t").payload for line in data]


def codes(report: Any) -> list[str]:
    """Return the codes of what denies."""
    return [found["code"] for found in report["findings"] if found["denies"]]


def write(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"\n".join(lines) + b"\n")
