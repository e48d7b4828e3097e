"""Trust policies: what is one, what it leaves open, and who fills its roles."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from named import value_or_named_error

from parentage import CertificateSigner, KeySigner, PrivateKey
from parentage.attest import bundle, clock, globs
from parentage.attest.identity import ChainIdentity, KeyIdentity, KeylessIdentity
from parentage.attest.looseness import loose
from parentage.attest.policy import MAX_POLICY, Member, Role, parse
from parentage.attest.policy_file import load
from parentage.attest.policy_text import text_of
from parentage.attest.roles import Believed, InRole, Seat, person, persons
from parentage.manifest.errors import (
    ParentageError,
    PolicyError,
    SignatureError,
    StatementError,
    UsageError,
)

ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/acme/rel/.github/workflows/release.yml@refs/tags/"
HEX = "0" * 64


def policy(roles: str, rest: str = "") -> bytes:
    return f'version: "0.1"\nroles: {roles}\n{rest}'.encode()


PUBLISHER = f"{{publisher: {{any: [{{keySha256: '{HEX}'}}]}}}}"


def test_a_policy_is_read() -> None:
    found = parse(
        policy(
            f"{{publisher: {{any: [{{issuer: {ISSUER}, identity: '{WORKFLOW}*', repoId: '1234'}},"
            f" {{keySha256: '{HEX}'}}]}},"
            " verifier: {any: [{key: lab1.pub}, {key: lab2.pub}, {key: lab3.pub}], threshold: 2}}",
            "require: [oms, lineage, {recompute: {min: exact, coverage: 1.0, by: verifier}}]\n"
            "status: {maxAge: 30d, onMissing: warn, onWithdrawn: fail}\n"
            "trustRoot: {maxAge: 720h}\n"
            "parents: {depth: 2, require: [oms], unsigned: warn}\n",
        ),
        where="t",
    )

    assert found.threshold(Role.VERIFIER) == 2
    assert found.threshold(Role.WITNESS) == 1
    assert found.parents.depth == 2
    assert [demand.coverage for demand in found.demands()] == ["1.0"]  # type: ignore[union-attr]
    assert found.trust_root is not None
    assert clock.length(found.trust_root.max_age) == timedelta(days=30)


def member(text: str) -> str:
    return f"{{publisher: {{any: [{text}]}}}}"


REFUSED = {
    "nothing": (b"", "not a trust policy"),
    "no-version": (policy(PUBLISHER).replace(b'version: "0.1"', b""), "version"),
    "another-version": (policy(PUBLISHER).replace(b"0.1", b"9"), "version"),
    "unknown-field": (policy(PUBLISHER, "more: 1"), "more"),
    "unknown-role": (policy("{boss: {any: []}}"), "boss"),
    "no-publisher": (policy("{}"), "publisher"),
    "nobody": (policy("{publisher: {any: []}}"), "length"),
    "empty-member": (policy(member("{}")), "not named in one way"),
    "two-ways": (policy(member(f"{{keySha256: '{HEX}', issuer: {ISSUER}}}")), "not named in one way"),
    "identity-without-issuer": (policy(member("{identity: a@b.c}")), "not named in one way"),
    "issuer-alone": (policy(member(f"{{issuer: {ISSUER}}}")), "not named in one way"),
    "root-without-subject": (policy(member("{root: ca.pem}")), "not named in one way"),
    "key-with-a-subject": (policy(member("{key: a.pub, subject: CN=a}")), "not named in one way"),
    "issuer-glob": (policy(member("{issuer: 'https://*', identity: a@b.c}")), "one URL"),
    "plain-http": (policy(member("{issuer: 'http://a', identity: a@b.c}")), "one URL"),
    "any-host": (policy(member(f"{{issuer: {ISSUER}, identity: 'https://*/acme@x'}}")), "leaves open"),
    "anybody": (policy(member(f"{{issuer: {ISSUER}, identity: '*'}}")), "leaves open"),
    "any-domain": (policy(member(f"{{issuer: {ISSUER}, identity: 'me@*'}}")), "leaves open"),
    "everything": (policy(member(f"{{issuer: {ISSUER}, identity: '*@*'}}")), "leaves open"),
    "two-stars": (policy(member(f"{{issuer: {ISSUER}, identity: 'https://a/**@x'}}")), "leaves open"),
    "short-fingerprint": (policy(member("{keySha256: abc}")), "keySha256"),
    "twice": (policy(member(f"{{keySha256: '{HEX}'}}, {{keySha256: '{HEX}'}}")), "twice"),
    "threshold-zero": (policy(f"{{publisher: {{any: [{{keySha256: '{HEX}'}}], threshold: 0}}}}"), "threshold"),
    "threshold-beyond": (policy(f"{{publisher: {{any: [{{keySha256: '{HEX}'}}], threshold: 2}}}}"), "nobody can reach"),
    "required-of-nobody": (policy(PUBLISHER, "require: [{recompute: {}}]"), "nobody fills"),
    "no-requirement": (policy(PUBLISHER, "require: [{}]"), "not one thing"),
    "strange-requirement": (policy(PUBLISHER, "require: [virtue]"), "require"),
    "coverage-beyond": (policy(f"{{publisher: {{any: [{{keySha256: '{HEX}'}}]}}, verifier: {{any: [{{key: a}}]}}}}",
                               "require: [{recompute: {coverage: '1.1'}}]"), "no share"),
    "loose-purl": (policy(f"{{publisher: {{any: [{{keySha256: '{HEX}'}}]}}}}",
                          "require: [{release: {purl: 'pkg:huggingface/*/rio@x'}}]"), "leaves open"),
    "endless-depth": (policy(PUBLISHER, "parents: {depth: 1000}"), "depth"),
    "no-duration": (policy(PUBLISHER, "status: {maxAge: soon}"), "maxAge"),
    "alias": (b"a: &a [x]\nb: *a", "alias"),
    "duplicate-key": (policy(PUBLISHER, "require: [oms]\nrequire: [oms]"), "twice"),
    "too-large": (b" " * (MAX_POLICY + 1), "too large"),
    "a-tag": (b"!!python/object:os.system {}", "policy"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_policy(name: str) -> None:
    data, message = REFUSED[name]

    with pytest.raises(PolicyError, match=re.escape(message)) as caught:
        parse(data, where="t")
    assert caught.value.exit_code == 2


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_policy_or_a_named_error(data: bytes) -> None:
    value_or_named_error(lambda: parse(data, where="t"), PolicyError)


MATCHES = [
    (f"{WORKFLOW}*", f"{WORKFLOW}v1.0", True),
    (f"{WORKFLOW}*", f"{WORKFLOW}v1/rc", True),
    (f"{WORKFLOW}*", f"{WORKFLOW}v1@x", False),
    (f"{WORKFLOW}*", f"{WORKFLOW}v1".replace("refs/tags", "refs/heads"), False),
    (f"{WORKFLOW}*", f"{WORKFLOW}v1".replace("acme", "evil"), False),
    (f"{WORKFLOW}*", f"https://evil.example/?{WORKFLOW}v1", False),
    (f"{WORKFLOW}*", f"{WORKFLOW}v1\n", False),
    (f"{WORKFLOW}v1", f"{WORKFLOW}v1\n", False),
    ("https://github.com/acme/*/w.yml@refs/tags/v1", "https://github.com/acme/a/w.yml@refs/tags/v1", True),
    ("https://github.com/acme/*/w.yml@refs/tags/v1", "https://github.com/acme/a/b/w.yml@refs/tags/v1", False),
    ("https://github.com/acme/*/w.yml@refs/tags/v1", "https://github.com/acme/a@b/w.yml@refs/tags/v1", False),
    ("https://github.com/acme/re*", "https://github.com/acme/rel", True),
    ("*@acme.example", "me@acme.example", True),
    ("*@acme.example", "me@evil.example@acme.example", False),
    ("*@acme.example", "me@acme.example.evil", False),
    ("*@acme.example", "a/b@acme.example", False),
    ("me@acme.example", "ME@acme.example", False),
    ("a.c@acme.example", "abc@acme.example", False),
    ("a[bc]?@acme.example", "ab@acme.example", False),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "identity", "same"), MATCHES)
def test_patterns_are_anchored(pattern: str, identity: str, same: bool) -> None:
    globs.check(pattern, "t")
    assert globs.matches(pattern, identity) is same


@given(st.text("ab/@*:.", max_size=30), st.text("ab/@:.", max_size=30))
def test_a_star_never_passes_a_slash_or_an_at(pattern: str, identity: str) -> None:
    """Beside a matcher that shares no code: characters matched one by one."""
    assert globs.matches(pattern, identity) == by_hand(pattern, identity, after=False)


def by_hand(pattern: str, identity: str, *, after: bool) -> bool:
    if not pattern:
        return not identity
    if pattern[0] == "*":
        if by_hand(pattern[1:], identity, after=after):
            return True
        free = bool(identity) and identity[0] not in ("@" if after else "/@")
        return free and by_hand(pattern, identity[1:], after=after)
    if not identity or identity[0] != pattern[0]:
        return False
    return by_hand(pattern[1:], identity[1:], after=after or pattern[0] == "@")


def test_a_pattern_can_not_cost_much() -> None:
    with pytest.raises(PolicyError):
        globs.check("https://a/" + "*a/" * 5 + "@x", "t")
    globs.check("https://a/" + "*a/" * 4 + "x", "t")
    assert not globs.matches("https://a/" + "*a/" * 4 + "x", "https://a/" + "a" * 5000)


def test_times_have_one_spelling() -> None:
    time = datetime(2026, 6, 14, 9, 0, 0, 999, tzinfo=UTC)
    assert clock.parse_time(clock.to_text(time), "t") == time.replace(microsecond=0)
    for text in ("2026-06-14T09:00:00", "2026-6-14T09:00:00Z", "2026-13-01T00:00:00Z", "", "0000-01-01T00:00:00Z"):  # fmt: skip
        with pytest.raises(StatementError, match="not a time"):
            clock.parse_time(text, "t")


def seat(role: Role, **fields: str) -> Seat:
    return Seat(role, Member(**fields), fields.get("key_sha256", HEX))


def test_identities_are_matched_by_issuer_pattern_and_number() -> None:
    place = seat(Role.PUBLISHER, issuer=ISSUER, identity=f"{WORKFLOW}*", repo_id="1234")
    numbers = (("sourceRepositoryIdentifier", "1234"),)

    assert place.why_not(KeylessIdentity(ISSUER, f"{WORKFLOW}v1", numbers)) == ""
    assert "issuer" in place.why_not(KeylessIdentity("https://evil", f"{WORKFLOW}v1", numbers))
    assert "match" in place.why_not(KeylessIdentity(ISSUER, "https://evil", numbers))
    assert "Identifier" in place.why_not(KeylessIdentity(ISSUER, f"{WORKFLOW}v1"))
    assert place.why_not(KeyIdentity(HEX)) == "not by keyless"
    root = seat(Role.PUBLISHER, root="ca.pem", subject="CN=a")
    assert root.why_not(ChainIdentity("CN=a", "1" * 64, HEX)) == ""
    assert "root" in root.why_not(ChainIdentity("CN=a", "1" * 64, "2" * 64))
    assert "subject" in root.why_not(ChainIdentity("CN=b", "1" * 64, HEX))


def test_one_person_is_counted_once() -> None:
    one = KeylessIdentity(ISSUER, f"{WORKFLOW}v1")
    assert len(persons([one, KeylessIdentity(ISSUER, f"{WORKFLOW}v2")])) == 1
    assert len(persons([one, KeylessIdentity("https://other", f"{WORKFLOW}v1")])) == 2
    assert len(persons([KeylessIdentity(ISSUER, "a@x.y"), KeylessIdentity(ISSUER, "b@x.y")])) == 2
    assert person(ChainIdentity("CN=a", "1" * 64, HEX)) == person(
        ChainIdentity("CN=a", "2" * 64, HEX)
    )
    assert len(persons([KeyIdentity("1" * 64), KeyIdentity("1" * 64), KeyIdentity("2" * 64)])) == 2


def test_who_publishes_verifies_nothing() -> None:
    members = [seat(r, key_sha256=HEX) for r in Role]
    believed = Believed(
        everyone=None, seats=tuple(members), policy=parse(policy(PUBLISHER), where="t")
    )  # type: ignore[arg-type]

    assert believed.roles_of(KeyIdentity(HEX)) == set(Role) - {Role.VERIFIER, Role.WITNESS}
    assert believed.roles_of(KeyIdentity("1" * 64)) == frozenset()


class Desk:
    """A folder with keys and a policy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = {name: PrivateKey.generate() for name in ("release", "lab", "stranger")}
        for name, key in self.keys.items():
            (folder / f"{name}.pub").write_bytes(key.public.pem)

    def load(self, roles: str, keys: tuple[str, ...] = (), rest: str = "") -> Believed:
        (self.folder / "trust.yaml").write_bytes(policy(roles, rest))
        public = tuple(self.keys[name].public for name in keys)
        return load(self.folder / "trust.yaml", public)

    def bundle(self, name: str) -> bundle.Bundle:
        return bundle.parse(bundle.build(b"{}", KeySigner(self.keys[name])), "t")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


