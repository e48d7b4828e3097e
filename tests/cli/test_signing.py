"""Signing and trusting from the command line, with every kind of signer."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commandline import Run, ok
from pki import NOW, Pki, issue
from tsa import OpensslTsa
from worlds import World

import parentage

PEER = Path(
    os.environ.get(
        "PARENTAGE_MODEL_SIGNING",
        Path(__file__).parents[2] / ".peers/model-signing/bin/model_signing",
    )
)


@pytest.fixture
def release(world: World) -> Path:
    """Declared, and not signed."""
    parentage.declare(world.root / "base", world.recipe([], []), parents={})
    return world.root / "base"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki()
    for stem in ("root", "intermediate", "leaf"):
        getattr(made, stem).write(tmp_path, stem)
    return made


def test_a_certificate_signs_and_its_root_verifies(
    run: Run, release: Path, pki: Pki, tmp_path: Path
) -> None:
    signed = ok(
        run("sign", release, "--key", tmp_path / "leaf.key", "--certificate", tmp_path / "leaf.pem",
            "--chain", tmp_path / "intermediate.pem", "--json")
    )  # fmt: skip
    assert json.loads(signed)["signer"]["subject"] == "CN=publisher"

    integrity = ("verify", release, "--level", "integrity")
    report = json.loads(ok(run(*integrity, "--ca", tmp_path / "root.pem", "--json")))
    assert report["verdict"] == "verified"
    assert report["signer"]["method"] == "certificate"
    text = ok(run(*integrity, "--ca", tmp_path / "root.pem"))
    assert "certificate CN=publisher" in text

    Pki().root.write(tmp_path, "other")
    code, out, _ = run(*integrity, "--ca", tmp_path / "other.pem")
    assert code == 1
    assert "does not lead to a trusted root  [certificate]" in out
    code, _, err = run(*integrity)
    assert code == 2
    assert "whom to trust?" in err


def test_verifying_takes_keys_and_roots_together(
    run: Run, release: Path, pki: Pki, tmp_path: Path
) -> None:
    ok(run("keygen", "-o", tmp_path / "r.key", "--no-passphrase"))
    ok(run("sign", release, "--key", tmp_path / "r.key"))
    code, out, _ = run("verify", release, "--level", "integrity", "--ca", tmp_path / "root.pem",
                       "--key", tmp_path / "r.pub")  # fmt: skip
    assert code == 0
    assert f"key {parentage.PublicKey.load(tmp_path / 'r.pub').fingerprint[:16]}" in out


@pytest.mark.parametrize("algorithm", ["p256", "p384", "p521"])
def test_keys_that_sign_models(run: Run, release: Path, tmp_path: Path, algorithm: str) -> None:
    made = run("keygen", "-o", tmp_path / "r.key", "--no-passphrase", "--type", algorithm, "--json")
    assert json.loads(ok(made))["type"] == algorithm
    ok(run("sign", release, "--key", tmp_path / "r.key"))
    ok(run("verify", release, "--level", "integrity", "--key", tmp_path / "r.pub"))


@pytest.mark.parametrize("algorithm", ["ed25519", "ml-dsa-65"])
def test_keys_that_do_not(run: Run, release: Path, tmp_path: Path, algorithm: str) -> None:
    ok(run("keygen", "-o", tmp_path / "r.key", "--no-passphrase", "--type", algorithm))
    code, _, err = run("sign", release, "--key", tmp_path / "r.key")

    assert code == 2
    assert "takes ECDSA keys only" in err
    assert not (release / "model.sig").exists()


def test_the_chain_must_hold_before_anything_is_written(
    run: Run, release: Path, pki: Pki, tmp_path: Path
) -> None:
    Pki().intermediate.write(tmp_path, "stranger")
    signing = ("sign", release, "--key", tmp_path / "leaf.key")
    code, _, err = run(
        *signing, "--certificate", tmp_path / "leaf.pem", "--chain", tmp_path / "stranger.pem"
    )
    assert code == 1
    assert "does not lead" in err
    assert not (release / "model.sig").exists()

    for arguments, message in (
        (("--certificate", tmp_path / "root.pem"), "another key's"),
        (("--certificate", tmp_path / "leaf.key"), "not certificates"),
        (("--chain", tmp_path / "root.pem"), "--chain goes with --certificate"),
    ):
        code, _, err = run(*signing, *arguments)
        assert (code, message in err) == (2, True), err
    code, _, err = run("sign", release)
    assert (code, "say who signs" in err) == (2, True), err


def test_a_command_signs(run: Run, release: Path, pki: Pki, tmp_path: Path) -> None:
    command = f"openssl dgst -sha256 -sign {tmp_path}/leaf.key"
    signing = ("sign", release, "--signer-cmd", command)
    ok(run("keygen", "-o", tmp_path / "r.key", "--no-passphrase"))
    for arguments, code, message in (
        ((), 2, "whose key does --signer-cmd hold?"),
        (("--key", tmp_path / "r.key"), 2, "say who signs, in one way"),
        (("--public-key", tmp_path / "r.pub"), 1, "does not verify with the given public key"),
    ):
        found, _, err = run(*signing, *arguments)
        assert (found, message in err) == (code, True), err
        assert not (release / "model.sig").exists()
    found, _, err = run("sign", release, "--key", tmp_path / "r.key", "--public-key", tmp_path / "r.pub")  # fmt: skip
    assert (found, "--public-key goes with" in err) == (2, True), err

    ok(
        run(*signing, "--certificate", tmp_path / "leaf.pem", "--chain",
            tmp_path / "intermediate.pem")
    )  # fmt: skip
    ok(run("verify", release, "--level", "integrity", "--ca", tmp_path / "root.pem"))


def test_a_key_signs_beside(run: Run, release: Path, tmp_path: Path) -> None:
    for stem, algorithm in (("r", "p256"), ("q", "ml-dsa-65")):
        ok(run("keygen", "-o", tmp_path / f"{stem}.key", "--no-passphrase", "--type", algorithm))
    signing = ("sign", release, "--key", tmp_path / "r.key", "--also-key")
    code, _, err = run(*signing, tmp_path / "r.key")
    assert (code, "another kind of key" in err) == (2, True), err
    assert "model.mldsa.sigstore.json" in ok(run(*signing, tmp_path / "q.key"))

    verifying = ("verify", release, "--level", "integrity", "--key", tmp_path / "r.pub")
    report = json.loads(ok(run(*verifying, "--key", tmp_path / "q.pub", "--json")))
    assert len(report["additional"]) == 1
    assert json.loads(ok(run(*verifying, "--json")))["additional"] == []


def test_a_token_is_named_and_its_pin_is_not(run: Run, release: Path, tmp_path: Path) -> None:
    """With a real token: tests/attest/test_hsm.py."""
    for uri, code, message in (
        ("pkcs11:object=a", 2, "no PKCS#11 module named"),
        ("pkcs11:object=a?pin-value=hunter2", 2, "seen by everybody"),
        ("pkcs11:object=a?module-path=/nowhere.so", 4, "module or token fails"),
    ):
        found, out, err = run("sign", release, "--pkcs11-uri", uri)
        assert (found, message in err) == (code, True), err
        assert "hunter2" not in out + err


def test_a_timestamp_outlives_the_certificate(run: Run, release: Path, tmp_path: Path) -> None:
    """A certificate that is good for three seconds, and a signature that stays good."""
    root = issue("root", ca=True)
    short = timedelta(seconds=(datetime.now(UTC) - NOW).seconds + 4)
    leaf = issue("publisher", root, ends=short)
    root.write(tmp_path, "root")
    leaf.write(tmp_path, "leaf")
    trust = ("--ca", tmp_path / "root.pem")
    with OpensslTsa(tmp_path / "tsa").serving() as tsa:
        ok(
            run("sign", release, "--key", tmp_path / "leaf.key", "--timestamp-url", tsa.url,
                "--certificate", tmp_path / "leaf.pem")
        )  # fmt: skip
    assert len(tsa.asked) == 2  # model.sig and the lineage
    time.sleep(max((NOW + short - datetime.now(UTC)).total_seconds(), 0) + 1.1)

    integrity = ("verify", release, "--level", "integrity", *trust)
    code, out, _ = run(*integrity)
    assert (code, "has expired" in out) == (1, True), out
    ok(run(*integrity, "--tsa", tmp_path / "tsa" / "root.pem"))
    issue("other", ca=True).write(tmp_path, "other")
    code, out, _ = run(*integrity, "--tsa", tmp_path / "other.pem")
    assert (code, "[timestamp]" in out) == (1, True), out


def test_a_policy_names_a_certificate(run: Run, release: Path, pki: Pki, tmp_path: Path) -> None:
    signing = ("sign", release, "--key", tmp_path / "leaf.key", "--certificate",
               tmp_path / "leaf.pem", "--chain", tmp_path / "intermediate.pem")  # fmt: skip
    ok(run(*signing))
    policy = tmp_path / "policy.yaml"
    ok(run("trust", "init", "-o", policy, "--publisher", f"CN=publisher under {tmp_path}/root.pem"))
    ok(run("verify", release, "--level", "integrity", "--policy", policy))

    policy.unlink()
    ok(run("trust", "init", "-o", policy, "--publisher", f"CN=other under {tmp_path}/root.pem"))
    code, out, _ = run("verify", release, "--level", "integrity", "--policy", policy)
    assert (code, "no publisher in this policy" in out) == (1, True), out
    code, _, err = run("verify", release, "--policy", policy, "--ca", tmp_path / "root.pem")
    assert (code, "roots come from the policy" in err) == (2, True)


@pytest.mark.peer
@pytest.mark.skipif(not PEER.exists(), reason="model_signing is not installed (make peers)")
def test_model_signing_accepts_our_certificate_bundles(
    run: Run, release: Path, pki: Pki, tmp_path: Path
) -> None:
    with OpensslTsa(tmp_path / "tsa").serving() as tsa:
        ok(
            run("sign", release, "--key", tmp_path / "leaf.key", "--timestamp-url", tsa.url,
                "--certificate", tmp_path / "leaf.pem", "--chain", tmp_path / "intermediate.pem")
        )  # fmt: skip

    def verify(root: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PEER, "verify", "certificate", release, "--signature", release / "model.sig",
             "--certificate_chain", tmp_path / root],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    accepted = verify("root.pem")  # with a timestamp, of which it knows nothing
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    Pki().root.write(tmp_path, "other")
    assert verify("other.pem").returncode != 0
