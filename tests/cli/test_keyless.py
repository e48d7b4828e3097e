"""Keyless signatures as a user meets them: signed, verified offline, trusted by a policy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sigstore_rig import ALICE, ISSUER, Rig
from worlds import MERGE, World, command

import parentage

PEER = Path(
    os.environ.get(
        "PARENTAGE_MODEL_SIGNING",
        Path(__file__).parents[2] / ".peers/model-signing/bin/model_signing",
    )
)
needs_peer = pytest.mark.skipif(
    not PEER.exists(), reason="model_signing is not installed (make peers)"
)


class Desk:
    """A merge that was declared and not yet signed, and what a keyless signer needs."""

    def __init__(self, world: World, rig: Rig) -> None:
        self.world, self.rig, self.root = world, rig, world.root
        parents = {name: self.root / name for name in ("a", "b")}
        self.release = self.root / "merged"
        parentage.merge(world.recipe(["a", "b"], [MERGE]), self.release, parents=parents)
        self.token, self.config = self.root / "token", self.root / "config.json"
        self.trusted_root = self.root / "trusted_root.json"
        self.token.write_text(rig.mint())
        self.config.write_bytes(rig.config(2))
        self.trusted_root.write_bytes(rig.root)

    def sign(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return command("sign", self.release, "--keyless", "--identity-token-file", self.token,
                       "--trust-config", self.config, *arguments)  # fmt: skip

    def verify(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return command("verify", self.release, *arguments, "--device", "cpu",
                       "--parent", self.root / "a", "--parent", self.root / "b")  # fmt: skip

    def by(self, identity: str = ALICE, issuer: str = ISSUER) -> list[object]:
        return ["--identity", identity, "--issuer", issuer, "--trusted-root", self.trusted_root]


@pytest.fixture
def desk(world: World, rig: Rig) -> Desk:
    return Desk(world, rig)


def test_signed_by_an_identity_and_verified_by_it(desk: Desk) -> None:
    signed = desk.sign()
    assert signed.returncode == 0, signed.stderr
    assert f"as {ALICE} by {ISSUER}" in signed.stdout
    assert f"--identity {ALICE} --issuer {ISSUER} --trusted-root {desk.config}" in signed.stdout

    verified = desk.verify(*desk.by())

    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert verified.stdout.startswith("VERIFIED")
    assert f"{ALICE} by {ISSUER}" in verified.stdout
    assert "its newest key came into service 0 days ago" in verified.stderr
    # the line that `sign` printed works as it stands: a trust config is a trusted root, too
    printed = signed.stdout.split("next")[1].split()[3:]
    assert desk.verify(*printed).returncode == 0


def test_somebody_else_is_refused(desk: Desk) -> None:
    assert desk.sign().returncode == 0
    for wrong in (desk.by("bob@example.com"), desk.by(issuer="https://accounts.elsewhere")):
        done = desk.verify(*wrong)
        assert done.returncode == 1
        assert "identity that is not trusted" in done.stdout + done.stderr
    # keys and identities do not stand in for each other
    (desk.root / "release.pub").write_bytes(desk.world.key.public.pem)
    assert desk.verify("--key", desk.root / "release.pub").returncode == 1
    both = desk.verify("--key", desk.root / "release.pub", *desk.by())
    assert both.returncode == 0, both.stderr


def test_a_tampered_entry_is_refused(desk: Desk) -> None:
    assert desk.sign().returncode == 0
    path = desk.release / "model.sig"
    document = json.loads(path.read_text())
    entry = document["verificationMaterial"]["tlogEntries"][0]
    entry["inclusionProof"]["treeSize"] = str(int(entry["inclusionProof"]["treeSize"]) + 1)
    path.write_text(json.dumps(document))

    done = desk.verify(*desk.by(), "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["verdict"] == "refuted" or "signature" in done.stdout


def test_json_names_the_signer(desk: Desk) -> None:
    done = desk.sign("--json")
    assert done.returncode == 0, done.stdout
    signer = json.loads(done.stdout)["signer"]
    assert (signer["method"], signer["identity"], signer["issuer"]) == ("keyless", ALICE, ISSUER)
    report = json.loads(desk.verify(*desk.by(), "--json").stdout)
    assert report["verdict"] == "verified"
    assert report["signer"]["identity"] == ALICE


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--identity", ALICE], 2, "issuer"),
        (["--issuer", ISSUER], 2, "go with --identity"),
        (["--max-root-age", "3d"], 2, "go with --identity"),
        (["--staging"], 2, "go with --identity"),
        (["--identity", ALICE, "--issuer", ISSUER, "--staging"], 1, "in service"),
        (["--identity", "alice@*", "--issuer", ISSUER], 2, "leaves open who"),
        (["--identity", ALICE, "--issuer", ISSUER, "--max-root-age", "soon"], 2, "length of time"),
        (["--identity", ALICE, "--issuer", ISSUER, "--trusted-root", "{token}"], 4, "trusted root"),
        (
            ["--identity", ALICE, "--issuer", ISSUER, "--trusted-root", "/absent"],
            2,
            "does not exist",
        ),
        (["--identity", ALICE, "--issuer", ISSUER, "--max-root-age", "1d"], 4, "too old"),
        (["--identity", ALICE, "--issuer", ISSUER], 1, "in service"),
    ],
)
def test_mistakes_of_verifying(desk: Desk, arguments: list[str], code: int, message: str) -> None:
    assert desk.sign().returncode == 0
    done = desk.verify(*(text.replace("{token}", str(desk.token)) for text in arguments))
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stdout + done.stderr
    assert desk.token.read_text() not in done.stdout + done.stderr


def test_mistakes_of_signing(desk: Desk) -> None:
    def fails(code: int, *arguments: object) -> str:
        done = command("sign", desk.release, *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert not (desk.release / "model.sig").exists()
        assert desk.token.read_text() not in done.stdout + done.stderr
        return done.stderr

    config: list[object] = ["--keyless", "--trust-config", desk.config]
    token: list[object] = ["--identity-token-file", desk.token]
    assert "goes with --keyless" in fails(2, *token)
    assert "goes with --keyless" in fails(2, "--staging")
    assert "two instances" in fails(2, *config, *token, "--staging")
    assert "has no key of yours" in fails(2, *config, *token, "--timestamp-url", "http://127.0.0.1")
    assert "--keyless" in fails(2)
    assert "not who should sign" in fails(
        4, *config, *token, "--identity", "bob@example.com", "--issuer", ISSUER
    )
    desk.rig.fault({"path": "/api/v1/timestamp", "status": 500})
    assert "timestamp authority refused" in fails(4, *config, *token)
    desk.rig.fault({"path": "/api/v2/log", "delay_ms": 20_000})
    assert "did not answer in time" in fails(4, *config, *token, "--patience", 1)
    desk.rig.fault()
    desk.token.write_text("secret words")
    assert "not an identity token" in fails(4, *config, *token)


def test_without_an_identity_nothing_waits(desk: Desk) -> None:
    names = ("GITHUB_", "ACTIONS_", "GITLAB_", "CIRCLE", "BUILDKITE", "GOOGLE_", "BROWSER")
    bare = dict.fromkeys((name for name in os.environ if name.startswith(names)), "")
    done = command("sign", desk.release, "--keyless", "--trust-config", desk.config,
                   env=bare, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "no identity here" in done.stderr


def test_a_policy_names_identities(desk: Desk) -> None:
    assert desk.sign().returncode == 0
    path = desk.root / "trust.yaml"
    made = command("trust", "init", "-o", path, "--publisher", f"{ALICE} by {ISSUER}")
    assert made.returncode == 0, made.stderr
    given: list[object] = ["--policy", path, "--trusted-root", desk.trusted_root]

    done = desk.verify(*given, "--json")
    assert json.loads(done.stdout)["signer"]["identity"] == ALICE, done.stdout
    assert done.returncode == 0, done.stdout
    explained = command("trust", "explain", path, desk.release, *given[2:])
    assert f"signed by {ALICE}" in explained.stdout, explained.stdout + explained.stderr

    path.write_text(path.read_text().replace(ALICE, "bob@example.com"))
    assert desk.verify(*given).returncode == 1
    for more in (["--identity", ALICE], ["--max-root-age", "1d"]):
        assert desk.verify(*given, *more).returncode == 2


def test_a_policy_bounds_the_age_of_the_root(desk: Desk) -> None:
    assert desk.sign().returncode == 0
    document = json.loads(desk.trusted_root.read_text())
    for kind in ("tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"):
        for each in document[kind]:
            each.get("publicKey", each)["validFor"]["start"] = "2020-01-01T00:00:00Z"
    desk.trusted_root.write_text(json.dumps(document))
    path = desk.root / "trust.yaml"
    rule = f"roles: {{publisher: {{any: [{{identity: {ALICE}, issuer: '{ISSUER}'}}]}}}}\n"
    given: list[object] = ["--policy", path, "--trusted-root", desk.trusted_root]

    path.write_text('version: "0.1"\n' + rule)
    assert desk.verify(*given).returncode == 0
    path.write_text('version: "0.1"\n' + rule + "trustRoot: {maxAge: 90d}\n")
    done = desk.verify(*given)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "too old" in done.stdout + done.stderr


def oms(desk: Desk, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return command("oms", *arguments, "--signature", desk.root / "peer.sig")


@pytest.mark.peer
@needs_peer
@pytest.mark.parametrize("version", [1, 2])
def test_the_peer_accepts_it(desk: Desk, version: int) -> None:
    desk.config.write_bytes(desk.rig.config(version))
    signed = oms(desk, "sign", desk.root / "a", "--keyless",
                 "--identity-token-file", desk.token, "--trust-config", desk.config)  # fmt: skip
    assert signed.returncode == 0, signed.stderr

    done = subprocess.run(
        [PEER, "verify", "sigstore", desk.root / "a", "--signature", desk.root / "peer.sig",
         "--identity", ALICE, "--identity_provider", ISSUER, "--trust_config", desk.config],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    ours = oms(desk, "verify", desk.root / "a", *desk.by())
    assert ours.returncode == 0, ours.stdout + ours.stderr


@pytest.mark.peer
@needs_peer
def test_the_peers_is_accepted(desk: Desk) -> None:
    done = subprocess.run(
        [PEER, "sign", "sigstore", desk.root / "a", "--signature", desk.root / "peer.sig",
         "--identity_token", desk.token.read_text(), "--trust_config", desk.config],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    verified = oms(desk, "verify", desk.root / "a", *desk.by())

    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert oms(desk, "verify", desk.root / "a", *desk.by("bob@example.com")).returncode == 1