ROLES = "{publisher: {any: [{key: release.pub}]}, verifier: {any: [{key: lab.pub}]}}"


def test_a_role_is_more_than_a_signature(desk: Desk) -> None:
    believed = desk.load(ROLES)

    assert believed.check(desk.bundle("release"), "t") == KeyIdentity(
        desk.keys["release"].public.fingerprint
    )
    with pytest.raises(SignatureError, match="no publisher in this policy"):
        believed.check(desk.bundle("lab"), "t")
    InRole(believed, Role.VERIFIER).check(desk.bundle("lab"), "t")
    with pytest.raises(SignatureError, match="not trusted"):
        believed.check(desk.bundle("stranger"), "t")


def test_a_key_file_that_was_exchanged_is_noticed(desk: Desk) -> None:
    pinned = desk.keys["release"].public.fingerprint
    roles = f"{{publisher: {{any: [{{key: release.pub, keySha256: '{pinned}'}}]}}}}"
    desk.load(roles)
    (desk.folder / "release.pub").write_bytes(desk.keys["stranger"].public.pem)

    with pytest.raises(PolicyError, match="not the key that the policy names"):
        desk.load(roles)


def test_a_key_named_by_its_digest_is_brought_along(desk: Desk) -> None:
    roles = f"{{publisher: {{any: [{{keySha256: '{desk.keys['release'].public.fingerprint}'}}]}}}}"

    desk.load(roles, ("release",)).check(desk.bundle("release"), "t")
    with pytest.raises(PolicyError, match="no key of this policy is at hand"):
        desk.load(roles)
    with pytest.raises(UsageError, match="names no such key"):
        desk.load(roles, ("release", "stranger"))


