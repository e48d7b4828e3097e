"""Certificates: every way in which a chain can fail to lead to a trusted root, by name."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from pki import CODE, NOW, SERVER, STAMP, Holder, Pki, issue, name, usage

from parentage import AnyOf, CertificateSigner, KeySigner, PrivateKey, TrustedChains, TrustedKeys
from parentage.attest import bundle, paths
from parentage.attest.identity import ChainIdentity
from parentage.attest.opening import open_bundle
from parentage.attest.statement import Subject, build_statement
from parentage.manifest.errors import (
    BundleError,
    CertificateError,
    SignatureError,
    SigningKeyError,
    UsageError,
)

PKI = Pki()
STATEMENT = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})


def signed(*chain: Holder) -> bytes:
    signer = CertificateSigner(chain[0].signer_key, [h.certificate for h in chain])
    return bundle.build(STATEMENT, signer)


def trust(*anchors: Holder) -> TrustedChains:
    return TrustedChains(tuple(anchor.certificate for anchor in anchors))


def test_a_good_chain() -> None:
    opened = open_bundle(signed(PKI.leaf, PKI.intermediate), trust(PKI.root), "model.sig")

    assert opened.payload == STATEMENT
    assert opened.time is None
    assert opened.signer == ChainIdentity(
        subject="CN=publisher",
        fingerprint=PKI.leaf.certificate.fingerprint(hashes.SHA256()).hex(),
        root=PKI.root.certificate.fingerprint(hashes.SHA256()).hex(),
    )


def test_an_intermediate_may_be_the_anchor_and_the_root_may_be_in_the_bundle() -> None:
    data = signed(PKI.leaf, PKI.intermediate, PKI.root)
    for anchor in (PKI.root, PKI.intermediate, PKI.leaf):
        signer = open_bundle(data, trust(anchor), "t").signer
        assert isinstance(signer, ChainIdentity)
        assert signer.root == paths.fingerprint(anchor.certificate)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_curves(curve: ec.EllipticCurve) -> None:
    leaf = issue("l", PKI.root, key=ec.generate_private_key(curve))
    assert open_bundle(signed(leaf), trust(PKI.root), "t").payload == STATEMENT


def test_a_root_with_an_rsa_key() -> None:
    root = issue("rsa", ca=True, key=rsa.generate_private_key(65537, 2048))
    assert open_bundle(signed(issue("l", root)), trust(root), "t").payload == STATEMENT


def test_a_self_signed_certificate_is_good_for_those_who_trust_it() -> None:
    own = issue("me", ca=True, key_usage=usage(sign=True), extended=CODE)

    assert open_bundle(signed(own), trust(own), "t").payload == STATEMENT
    with pytest.raises(CertificateError, match="self-signed"):
        open_bundle(signed(own), trust(PKI.root), "t")


DAY = timedelta(days=1)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def constrained(to: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints([to], None)


def under(**intermediate: Any) -> tuple[Holder, Holder]:
    issuer = issue("i", PKI.root, **{"ca": True, **intermediate})
    return issue("l", issuer), issuer


def deep(length: int) -> tuple[Holder, ...]:
    chain = [PKI.root]
    for number in range(length):
        chain.append(issue(f"i{number}", chain[-1], ca=True))
    return (issue("l", chain[-1]), *reversed(chain[1:]))


def loop() -> tuple[Holder, ...]:
    """Two authorities that certify each other, and nobody trusted certifies."""
    first, second = issue("a", ca=True), issue("b", ca=True)
    cross = issue("a", second, ca=True, key=first.key), issue("b", first, ca=True, key=second.key)
    return (issue("l", first), *cross)


def crowd() -> tuple[Holder, ...]:
    """As many authorities of one name as a bundle holds, so that there are many paths to try."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(4)]
    own = [issue("m", ca=True, key=key) for key in keys]
    every = [issue("m", by, ca=True, key=key) for by in own for key in keys]
    return (issue("l", own[0]), *every[:15])


