"""ML-DSA beside ECDSA: the same bytes, signed twice, in two bundles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from worlds import World

import parentage
from parentage import KeySigner, PrivateKey, TrustedKeys
from parentage.attest import bundle
from parentage.attest.additional import Beside, additional_signers, require_additional
from parentage.attest.bundle import CLAIMS, MODEL_MLDSA, MODEL_SIG
from parentage.attest.claims import read_claims
from parentage.attest.identity import KeyIdentity
from parentage.attest.oms_opening import open_oms
from parentage.attest.opening import open_bundle
from parentage.attest.roles import believed
from parentage.manifest.errors import SignatureError, SigningKeyError
from parentage.manifest.files import open_files

MLDSA = PrivateKey.generate("ml-dsa-65")


@pytest.fixture
def release(world: World) -> Path:
    sign(world, also=True)
    return world.root / "base"


def sign(world: World, *, also: bool) -> None:
    parentage.declare(world.root / "base", world.recipe([], []), parents={})
    beside = Beside(KeySigner(MLDSA), TrustedKeys((MLDSA.public,))) if also else None
    parentage.sign_release(world.root / "base", KeySigner(world.key), world.trust, also=beside)


def verify(world: World, *keys: PrivateKey) -> parentage.Report:
    world.trust = TrustedKeys(tuple(key.public for key in (world.key, *keys)))
    return world.verify("base", [], level="integrity")


def demanded(world: World, *keys: PrivateKey) -> tuple[object, ...]:
    """Open the release as a verifier does, and demand an additional signature."""
    trust = TrustedKeys(tuple(key.public for key in (world.key, *keys)))
    with open_files(world.root / "base") as files:
        signature = open_bundle(files.files[MODEL_SIG].read_small(), trust, MODEL_SIG)
        claims = read_claims(files, believed(trust))
        assert require_additional(signature, claims) == additional_signers(signature, claims)
        return require_additional(signature, claims)


def test_both_sign_the_same_bytes(world: World, release: Path) -> None:
    first, second = (
        bundle.parse((release / name).read_bytes(), name) for name in (MODEL_SIG, MODEL_MLDSA)
    )
    assert first.payload == second.payload
    assert len(second.signature) == 3309
    lines = [bundle.parse(line, "c") for line in (release / CLAIMS).read_bytes().splitlines()]
    assert lines[0].payload == lines[1].payload
    assert {line.hint for line in lines} == {first.hint, second.hint}


def test_verify_reports_it(world: World, release: Path) -> None:
    report = verify(world, MLDSA)
    assert report.verified
    assert [signer.key_sha256 for signer in report.additional] == [MLDSA.public.fingerprint]
    assert ("also by", f"key {MLDSA.public.fingerprint[:16]}…") in report.shown().facts
    assert demanded(world, MLDSA) == (KeyIdentity(MLDSA.public.fingerprint),)


def test_who_does_not_know_the_key_sees_none(world: World, release: Path) -> None:
    report = verify(world)
    assert report.verified
    assert report.additional == []
    assert any("by other keys" in text for text in report.not_checked)
    with pytest.raises(SignatureError, match="no additional signature") as caught:
        demanded(world)
    assert "not trusted" in caught.value.found


def test_its_absence_is_a_fault_only_where_it_is_demanded(world: World, release: Path) -> None:
    (release / MODEL_MLDSA).unlink()
    assert verify(world, MLDSA).verified
    with pytest.raises(SignatureError, match="no additional signature") as caught:
        demanded(world, MLDSA)
    assert caught.value.found == "none"
    assert "--also-key" in caught.value.hint


@pytest.mark.parametrize("case", ["tampered", "copy-of-model.sig", "of-other-bytes", "junk"])
def test_what_is_no_additional_signature(world: World, release: Path, case: str) -> None:
    path = release / MODEL_MLDSA
    document = json.loads(path.read_bytes())
    if case == "tampered":
        document["dsseEnvelope"]["payload"] = document["dsseEnvelope"]["payload"][:-8] + "AAAAAAA="
        path.write_text(json.dumps(document))
    elif case == "copy-of-model.sig":
        path.write_bytes((release / MODEL_SIG).read_bytes())
    elif case == "of-other-bytes":
        statement = bundle.parse(path.read_bytes(), "t").payload.replace(b'"files"', b'"flies"')
        path.write_bytes(bundle.build(statement, KeySigner(MLDSA)))
    else:
        path.write_bytes(b"junk")

    assert verify(world, MLDSA).additional == []
    with pytest.raises(SignatureError, match="no additional signature"):
        demanded(world, MLDSA)


def test_signing_again_without_it_removes_what_it_signed(world: World, release: Path) -> None:
    (release / "extra.txt").write_text("new")
    sign(world, also=False)
    assert not (release / MODEL_MLDSA).exists()
    assert verify(world, MLDSA).verified


def test_signing_again_the_same_keeps_it(world: World, release: Path) -> None:
    """The same files give the same bytes, which are still signed."""
    before = (release / MODEL_MLDSA).read_bytes()
    sign(world, also=False)
    assert (release / MODEL_MLDSA).read_bytes() == before
    assert len(verify(world, MLDSA).additional) == 1


def test_signing_again_replaces_both_lines(world: World, release: Path) -> None:
    sign(world, also=True)
    assert len((release / CLAIMS).read_bytes().splitlines()) == 2
    assert verify(world, MLDSA).verified


def test_a_threshold_of_two_publishers_is_met_by_both_keys(world: World, release: Path) -> None:
    (world.root / "p256.pub").write_bytes(world.key.public.pem)
    (world.root / "mldsa.pub").write_bytes(MLDSA.public.pem)
    policy = world.root / "policy.yaml"
    policy.write_text(
        "version: '0.1'\nroles:\n  publisher:\n    any: [{key: p256.pub}, {key: mldsa.pub}]\n"
        "    threshold: 2\n"
    )
    from parentage.attest.policy_file import load

    world.trust = load(policy)  # type: ignore[assignment]
    assert world.verify("base", [], level="integrity").verified
    (release / MODEL_MLDSA).unlink()
    assert world.verify("base", [], level="integrity").verdict == "denied"


@pytest.mark.parametrize("algorithm", ["ed25519", "ml-dsa-65"])
def test_model_sig_itself_is_ecdsa(world: World, release: Path, algorithm: str) -> None:
    """Signed with a key that is trusted and that OMS does not take, by a tool that lets it."""
    key = PrivateKey.generate(algorithm)
    payload = bundle.parse((release / MODEL_SIG).read_bytes(), "t").payload
    (release / MODEL_SIG).write_bytes(bundle.build(payload, KeySigner(key)))

    report = verify(world, key)
    assert report.verdict == "refuted"
    assert "ECDSA keys only" in report.findings[0].message
    with pytest.raises(SignatureError, match="ECDSA keys only"):
        open_oms((release / MODEL_SIG).read_bytes(), world.trust, "t")


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
def test_it_is_ml_dsa_or_nothing(algorithm: str) -> None:
    key = PrivateKey.generate(algorithm)
    with pytest.raises(SigningKeyError, match="another kind of key"):
        Beside(KeySigner(key), TrustedKeys((key.public,)))
