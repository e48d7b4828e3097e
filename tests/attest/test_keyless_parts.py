"""Certificates, log entries, trusted roots and patterns of keyless trust, each by itself."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mutations
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from named import value_or_named_error

from parentage.attest import fulcio, keyless, log_entry, trusted_root
from parentage.attest.bundle import parse
from parentage.attest.identity import KeylessIdentity
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keyless_trust import TrustedIdentities
from parentage.attest.keys import PrivateKey
from parentage.attest.opening import open_bundle
from parentage.attest.trust import AnyOf, TrustedKeys
from parentage.manifest.errors import (
    BundleError,
    SignatureError,
    TrustedRootError,
    UsageError,
)

GOLDEN = mutations.load(Path(__file__).parents[1] / "vectors" / "keyless")
GOOD = mutations.honest(GOLDEN, 2)
WHO = IdentityPattern(GOOD.identity, GOOD.issuer)
ROOT = trusted_root.parse(GOOD.root, "golden root")
NOW = datetime.now(UTC)

# ---- patterns

WORKFLOW = "https://github.com/acme/rel/.github/workflows/release.yml@refs/tags/v1"
GITHUB = "https://token.actions.githubusercontent.com"


def test_a_pattern_needs_its_issuer_and_is_anchored() -> None:
    pattern = IdentityPattern(WORKFLOW.replace("v1", "*"), GITHUB)

    assert pattern.matches(KeylessIdentity(GITHUB, WORKFLOW))
    assert not pattern.matches(KeylessIdentity("https://evil.example", WORKFLOW))
    assert not pattern.matches(KeylessIdentity(GITHUB + "/", WORKFLOW))
    for other in (
        "x" + WORKFLOW,
        WORKFLOW + "\n",
        WORKFLOW.replace("acme", "acme/x"),
        WORKFLOW.replace("tags", "heads"),
        WORKFLOW.replace("github.com/", "github.com@evil.example/"),
        WORKFLOW.replace("://", "://evil.example/"),
    ):
        assert not pattern.matches(KeylessIdentity(GITHUB, other)), other


def test_an_address_pattern_does_not_reach_into_uris() -> None:
    pattern = IdentityPattern("*@example.com", GITHUB)
    assert pattern.matches(KeylessIdentity(GITHUB, "alice@example.com"))
    for other in ("https://evil.example@example.com", "https://evil.example/a@example.com"):
        assert not pattern.matches(KeylessIdentity(GITHUB, other))


@pytest.mark.parametrize(
    ("identity", "issuer"),
    [
        ("", GITHUB),
        (WORKFLOW, ""),
        (WORKFLOW, "https://*.example"),
        (WORKFLOW, "accounts.example"),
        ("https://*.com/acme", GITHUB),
        ("alice@*", GITHUB),
        ("*", GITHUB),
        ("a" * 3000, GITHUB),
        ("a\x1b[2J", GITHUB),
    ],
)
def test_patterns_that_trust_more_than_they_say(identity: str, issuer: str) -> None:
    with pytest.raises(UsageError):
        IdentityPattern(identity, issuer)


# ---- trust


def test_an_empty_list_trusts_nobody() -> None:
    with pytest.raises(UsageError, match="trusts nobody"):
        TrustedIdentities(())


def test_beside_keys() -> None:
    """Each kind of bundle goes to its own trust, and no kind stands in for another."""
    key = PrivateKey.generate()
    both = AnyOf(keys=TrustedKeys((key.public,)), keyless=TrustedIdentities((WHO,), ROOT))
    assert open_bundle(GOOD.bundle, both, "b").payload == mutations.STATEMENT
    with pytest.raises(SignatureError, match="nothing trusted covers"):
        open_bundle(GOOD.bundle, AnyOf(keys=TrustedKeys((key.public,))), "b")
    with pytest.raises(SignatureError, match="nothing trusted covers") as caught:
        TrustedIdentities((WHO,), ROOT).check(parse(by_key(key), "b"), "b")
    assert "--key" in caught.value.hint


def by_key(key: PrivateKey) -> bytes:
    document = json.loads(GOOD.bundle)
    document["verificationMaterial"] = {"publicKey": {"hint": key.public.fingerprint}}
    return json.dumps(document).encode()


def test_the_public_root_is_inside_sigstore() -> None:
    assert keyless.embedded_root(keyless.STAGING).document != keyless.embedded_root().document
    root = keyless.embedded_root()
    assert timedelta(0) <= root.age(NOW) < timedelta(days=3000)
    with pytest.raises(SignatureError, match="in service"):
        open_bundle(GOOD.bundle, TrustedIdentities((WHO,)), "b")


def test_without_the_extra_the_error_names_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['sigstore'] = None\n"
        "from parentage.attest.keyless_trust import TrustedIdentities, IdentityPattern\n"
        "from parentage.attest.opening import open_bundle\n"
        "from parentage.manifest.errors import MissingExtraError\n"
        "try:\n"
        f"    open_bundle(sys.stdin.buffer.read(), TrustedIdentities((IdentityPattern('a@b.c', {GITHUB!r}),)), 'b')\n"
        "except MissingExtraError as error:\n"
        "    assert \"pip install 'parentage[keyless]'\" in error.hint\n"
        "    print('named')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=GOOD.bundle, capture_output=True, check=True
    )
    assert done.stdout == b"named\n"


def test_trusting_identities_loads_no_sigstore() -> None:
    code = "import sys, parentage.attest.keyless_signer, parentage.attest.tokens; print('sigstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


# ---- trusted roots


def test_the_age_of_a_root_is_that_of_its_newest_key() -> None:
    document = copy.deepcopy(GOLDEN.root)
    long_ago = (NOW - timedelta(days=400)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for kind in ("tlogs", "ctlogs"):
        for log in document[kind]:
            log["publicKey"]["validFor"]["start"] = long_ago
    for kind in ("certificateAuthorities", "timestampAuthorities"):
        document[kind][0]["validFor"]["start"] = long_ago
    root = trusted_root.parse(json.dumps(document).encode(), "old root")

    assert root.age(NOW).days == 400
    root.require_age(timedelta(days=401), NOW)
    with pytest.raises(TrustedRootError, match="too old") as caught:
        root.require_age(timedelta(days=399), NOW)
    assert caught.value.exit_code == 4
    assert "400 days" in caught.value.found
    allowed = TrustedIdentities((WHO,), root, max_root_age=timedelta(days=401))
    assert open_bundle(GOOD.bundle, allowed, "b").payload == mutations.STATEMENT
    with pytest.raises(TrustedRootError, match="too old"):
        open_bundle(
            GOOD.bundle, TrustedIdentities((WHO,), root, max_root_age=timedelta(days=30)), "b"
        )
    # a key that is listed ahead makes no root young
    document["ctlogs"][0]["publicKey"]["validFor"]["start"] = "2999-01-01T00:00:00Z"
    assert trusted_root.parse(json.dumps(document).encode(), "r").age(NOW).days == 400


def changed(edit: Any) -> bytes:
    document = copy.deepcopy(GOLDEN.root)
    edit(document)
    return json.dumps(document).encode()


BROKEN_ROOTS = {
    "empty": b"",
    "list": b"[]",
    "other-type": changed(lambda d: d.update(mediaType="x")),
    "no-logs": changed(lambda d: d.update(tlogs=[])),
    "logs-are-none": changed(lambda d: d.update(tlogs=[None])),
    "logs-are-text": changed(lambda d: d.update(tlogs="x")),
    "no-authorities": changed(lambda d: d.pop("certificateAuthorities")),
    "no-certificate-logs": changed(lambda d: d.pop("ctlogs")),
    "no-service": changed(lambda d: d["tlogs"][0]["publicKey"].pop("validFor")),
    "no-start": changed(lambda d: d["tlogs"][0]["publicKey"]["validFor"].pop("start")),
    "no-zone": changed(
        lambda d: d["tlogs"][0]["publicKey"]["validFor"].update(start="2026-01-01T00:00:00")
    ),
    "no-date": changed(lambda d: d["tlogs"][0]["publicKey"]["validFor"].update(start="soon")),
    "no-id": changed(lambda d: d["tlogs"][0].pop("logId")),
    "no-address": changed(lambda d: d["tlogs"][0].pop("baseUrl")),
    "not-yet": changed(
        lambda d: [
            t["publicKey"]["validFor"].update(start="2999-01-01T00:00:00Z") for t in d["tlogs"]
        ]
    ),
    "twice": GOOD.root.replace(b'"tlogs"', b'"tlogs": [], "tlogs"', 1),
    "config-without-root": json.dumps({"mediaType": trusted_root.CONFIG_TYPE}).encode(),
}


@pytest.mark.parametrize("case", BROKEN_ROOTS)
def test_broken_roots_are_refused_by_name(case: str) -> None:
    with pytest.raises(TrustedRootError) as caught:
        trusted_root.parse(BROKEN_ROOTS[case], "my root")
    assert caught.value.where.startswith("my root")


def test_roots_that_only_sigstore_finds_broken() -> None:
    data = changed(lambda d: d["certificateAuthorities"][0].update(certChain={"certificates": []}))
    trust = TrustedIdentities((WHO,), trusted_root.parse(data, "my root"))
    with pytest.raises(TrustedRootError, match="sigstore can't read") as caught:
        open_bundle(GOOD.bundle, trust, "b")
    assert caught.value.where == "my root"


def test_a_root_is_read_from_a_file_or_a_config(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    config = {
        "mediaType": trusted_root.CONFIG_TYPE,
        "trustedRoot": GOLDEN.root,
        "signingConfig": {},
    }
    path.write_text(json.dumps(config))
    assert trusted_root.load(path).document == ROOT.document
    with pytest.raises(TrustedRootError, match="can't read"):
        trusted_root.load(tmp_path / "absent")
    path.write_bytes(b" " * (trusted_root.MAX_ROOT + 1))
    with pytest.raises(TrustedRootError, match="too large"):
        trusted_root.load(path)


# ---- certificates


def certificate(*extensions: x509.ExtensionType) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(minutes=10))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def claim(number: int, data: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}"), data)


def utf8(text: str) -> bytes:
    data = text.encode()
    size = bytes([len(data)]) if len(data) < 128 else bytes([0x82]) + len(data).to_bytes(2)
    return b"\x0c" + size + data


def names(*held: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(held)


URI = x509.UniformResourceIdentifier("https://example.com/a")
MAIL = x509.RFC822Name("a@example.com")
OTHER = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), utf8("a!example.com"))
ISSUER = claim(8, utf8(GITHUB))


@pytest.mark.parametrize(
    ("name", "found"),
    [(URI, "https://example.com/a"), (MAIL, "a@example.com"), (OTHER, "a!example.com")],
)
def test_whom_a_certificate_names(name: x509.GeneralName, found: str) -> None:
    long = "https://github.com/" + "a" * 200
    held = certificate(
        names(name), ISSUER, claim(1, GITHUB.encode()), claim(12, utf8(long)), claim(99, b"?")
    )
    told = fulcio.identity_of(held, "c")
    assert told == KeylessIdentity(GITHUB, found, (("sourceRepositoryURI", long),))
    assert (
        fulcio.identity_of(certificate(names(name), claim(1, GITHUB.encode())), "c").issuer
        == GITHUB
    )


STRANGE: dict[str, tuple[x509.ExtensionType, ...]] = {
    "nobody": (ISSUER,),
    "two-names": (names(URI, MAIL), ISSUER),
    "two-of-a-kind": (names(MAIL, x509.RFC822Name("b@example.com")), ISSUER),
    "a-host": (names(x509.DNSName("example.com")), ISSUER),
    "another-other": (names(x509.OtherName(x509.ObjectIdentifier("1.2.3"), utf8("a"))), ISSUER),
    "a-uri-like-an-address": (names(x509.UniformResourceIdentifier("a@example.com")), ISSUER),
    "an-address-like-a-uri": (names(x509.RFC822Name("https://example.com")), ISSUER),
    "no-issuer": (names(URI),),
    "two-issuers": (names(URI), ISSUER, claim(1, b"https://elsewhere.example")),
    "issuer-no-text": (names(URI), claim(8, b"\x0c\x01\xff")),
    "issuer-no-string": (names(URI), claim(8, GITHUB.encode())),
    "issuer-cut": (names(URI), claim(8, utf8(GITHUB)[:-1])),
    "issuer-with-a-tail": (names(URI), claim(8, utf8(GITHUB) + b"x")),
    "issuer-without-end": (names(URI), claim(8, b"\x0c\x84\xff\xff\xff\xffx")),
    "claim-no-text": (names(URI), ISSUER, claim(15, b"1234")),
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_certificates_name_nobody(case: str) -> None:
    with pytest.raises(SignatureError):
        fulcio.identity_of(certificate(*STRANGE[case]), "c")


def test_a_certificate_in_no_log() -> None:
    with pytest.raises(SignatureError, match="one certificate log"):
        fulcio.logged_at(certificate(names(URI), ISSUER), "c")


# ---- log entries

ENTRIES = [
    json.loads(mutations.honest(GOLDEN, version).bundle)["verificationMaterial"]["tlogEntries"][0]
    for version in (1, 2)
]
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["0", "AAAA"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(ENTRIES), st.data())
def test_any_entry_is_read_or_refused_by_name(entry: dict[str, Any], data: st.DataObject) -> None:
    changed = copy.deepcopy(entry)
    holder = data.draw(
        st.sampled_from([changed, changed["inclusionProof"], changed["kindVersion"]])
    )
    key = data.draw(st.sampled_from([*holder, "extra"]))
    holder[key] = data.draw(ANY)
    value_or_named_error(lambda: log_entry.parse(changed, "entry"), (BundleError, SignatureError))


@given(st.sampled_from(ENTRIES), st.text(max_size=40), st.integers(0, 300))
def test_any_checkpoint_is_read_or_refused_by_name(
    entry: dict[str, Any], text: str, place: int
) -> None:
    changed = copy.deepcopy(entry)
    checkpoint = changed["inclusionProof"]["checkpoint"]
    held = checkpoint["envelope"]
    checkpoint["envelope"] = held[:place] + text + held[place + len(text) :]
    value_or_named_error(lambda: log_entry.parse(changed, "entry"), (BundleError, SignatureError))


def test_sizes_are_bounded() -> None:
    for part, value in (
        ("hashes", ["AAAA"] * 65),
        ("checkpoint", {"envelope": "a" * (65 << 10)}),
        ("rootHash", "AAAA" * 20),
    ):
        changed = copy.deepcopy(ENTRIES[0])
        changed["inclusionProof"][part] = value
        with pytest.raises(BundleError):
            log_entry.parse(changed, "entry")


def test_signed_in_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is the clock that is asked; here it was put back."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Then:
            return cls(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(keyless, "datetime", Then)
    for version in (1, 2):
        case = mutations.honest(GOLDEN, version)
        with pytest.raises(SignatureError, match="in the future"):
            open_bundle(case.bundle, TrustedIdentities((WHO,), ROOT), "b")