@pytest.mark.parametrize("name", ["nowhere.pub", "trust.yaml", "."])
def test_a_key_that_is_none(desk: Desk, name: str) -> None:
    with pytest.raises(PolicyError, match="member's key"):
        desk.load(f"{{publisher: {{any: [{{key: {name}}}]}}}}")


def test_a_certificate_is_matched_by_root_and_subject(desk: Desk) -> None:
    from pki import Pki, issue

    pki = Pki()
    pki.root.write(desk.folder, "ca")
    other = issue("somebody", pki.intermediate)
    roles = "{publisher: {any: [{root: ca.pem, subject: CN=publisher}]}, verifier: {any: [{key: lab.pub}]}}"
    believed = desk.load(roles)

    def signed(*chain: Any) -> bundle.Bundle:
        signer = CertificateSigner(chain[0].signer_key, [h.certificate for h in chain])
        return bundle.parse(bundle.build(b"{}", signer), "t")

    assert isinstance(believed.check(signed(pki.leaf, pki.intermediate), "t"), ChainIdentity)
    with pytest.raises(SignatureError, match="no publisher"):
        believed.check(signed(other, pki.intermediate), "t")
    with pytest.raises(SignatureError, match="no publisher"):
        believed.check(desk.bundle("lab"), "t")
    with pytest.raises(PolicyError, match="not the certificate that the policy names"):
        desk.load(roles.replace("root:", f"rootSha256: '{HEX}', root:"))


