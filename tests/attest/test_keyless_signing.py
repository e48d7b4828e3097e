"""Keyless signatures, made and checked against a whole Sigstore on loopback."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sigstore_rig import ALICE, ISSUER, Rig
from tuf_repository import served, write

from parentage.attest import keyless, tokens, trusted_root
from parentage.attest.identity import KeylessIdentity
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keyless_signer import KeylessSigner
from parentage.attest.keyless_trust import TrustedIdentities
from parentage.attest.opening import open_bundle
from parentage.attest.patience import Deadline
from parentage.attest.statement import Subject, build_statement
from parentage.attest.tokens import TokenSource
from parentage.manifest.errors import KeylessError, SignatureError

PAYLOAD = build_statement((Subject("model", "0" * 64),), "https://example.com/x/v1", {"a": "b"})
FULCIO, LOG_1, LOG_2 = "/api/v2/signingCert", "/api/v1/log", "/api/v2/log"
TSA = "/api/v1/timestamp"
GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "acme/rel/.github/workflows/release.yml@refs/tags/v1.2"


def given(token: str) -> TokenSource:
    return lambda _config: token


def signer(rig: Rig, version: int = 2, **options: Any) -> KeylessSigner:
    token = options.pop("token", None) or rig.mint()
    return KeylessSigner(given(token), config=rig.config(version), **options)


def trust(rig: Rig, identity: str = ALICE, issuer: str = ISSUER, **more: Any) -> TrustedIdentities:
    root = trusted_root.parse(rig.root, "rig")
    return TrustedIdentities((IdentityPattern(identity, issuer),), root, **more)


@pytest.mark.parametrize("version", [1, 2])
def test_signed_and_verified_offline(rig: Rig, version: int) -> None:
    alice = signer(rig, version)
    data = alice.bundle(PAYLOAD)

    opened = open_bundle(data, trust(rig, timestamps=1), "b")

    assert opened.payload == PAYLOAD
    assert opened.signer == KeylessIdentity(ISSUER, ALICE)
    assert alice.identity == f"{ALICE} by {ISSUER}"
    with pytest.raises(SignatureError, match="not trusted") as caught:
        open_bundle(data, trust(rig, identity="bob@example.com"), "b")
    assert caught.value.found == f"{ALICE} by {ISSUER}"
    with pytest.raises(SignatureError, match="not trusted"):
        open_bundle(data, trust(rig, issuer="https://accounts.elsewhere"), "b")


def test_one_certificate_serves_two_statements(rig: Rig) -> None:
    rig.fault({"path": FULCIO, "delay_ms": 0})
    alice = signer(rig)

    one, two = alice.bundle(PAYLOAD), alice.bundle(PAYLOAD)

    assert rig.hits() == [FULCIO]
    assert one != two
    certificates = {
        json.loads(b)["verificationMaterial"]["certificate"]["rawBytes"] for b in (one, two)
    }
    assert len(certificates) == 1


def test_a_certificate_that_ends_soon_is_renewed(rig: Rig) -> None:
    rig.skew(fulcio=-9 * 60 - 45)  # of ten minutes, fifteen seconds are left
    alice = signer(rig)
    alice.bundle(PAYLOAD)
    rig.skew()
    rig.fault({"path": FULCIO, "delay_ms": 0})

    alice.bundle(PAYLOAD)
    alice.bundle(PAYLOAD)

    assert rig.hits() == [FULCIO]


def test_another_identity_is_refused_before_the_log_hears_of_it(rig: Rig) -> None:
    rig.fault({"path": "/api/v2/log", "delay_ms": 0})
    with pytest.raises(KeylessError, match="not who should sign") as caught:
        signer(rig, expected=IdentityPattern("bob@example.com", ISSUER)).bundle(PAYLOAD)

    assert caught.value.found == f"{ALICE} by {ISSUER}"
    assert rig.hits() == []


def test_a_workflow_and_its_claims(rig: Rig) -> None:
    token = rig.mint(**claims())
    data = signer(rig, token=token).bundle(PAYLOAD)

    pattern = "https://github.com/acme/rel/.github/workflows/release.yml@refs/tags/*"
    opened = open_bundle(data, trust(rig, pattern, GITHUB), "b")

    assert isinstance(opened.signer, KeylessIdentity)
    assert opened.signer.identity == f"https://github.com/{WORKFLOW}"
    told = dict(opened.signer.claims)
    assert told["sourceRepositoryIdentifier"] == "1234"
    assert told["sourceRepositoryURI"] == "https://github.com/acme/rel"
    assert told["runnerEnvironment"] == "github-hosted"
    with pytest.raises(SignatureError, match="not trusted"):
        open_bundle(data, trust(rig, pattern.replace("/rel/", "/other/"), GITHUB), "b")


def claims() -> dict[str, Any]:
    return {
        "iss": GITHUB,
        "sub": "repo:acme/rel:ref:refs/tags/v1.2",
        "job_workflow_ref": WORKFLOW,
        "repository": "acme/rel",
        "repository_id": "1234",
        "ref": "refs/tags/v1.2",
        "runner_environment": "github-hosted",
    }


# ---- where the token comes from


def test_the_ci_system_gives_the_token(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    query = json.dumps(claims()).replace(" ", "")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "rig-runner")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{rig.url}/runner?claims={query}")
    source = tokens.found_here(patience=10, interactive=False)

    data = KeylessSigner(source, config=rig.config(2)).bundle(PAYLOAD)

    identity = f"https://github.com/{WORKFLOW}"
    assert open_bundle(data, trust(rig, identity, GITHUB), "b").payload == PAYLOAD

    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "somebody")
    with pytest.raises(KeylessError, match="no identity from this CI system"):
        source(rig.config(2))
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    with pytest.raises(KeylessError, match="no identity from this CI system"):
        source(rig.config(2))


def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "ACTIONS_", "GITLAB_", "CIRCLE", "BUILDKITE", "GOOGLE_")):
            monkeypatch.delenv(name)


def test_a_person_signs_in_in_a_browser(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport sys, urllib.request as u\nu.urlopen(sys.argv[1]).read()\n"
    )
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    no_ci(monkeypatch)
    rig.login(sub="u2", email="carol@example.com", email_verified=True, iss=ISSUER)
    # webbrowser remembers the first BROWSER of a process, so another one asks
    code = (
        "import sys, pathlib\n"
        "from parentage.attest.keyless_signer import KeylessSigner\n"
        "from parentage.attest.tokens import found_here\n"
        "source = found_here(patience=10, interactive=True)\n"
        "config = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "sys.stdout.buffer.write(KeylessSigner(source, config=config).bundle(sys.stdin.buffer.read()))\n"
    )
    (tmp_path / "config.json").write_bytes(rig.config(2))
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "config.json"],
        input=PAYLOAD,
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "BROWSER": f"{browser} %s"},
    )

    assert open_bundle(done.stdout, trust(rig, "carol@example.com"), "b").payload == PAYLOAD


def test_nobody_to_ask(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    no_ci(monkeypatch)
    with pytest.raises(KeylessError, match="no identity here") as caught:
        tokens.found_here(patience=10, interactive=False)(rig.config(2))
    assert "--identity-token-file" in caught.value.hint


def test_a_token_file(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(rig.mint() + "\n")
    data = KeylessSigner(tokens.of_file(path), config=rig.config(2)).bundle(PAYLOAD)
    assert open_bundle(data, trust(rig), "b").payload == PAYLOAD

    for text in ("", "secret words", "eyJhbGciOi", "a.b", "a.b.c d"):
        path.write_text(text)
        with pytest.raises(KeylessError, match="not an identity token") as caught:
            tokens.of_file(path)(b"")
        assert not text or text not in str(caught.value)
    with pytest.raises(KeylessError, match="can't be read"):
        tokens.of_file(tmp_path / "absent")(b"")


# ---- what can go wrong, each with a name and an end

FAULTS: dict[str, tuple[int, dict[str, Any], str]] = {
    "authority-500": (2, {"path": FULCIO, "status": 500}, "certificate authority refused"),
    "authority-drops": (2, {"path": FULCIO, "drop": True}, "certificate authority does not answer"),
    "authority-refuses": (2, {"path": FULCIO, "status": 403}, "certificate authority refused"),
    "authority-nonsense": (2, {"path": FULCIO, "status": 201, "body": "<html>"}, "no signing cert"),
    "authority-list": (2, {"path": FULCIO, "status": 201, "body": "[]"}, "no signing certificate"),
    "authority-empty": (2, {"path": FULCIO, "status": 201, "body": "{}"}, "no signing certificate"),
    "log-1-500": (1, {"path": LOG_1, "status": 503}, "transparency log refused"),
    "log-1-drops": (1, {"path": LOG_1, "drop": True}, "transparency log does not answer"),
    "log-1-nonsense": (1, {"path": LOG_1, "status": 201, "body": "[1]"}, "no keyless signature"),
    "log-1-null": (
        1,
        {"path": LOG_1, "status": 201, "body": '{"a": null}'},
        "no keyless signature",
    ),
    "log-2-500": (2, {"path": LOG_2, "status": 500}, "transparency log refused"),
    "log-2-drops": (2, {"path": LOG_2, "drop": True}, "transparency log does not answer"),
    "log-2-nonsense": (2, {"path": LOG_2, "status": 201, "body": "{}"}, "no keyless signature"),
    "log-2-text": (2, {"path": LOG_2, "status": 201, "body": "hello"}, "no keyless signature"),
    "stamp-1-500": (1, {"path": TSA, "status": 500}, "timestamp authority refused"),
    "stamp-2-500": (2, {"path": TSA, "status": 500}, "timestamp authority refused"),
    "stamp-2-drops": (2, {"path": TSA, "drop": True}, "timestamp authority does not answer"),
    "stamp-2-nonsense": (2, {"path": TSA, "status": 201, "body": "no"}, "no timestamp"),
}


def failure(make: Callable[[], object]) -> KeylessError:
    with pytest.raises(KeylessError) as caught:
        make()
    return caught.value


@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_service_is_a_named_error(
    rig: Rig, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parentage.attest.patience._FIRST_PAUSE", 0.01)
    version, fault, message = FAULTS[case]
    rig.fault(fault)
    token = rig.mint()

    error = failure(lambda: signer(rig, version, token=token).bundle(PAYLOAD))

    assert message in error.what
    assert error.exit_code == 4
    assert token not in "".join(traceback.format_exception(error))
    passing = fault.get("status") in {500, 503} or fault.get("drop")
    assert len(rig.hits()) == (5 if passing else 1)


@pytest.mark.parametrize("path", [FULCIO, LOG_2, TSA])
@pytest.mark.parametrize("how", [{"delay_ms": 20_000}, {"drip_ms": 50}])
def test_a_service_that_stalls_is_given_up(rig: Rig, path: str, how: dict[str, Any]) -> None:
    rig.fault({"path": path, **how})
    begun = time.monotonic()

    error = failure(lambda: signer(rig, patience=0.7).bundle(PAYLOAD))

    assert "did not answer in time" in error.what
    assert path in error.where
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("path", [FULCIO, LOG_1, TSA])
def test_a_service_that_stumbles_is_asked_again(rig: Rig, path: str) -> None:
    rig.fault({"path": path, "drop": True, "times": 1}, {"path": path, "status": 503, "times": 1})

    data = signer(rig, 1).bundle(PAYLOAD)

    assert len(rig.hits()) == 2
    assert open_bundle(data, trust(rig), "b").payload == PAYLOAD


def test_an_entry_that_the_log_has_already_is_signed_anew(rig: Rig) -> None:
    """The log took the entry and its answer was lost: the same entry is a conflict for ever."""
    conflict = {"path": LOG_1, "status": 409, "times": 1}
    rig.fault(conflict)
    assert signer(rig, 1).bundle(PAYLOAD)
    rig.fault({**conflict, "times": 2})
    assert "refused" in failure(lambda: signer(rig, 1).bundle(PAYLOAD)).what


def test_an_answer_without_end_is_not_read(rig: Rig) -> None:
    rig.fault({"path": LOG_2, "status": 201, "body": " " * (5 << 20)})
    assert "answers too much" in failure(lambda: signer(rig).bundle(PAYLOAD)).what


def test_without_a_stamp_the_log_hears_nothing(rig: Rig) -> None:
    rig.fault({"path": TSA, "status": 400}, {"path": LOG_2, "delay_ms": 0})
    failure(lambda: signer(rig).bundle(PAYLOAD))
    assert rig.hits() == [TSA]


def test_a_token_that_a_service_repeats_reaches_no_message(rig: Rig) -> None:
    token = rig.mint(sub="u1", email=ALICE, iss=ISSUER, aud=["sigstore", "x"], lifetime=3600)
    broken = token[:-8] + "AAAAAAAA"

    error = failure(lambda: signer(rig, token=broken).bundle(PAYLOAD))

    assert "[token]" in error.found
    shown = "".join(traceback.format_exception(error)) + str(error) + repr(error.as_dict())
    assert not any(part in shown for part in broken.split("."))


def test_a_token_of_another_audience_or_time(rig: Rig) -> None:
    for changed in ({"aud": "elsewhere"}, {"lifetime": -60}):
        token = rig.mint(sub="u1", email=ALICE, iss=ISSUER, **changed)
        error = failure(lambda token=token: signer(rig, token=token).bundle(PAYLOAD))  # type: ignore[misc]
        assert "identity token can't be used" in error.what


@pytest.mark.parametrize(
    "skew", [{"fulcio": 3600}, {"rekor": 1200}, {"tsa": 1200}, {"rekor": -1200}]
)
def test_clocks_that_disagree_are_noticed_before_anything_is_written(
    rig: Rig, skew: dict[str, int]
) -> None:
    rig.skew(**skew)
    error = failure(lambda: signer(rig, 1).bundle(PAYLOAD))
    assert "does not verify" in error.what


def test_a_certificate_that_has_ended(rig: Rig) -> None:
    rig.skew(fulcio=-3600)
    assert "no signing certificate" in failure(lambda: signer(rig).bundle(PAYLOAD)).what


@pytest.mark.parametrize(
    "config",
    [b"", b"{}", b"[]", b"\xff", b'{"mediaType": "x", "trustedRoot": {}, "signingConfig": {}}'],
)
def test_a_broken_config_is_named(config: bytes) -> None:
    error = failure(lambda: KeylessSigner(given("a.b.c"), config=config).bundle(PAYLOAD))
    assert "client trust config" in error.what


def test_a_config_without_a_log(rig: Rig) -> None:
    config = rig.config(2, rekorTlogUrls=[])
    error = failure(lambda: KeylessSigner(given(rig.mint()), config=config).bundle(PAYLOAD))
    assert "Rekor" in error.found


def test_a_statement_that_sigstore_does_not_sign(rig: Rig) -> None:
    assert failure(lambda: signer(rig).bundle(b"{}")).what == "no keyless signature"


# ---- TUF


def test_a_private_instance_by_tuf(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    held = json.loads(rig.config(2))
    targets = {
        "trusted_root.json": json.dumps(held["trustedRoot"]).encode(),
        "signing_config.v0.2.json": json.dumps(held["signingConfig"]).encode(),
    }
    root = write(tmp_path / "tuf", targets)
    with served(tmp_path / "tuf") as url:
        config = keyless.fetch_config(Deadline(20), url, root)
        data = KeylessSigner(given(rig.mint()), config=config).bundle(PAYLOAD)
        (tmp_path / "tuf" / "targets" / "trusted_root.json").write_bytes(b"{}")
        for cached in (tmp_path / "home").rglob("trusted_root.json"):
            cached.unlink()
        error = failure(lambda: keyless.fetch_config(Deadline(20), url, root))
    assert open_bundle(data, trust(rig), "b").payload == PAYLOAD
    assert "can't be fetched" in error.what
    error = failure(lambda: keyless.fetch_config(Deadline(20), url, root))
    assert "can't be fetched" in error.what