SAN = x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")])
BROKEN: dict[str, tuple[tuple[Holder, ...], str, str]] = {
    "expired": ((issue("l", PKI.root, starts=-3 * DAY, ends=-DAY),), "has expired", "valid "),
    "not-yet": ((issue("l", PKI.root, starts=DAY),), "not valid yet", "valid "),
    "intermediate-expired": (under(starts=-3 * DAY, ends=-DAY), "has expired", "valid "),
    "intermediate-not-yet": (under(starts=DAY), "not valid yet", "valid "),
    "another-root": (
        (issue("l", issue("other", ca=True)),), "does not lead", "all candidates exhausted",
    ),
    "root-of-the-same-name": (
        (issue("l", issue("test root", ca=True)),), "does not lead", "exhausted",
    ),
    "intermediate-missing": ((PKI.leaf,), "does not lead", "all candidates exhausted"),
    "path-length": (
        (issue("l", (extra := issue("x", PKI.intermediate, ca=True))), extra, PKI.intermediate),
        "does not lead", "path length",
    ),
    "too-deep": (deep(paths.MAX_INTERMEDIATES + 1), "does not lead", "max depth"),
    "no-ca": (under(ca=False), "does not lead", "basicConstraints.cA"),
    "no-basic-constraints": (under(basic=False), "does not lead", "no basicConstraints"),
    "ca-signs-no-certificates": (under(key_usage=usage(sign=True)), "does not lead", "keyCertSign"),
    "ca-for-servers": (under(extended=SERVER), "does not lead", "CODE_SIGNING"),
    "unknown-critical-ca": (under(more=((UNKNOWN, True),)), "does not lead", "1.2.3.4"),
    "unknown-critical-leaf": (
        (issue("l", PKI.root, more=((UNKNOWN, True),)),), "does not lead", "1.2.3.4",
    ),
    "directory-name-constraint": (
        under(more=((constrained(x509.DirectoryName(name("z"))), True),)),
        "does not lead", "nameConstraints",
    ),
    "dns-name-constraint": (
        (
            issue("l", (bound := issue("i", PKI.root, ca=True, more=(
                (constrained(x509.DNSName("here.example")), True),))), more=((SAN, False),)),
            bound,
        ),
        "does not lead", "name constraints",
    ),
    "loop": (loop(), "does not lead", "max depth"),
    "crowd": (crowd(), "does not lead", "signature check limit"),
    "leaf-for-servers": ((issue("l", PKI.root, extended=SERVER),), "not for this use", ""),
    "leaf-for-time-stamps": ((issue("l", PKI.root, extended=STAMP),), "not for this use", ""),
    "leaf-signs-nothing": (
        (issue("l", PKI.root, key_usage=usage(certificates=True)),), "not for this use", "",
    ),
    "leaf-for-nothing": (
        (issue("l", PKI.root, key_usage=None, extended=None),), "not for this use", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_chains_that_lead_nowhere(case: str) -> None:
    chain, message, found = BROKEN[case]

    with pytest.raises(CertificateError, match=message) as caught:
        open_bundle(signed(*chain), trust(PKI.root), "model.sig")

    assert found in caught.value.found
    assert caught.value.where.startswith("model.sig")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "case",
    ["too-deep", "leaf-for-servers", "leaf-for-nothing", "unknown-critical-leaf", "ca-for-servers",
     "ca-signs-no-certificates"],
)  # fmt: skip
def test_without_the_flaw_the_same_chain_is_good(case: str) -> None:
    """The deepest chain allowed, each usage alone: what is refused above is refused for its flaw."""
    good: dict[str, tuple[Holder, ...]] = {
        "too-deep": deep(paths.MAX_INTERMEDIATES),
        "leaf-for-servers": (issue("l", PKI.root, extended=None),),
        "leaf-for-nothing": (issue("l", PKI.root, key_usage=None),),
        "unknown-critical-leaf": (issue("l", PKI.root, more=((UNKNOWN, False),)),),
        "ca-for-servers": under(extended=CODE),
        "ca-signs-no-certificates": under(key_usage=None),
    }
    assert open_bundle(signed(*good[case]), trust(PKI.root), "t").payload == STATEMENT


def test_a_loop_does_not_hide_a_good_path() -> None:
    first, second = issue("a", PKI.root, ca=True), issue("b", ca=True)
    cross = issue("a", second, ca=True, key=first.key), issue("b", first, ca=True, key=second.key)
    data = signed(issue("l", first), *cross, first)

    assert open_bundle(data, trust(PKI.root), "t").payload == STATEMENT


def test_a_root_that_has_expired() -> None:
    root = issue("old", ca=True, starts=-3 * DAY, ends=-DAY)
    with pytest.raises(CertificateError, match="has expired"):
        open_bundle(signed(issue("l", root)), trust(PKI.root, root), "t")


def test_an_expired_root_beside_the_good_one_does_no_harm() -> None:
    old = issue("old", ca=True, starts=-3 * DAY, ends=-DAY)
    data = signed(PKI.leaf, PKI.intermediate)
    assert open_bundle(data, trust(old, PKI.root), "t").payload == STATEMENT


def openssl_verify(folder: Path, chain: tuple[Holder, ...], root: Holder) -> bool:
    (folder / "root.pem").write_bytes(root.pem)
    (folder / "leaf.pem").write_bytes(chain[0].pem)
    (folder / "others.pem").write_bytes(b"".join(h.pem for h in chain[1:]) or root.pem)
    return (
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore",
             "-CAfile", "root.pem", "-untrusted", "others.pem", "leaf.pem"],
            cwd=folder, capture_output=True, check=False,
        ).returncode
        == 0
    )  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_openssl_refuses_is_refused(tmp_path: Path, case: str) -> None:
    """OpenSSL has no rule about code signing here, and a longer depth."""
    ours_alone = {
        *("leaf-for-servers", "leaf-for-time-stamps", "leaf-for-nothing"),
        *("too-deep", "ca-for-servers"),
    }
    assert openssl_verify(tmp_path, BROKEN[case][0], PKI.root) == (case in ours_alone), case


