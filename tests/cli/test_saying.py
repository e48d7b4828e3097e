"""What is said of a release after it was signed: commands, real keys, and what a gate makes of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from gates import Gate, codes
from worlds import MERGE, World, command

from parentage.attest.bundle import CLAIMS
from parentage.attest.speaking import append


@pytest.fixture
def gate(world: World) -> Gate:
    return Gate(world)


def test_affirmed_and_withdrawn(gate: Gate) -> None:
    gate.policy("status: {onMissing: fail}")
    assert codes(gate.verify(code=5)) == ["status-missing"]

    first = gate.say("affirm", "owner", "--for", "12h")
    report = gate.verify()
    assert (report["standing"]["state"], report["standing"]["fresh"]) == ("current", True)
    assert report["standing"]["payload"] == first["payload"]

    second = gate.say(
        "withdraw", "owner", "--reason", "license", "--statement", "\x1b[31mno licence"
    )
    assert second["predicate"]["sequence"] == 2
    assert second["predicate"]["previous"] == {"sha256": first["payload"]}
    report = gate.verify(code=5)
    assert codes(report) == ["release-withdrawn"]
    assert report["verdict"] == "denied"
    text = command(
        "verify", gate.release, "--policy", gate.root / "trust.yaml", "--level", "integrity"
    ).stdout
    assert text.startswith("DENIED")
    assert "withdrawn since" in text
    assert "no licence" in text
    assert "\x1b" not in text


def test_with_a_key_alone(gate: Gate) -> None:
    """No policy: the publisher's own withdrawal counts all the same."""
    gate.do("withdraw", gate.release, "--key", "{}/owner.key", "--reason", "security")
    report = gate.do(
        "verify", gate.release, "--key", "{}/owner.pub", "--level", "integrity", code=5
    )

    assert codes(report) == ["release-withdrawn"]


def test_superseded_and_announced_in_both(gate: Gate) -> None:
    new = gate.world.merge(
        "fixed", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}}
    )
    said = gate.say("supersede", "owner", "--by", new, "--reason", "wrong-artifact",
                    "--uri", "pkg:huggingface/acme/rio@2")  # fmt: skip

    assert len(said["writtenTo"]) == 2
    lineage = gate.payloads()[1]
    import hashlib

    assert said["predicate"]["falseClaims"] == [{"sha256": hashlib.sha256(lineage).hexdigest()}]
    report = gate.verify()
    assert report["standing"]["state"] == "superseded"
    (successor,) = report["standing"]["supersededBy"]
    assert successor["weights"] == dict(gate.world.lineage("fixed").weights.root)
    assert any(f["code"] == "release-superseded" and not f["denies"] for f in report["findings"])
    other = gate.do("verify", new, "--policy", "{}/trust.yaml", "--level", "integrity")
    assert other["standing"]["state"] == "unknown"
    gate.policy("status: {onSuperseded: fail}")
    assert codes(gate.verify(code=5)) == ["release-superseded"]


def test_what_was_superseded_stays_readable(gate: Gate) -> None:
    """A later word does not erase the first claim: it verifies as history, recipe and all."""
    new = gate.world.merge(
        "fixed", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}}
    )
    before = gate.lines()
    gate.say("supersede", "owner", "--by", new, "--reason", "other")

    assert gate.lines()[: len(before)] == before
    report = gate.do("verify", gate.release, "--policy", "{}/trust.yaml", "--device", "cpu",
                     "--parent", "{}/a", "--parent", "{}/b")  # fmt: skip
    assert (report["verdict"], report["reached"]) == ("verified", "A (exact)")


def test_recovery_by_two_of_three(gate: Gate) -> None:
    said = gate.say(
        "withdraw", "safe1", "--reason", "key-compromise", "--since", "2026-01-01T00:00:00Z"
    )
    report = gate.verify()
    assert codes(report) == []
    assert any(f["code"] == "dispute" for f in report["findings"])

    gate.say("countersign", "stranger", said["payload"])
    gate.say("countersign", "safe1", said["payload"])
    assert codes(gate.verify()) == []

    gate.say("countersign", "safe3", said["payload"])
    assert codes(gate.verify(code=5)) == ["key-compromised"]

    # Whoever has the key now says that all is well, and is not heard.
    gate.say("affirm", "owner")
    assert codes(gate.verify(code=5)) == ["key-compromised"]