def test_a_root_that_is_none(desk: Desk) -> None:
    with pytest.raises(PolicyError, match="root"):
        desk.load("{publisher: {any: [{root: release.pub, subject: CN=a}]}}")
    with pytest.raises(PolicyError, match="can't read"):
        desk.load("{publisher: {any: [{root: nowhere.pem, subject: CN=a}]}}")


def test_the_policy_is_named_by_its_bytes(desk: Desk) -> None:
    import hashlib

    believed = desk.load(ROLES)

    assert believed.sha256 == hashlib.sha256((desk.folder / "trust.yaml").read_bytes()).hexdigest()
    assert desk.load(ROLES, rest="# a comment\n").sha256 != believed.sha256


def test_what_a_policy_leaves_open(desk: Desk) -> None:
    roles = (
        f"{{publisher: {{any: [{{key: release.pub}}, {{issuer: {ISSUER}, identity: 'https://github.com/acme/*/w.yml@*'}}]}},"
        " verifier: {any: [{key: release.pub}, {key: lab.pub}]}}"
    )
    text = "\n".join(loose(desk.load(roles)))

    for expected in ("keySha256", "any branch or tag", "can make a name", "no repoId", "never counts",
                     "threshold 1", "recovery: nobody", "onMissing", "maxAge", "trustRoot", "require"):  # fmt: skip
        assert expected in text
    pins = {n: key.public.fingerprint for n, key in desk.keys.items()}
    tight = (
        f"{{publisher: {{any: [{{key: release.pub, keySha256: '{pins['release']}'}}]}},"
        f" verifier: {{any: [{{key: lab.pub, keySha256: '{pins['lab']}'}}, {{key: stranger.pub, keySha256: '{pins['stranger']}'}}], threshold: 2}},"
        f" recovery: {{any: [{{keySha256: '{'1' * 64}'}}, {{keySha256: '{'2' * 64}'}}], threshold: 2}}}}"
    )
    rest = "require: [{recompute: {}}]\nstatus: {onMissing: fail, maxAge: 9d}\nparents: {unsigned: fail}\n"
    assert [t for t in loose(desk.load(tight, rest=rest)) if "at hand" not in t] == []