def test_openssl_accepts_our_good_chain_and_our_signature(tmp_path: Path) -> None:
    assert openssl_verify(tmp_path, (PKI.leaf, PKI.intermediate), PKI.root)
    parsed = bundle.parse(signed(PKI.leaf, PKI.intermediate), "t")
    (tmp_path / "pub").write_bytes(PKI.leaf.signer_key.public.pem)
    (tmp_path / "sig").write_bytes(parsed.signature)
    (tmp_path / "pae").write_bytes(parsed.signed_bytes)
    subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "pae"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip


def test_sha1_is_no_signature(tmp_path: Path) -> None:
    """`cryptography` signs nothing with SHA-1 any more, so OpenSSL does."""
    PKI.root.write(tmp_path, "root")
    _, key = PKI.leaf.write(tmp_path, "leaf")
    (tmp_path / "ext").write_text("keyUsage=critical,digitalSignature\n")
    chains = []
    for digest in ("-sha1", "-sha256"):
        for command in (
            ["req", "-new", "-key", "leaf.key", "-subj", "/CN=l", "-out", "csr"],
            ["x509", "-req", "-in", "csr", "-CA", "root.pem", "-CAkey", "root.key", digest,
             "-CAcreateserial", "-days", "9", "-extfile", "ext", "-out", "c.pem"],
        ):  # fmt: skip
            subprocess.run(["openssl", *command], cwd=tmp_path, check=True, capture_output=True)
        chains.append(paths.load_certificates(tmp_path / "c.pem"))
    old, new = (CertificateSigner(PrivateKey.load(key, None), chain) for chain in chains)

    assert open_bundle(bundle.build(STATEMENT, new), trust(PKI.root), "t").payload == STATEMENT
    with pytest.raises(CertificateError, match="does not lead"):
        open_bundle(bundle.build(STATEMENT, old), trust(PKI.root), "t")


def edited(data: bytes, certificates: list[bytes]) -> bytes:
    document = json.loads(data)
    document["verificationMaterial"]["x509CertificateChain"]["certificates"] = [
        {"rawBytes": base64.b64encode(der).decode()} for der in certificates
    ]
    return json.dumps(document).encode()


def test_a_signature_by_another_key_under_a_good_chain() -> None:
    stranger = issue("publisher", PKI.root)
    data = edited(signed(stranger), [PKI.leaf.der, PKI.intermediate.der])
    with pytest.raises(SignatureError, match="does not verify"):
        open_bundle(data, trust(PKI.root), "t")


def test_a_leaf_of_another_key_type() -> None:
    """An Ed25519 leaf, an RSA one, one of a kind that nobody knows: OMS signs with ECDSA."""
    keys = (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048))
    for leaf in (issue("l", PKI.root, key=key) for key in keys):
        with pytest.raises(CertificateError, match="type that does not sign models"):
            open_bundle(edited(signed(PKI.leaf), [leaf.der]), trust(PKI.root), "t")
    ecdsa, unknown = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0277")
    der = PKI.leaf.der.replace(ecdsa, unknown)
    with pytest.raises(SigningKeyError, match="not supported"):
        paths.public_key(paths.parse_certificate(der, "t"), "t")
    with pytest.raises(CertificateError):
        open_bundle(edited(signed(PKI.leaf), [der, PKI.intermediate.der]), trust(PKI.root), "t")