def test_a_dispute_is_shown_and_fails_nothing(gate: Gate) -> None:
    counter = {"parents": [{"id": "nex", "weights": {"ptd1-b3": "0" * 64}}],
               "recipe": {"steps": [{"id": "copy", "op": "copy/v1", "inputs": ["nex"]}]}}  # fmt: skip
    (gate.root / "counter.json").write_text(json.dumps(counter))
    said = gate.say("dispute", "stranger", "--reason", "undisclosed-parent", "--statement", "it is \x1b[1mours",
                    "--counter", "{}/counter.json", "--evidence", "{}/counter.json")  # fmt: skip
    assert said["predicate"]["counter"]["recipe"]["steps"][0]["inputs"] == ["nex"]
    gate.policy("status: {onDispute: fail}")

    report = gate.verify()
    (shown,) = report["standing"]["disputes"]
    assert shown["roles"] == []
    assert "(not checked)" in shown["by"]
    assert report["verdict"] == "verified"
    assert "\x1b" not in json.dumps([f for f in report["findings"] if f["code"] == "dispute"])
    assert not any("other keys" in text for text in report["notChecked"])

    gate.say("dispute", "lab1", "--reason", "undisclosed-parent")
    assert codes(gate.verify(code=5)) == ["disputed"]


def test_endorsed_by_as_many_as_the_policy_demands(gate: Gate) -> None:
    gate.policy("require: [{endorsement: {by: witness}}]")
    assert codes(gate.verify(code=5)) == ["requirement-not-met"]
    gate.say("endorse", "stranger")
    gate.say("endorse", "lab1")
    gate.say("endorse", "owner")
    assert codes(gate.verify(code=5)) == ["requirement-not-met"]

    gate.say("endorse", "hub")
    report = gate.verify()
    assert report["required"][0]["met"]
    assert (
        "met by 1"
        in command(
            "verify", gate.release, "--policy", gate.root / "trust.yaml", "--level", "integrity"
        ).stdout
    )


def test_written_elsewhere(gate: Gate) -> None:
    before = gate.lines()
    gate.say("endorse", "hub", "-o", "{}/endorsement.sigstore.json")

    assert gate.lines() == before
    assert gate.do("show", "{}/endorsement.sigstore.json")["claims"][0]["predicateType"].endswith(
        "endorsement/v0.1"
    )


def test_mistakes(gate: Gate) -> None:
    for arguments, code, message in (
        (["withdraw", gate.release, "--key", "{}/stranger.key", "--reason", "other"], 1, "not trusted"),
        (["withdraw", gate.release, "--key", "{}/owner.key", "--reason", "boredom"], 2, "boredom"),
        (["withdraw", gate.release, "--key", "{}/owner.key", "--reason", "other", "--since", "now"], 2, "not a time"),
        (["affirm", gate.release, "--key", "{}/owner.key", "--for", "ever"], 2, "length of time"),
        (["supersede", gate.release, "--key", "{}/owner.key", "--reason", "other", "--by", gate.release], 2, "itself"),
        (["supersede", gate.release, "--key", "{}/owner.key", "--reason", "other", "--by", "{}/a"], 3, "no signature"),
        (["endorse", "{}/a", "--key", "{}/owner.key"], 3, "no signature"),
        (["dispute", gate.release, "--key", "{}/owner.key", "--reason", "other", "--claim", "x"], 2, "SHA-256"),
        (["dispute", gate.release, "--key", "{}/owner.key", "--reason", "other", "--counter", "{}/owner.pub"], 1, "JSON"),
        (["countersign", gate.release, "0" * 64, "--key", "{}/owner.key"], 2, "nobody believed"),
    ):  # fmt: skip
        found = gate.do(*arguments, code=code)
        assert message in json.dumps(found), found
    assert len(gate.lines()) == 1


def test_claims_that_are_a_link_are_left_alone(gate: Gate) -> None:
    path = gate.release / CLAIMS
    path.rename(gate.root / "blob")
    path.symlink_to(gate.root / "blob")

    before = (gate.root / "blob").read_bytes()
    command("endorse", gate.release, "--key", gate.root / "owner.key")
    assert (gate.root / "blob").read_bytes() == before


def test_several_who_speak_at_once_lose_nothing(gate: Gate) -> None:
    def speak(number: int) -> None:
        for turn in range(10):
            append(gate.release, [f"{number} {turn}\n".encode()])

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(gate.lines()[1:]) == sorted(
        f"{n} {t}".encode() for n in range(4) for t in range(10)
    )


def test_an_older_file_without_a_last_newline(gate: Gate, tmp_path: Path) -> None:
    path = gate.release / CLAIMS
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    gate.say("affirm", "owner")

    assert len(gate.lines()) == 2
    assert gate.verify()["standing"]["state"] == "current"


def test_show_tells_what_is_claimed(gate: Gate) -> None:
    gate.say("withdraw", "owner", "--reason", "license")
    shown: Any = command("show", gate.release).stdout

    assert "state    withdrawn" in shown
    assert "reason   license" in shown