def test_a_first_policy_is_one() -> None:
    members = {
        Role.PUBLISHER: [Member(key="a b'\"☃.pub", key_sha256=HEX)],
        Role.WITNESS: [Member(issuer=ISSUER, identity=f"{WORKFLOW}*", repo_id="1")],
    }
    found = parse(text_of(members, {Role.PUBLISHER: 1}).encode(), where="t")

    assert found.roles.publisher.any == tuple(members[Role.PUBLISHER])
    assert found.roles.witness is not None
    assert found.roles.witness.any == tuple(members[Role.WITNESS])
    with pytest.raises(ParentageError):
        text_of(members, {Role.PUBLISHER: 2})


def test_authorities_that_are_believed_about_time(desk: Desk) -> None:
    from pki import Pki

    pki = Pki()
    pki.root.write(desk.folder, "tsa")
    pki.intermediate.write(desk.folder, "middle")
    assert desk.load(ROLES, rest="timestamps: [{root: tsa.pem}]").policy is not None
    for rest, message in (
        ("timestamps: [{root: nowhere.pem}]", "root: can't read"),
        ("timestamps: [{root: release.pub}]", "root:"),
        ("timestamps: [{root: middle.pem}]", "not a root"),
        (
            f"timestamps: [{{root: tsa.pem, rootSha256: '{HEX}'}}]",
            "not the certificate that the policy names",
        ),
        ("timestamps: [{rootSha256: abc}]", "not a trust policy"),
    ):
        with pytest.raises(PolicyError, match=message):
            desk.load(ROLES, rest=rest)
    from parentage.attest.timestamps import TrustedStamps

    desk.load(ROLES, rest="timestamps: [{root: tsa.pem}]")
    with pytest.raises(UsageError, match="names its timestamp authorities"):
        load(desk.folder / "trust.yaml", times=TrustedStamps((pki.root.certificate,)))