def test_more_certificates_than_a_bundle_may_have() -> None:
    with pytest.raises(BundleError, match="this size"):
        open_bundle(edited(signed(PKI.leaf), [PKI.leaf.der] * 17), trust(PKI.root), "t")
    with pytest.raises(BundleError, match="empty"):
        open_bundle(edited(signed(PKI.leaf), []), trust(PKI.root), "t")


def test_junk_for_a_certificate() -> None:
    for junk in (b"junk", PKI.leaf.der[:-1], PKI.leaf.der + b"\0"):
        for chain in ([junk], [PKI.leaf.der, junk]):
            with pytest.raises(CertificateError, match="can't be read"):
                open_bundle(edited(signed(PKI.leaf), chain), trust(PKI.root), "t")


GOOD = signed(PKI.leaf, PKI.intermediate)


@given(st.sampled_from((0, 1)), st.integers(0, 600), st.binary(min_size=1, max_size=4))
def test_any_change_of_a_certificate_is_a_named_error(which: int, at: int, new: bytes) -> None:
    chain = [PKI.leaf.der, PKI.intermediate.der]
    at %= len(chain[which])
    chain[which] = chain[which][:at] + new + chain[which][at + len(new) :]
    if chain == [PKI.leaf.der, PKI.intermediate.der]:
        return
    with pytest.raises(SignatureError):
        open_bundle(edited(GOOD, chain), trust(PKI.root), "t")


def test_a_key_is_not_a_certificate_nor_the_other_way_round() -> None:
    key = PrivateKey.generate()
    by_key = bundle.build(STATEMENT, KeySigner(key))
    keys = TrustedKeys((PKI.leaf.signer_key.public,))

    with pytest.raises(SignatureError, match="nothing trusted covers") as caught:
        open_bundle(by_key, trust(PKI.root), "t")
    assert caught.value.hint == "--key release.pub"
    with pytest.raises(SignatureError, match="nothing trusted covers") as caught:
        open_bundle(GOOD, keys, "t")
    assert caught.value.hint == "--ca root.pem"
    both = AnyOf(keys=TrustedKeys((key.public,)), chains=trust(PKI.root))
    assert open_bundle(by_key, both, "t").payload == open_bundle(GOOD, both, "t").payload


def test_trusting_nobody_is_an_error() -> None:
    with pytest.raises(UsageError, match="trusts nobody"):
        TrustedChains(())


def test_signing_with_a_certificate_that_does_not_fit(tmp_path: Path) -> None:
    other = PrivateKey.generate()
    with pytest.raises(SigningKeyError, match="another key's"):
        CertificateSigner(other, [PKI.leaf.certificate])
    with pytest.raises(SigningKeyError, match="chain of this length"):
        CertificateSigner(other, [])
    with pytest.raises(SigningKeyError, match="chain of this length"):
        CertificateSigner(other, [PKI.leaf.certificate] * 17)
    own = issue("l", PKI.root, key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(SigningKeyError, match="does not sign models"):
        CertificateSigner(own.signer_key, [own.certificate])


@pytest.mark.parametrize("data", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])  # fmt: skip
def test_files_that_hold_no_certificate(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.pem").write_bytes(data)
    with pytest.raises(SigningKeyError, match="not certificates"):
        paths.load_certificates(tmp_path / "c.pem")
    with pytest.raises(SigningKeyError, match="can't read"):
        paths.load_certificates(tmp_path / "none")


def test_the_webs_roots_are_no_trust_list(tmp_path: Path) -> None:
    (tmp_path / "all.pem").write_bytes(PKI.root.pem * 1001)
    with pytest.raises(SigningKeyError, match="too many"):
        paths.load_certificates(tmp_path / "all.pem")


def test_the_moment_counts_at_both_ends() -> None:
    leaf, root = PKI.leaf.certificate, PKI.root.certificate
    ends = (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    for at, good in (
        (ends[0] - timedelta(seconds=1), False), (ends[0], True), (NOW, True), (ends[1], True),
        (ends[1] + timedelta(seconds=1), False),
    ):  # fmt: skip
        arguments = (leaf, [PKI.intermediate.certificate], [root])
        if good:
            found = paths.check_path(*arguments, at=at, usage=paths.Usage.CODE_SIGNING, where="t")
            assert found == [leaf, PKI.intermediate.certificate, root]
        else:
            with pytest.raises(CertificateError, match=r"expired|not valid yet"):
                paths.check_path(*arguments, at=at, usage=paths.Usage.CODE_SIGNING, where="t")
