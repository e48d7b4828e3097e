"""What is said of a release after it was signed: commands, real keys, and what a gate makes of it."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gates import Gate, codes, write
from tsa import OpensslTsa
from worlds import MERGE, World, command

import parentage
from parentage import Demands
from parentage.attest import clock
from parentage.attest.bundle import CLAIMS
from parentage.attest.policy_file import load
from parentage.attest.speaking import append
from parentage.attest.statements import status
from parentage.attest.statements.shared import About, Digest, sha256
from parentage.attest.statements.status import Status
from parentage.manifest import canonical


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


def locked(gate: Gate, release: Path | None = None, code: int = 0, *more: object) -> Any:
    return gate.do("verify", release or gate.release, "--policy", "{}/trust.yaml", "--level", "integrity",
                   "--lock", "{}/parentage.lock", "--lock-name", "acme/rio", *more, code=code)  # fmt: skip


def test_a_lock_file_remembers(gate: Gate) -> None:
    assert locked(gate)["lock"]["state"] == "first use"
    document = json.loads((gate.root / "parentage.lock").read_text())
    entry = document["releases"]["acme/rio"]
    assert entry["signers"] == [f"key {gate.keys['owner'].public.fingerprint}"]
    assert entry["weights"] == dict(gate.world.lineage("merged").weights.root)
    before = (gate.root / "parentage.lock").read_bytes()
    assert locked(gate)["lock"]["state"] == "as remembered"
    assert (gate.root / "parentage.lock").read_bytes() == before


def test_a_silent_re_upload_is_refused_and_an_announced_one_is_not(gate: Gate) -> None:
    locked(gate)
    before = (gate.root / "parentage.lock").read_bytes()
    new = gate.world.merge(
        "fixed", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}}
    )
    report = locked(gate, new, 5)
    assert codes(report) == ["unannounced-replacement"]
    assert (report["verdict"], report["lock"]["state"]) == ("denied", "refused")
    assert (gate.root / "parentage.lock").read_bytes() == before

    gate.say("supersede", "owner", "--by", new, "--reason", "wrong-artifact")
    assert locked(gate, new)["lock"]["state"] == "replaced as announced"
    # And not back again.
    assert codes(locked(gate, gate.release, 5)) == ["unannounced-replacement"]


def test_a_chain_of_replacements_is_carried_along(gate: Gate) -> None:
    locked(gate)
    releases = [gate.release]
    for number, weights in enumerate((["0.5", "0.5"], ["0.3", "0.7"])):
        params = {"weights": weights, "normalize": True}
        releases.append(gate.world.merge(f"next{number}", {**MERGE, "params": params}))
        gate.release = releases[-2]
        gate.say("supersede", "owner", "--by", releases[-1], "--reason", "other")

    assert locked(gate, releases[-1])["lock"]["state"] == "replaced as announced"


def test_the_same_files_under_another_lineage_are_refused(gate: Gate) -> None:
    """A claim that is quietly exchanged, as a card would be."""
    locked(gate)
    statement = json.loads(gate.payloads()[1])
    statement["predicate"]["created"] = "2020-01-01T00:00:00Z"
    write(gate.release / CLAIMS, [])
    gate.sign(canonical.dumps(statement), "owner")
    report = locked(gate, None, 5)

    assert codes(report) == ["unannounced-replacement"]
    assert "another lineage" in json.dumps(report["findings"])


def test_a_signature_that_vanished_is_refused(gate: Gate) -> None:
    locked(gate)
    (gate.release / "model.sig").unlink()
    report = locked(gate, None, 5)

    assert codes(report) == ["signature-vanished"]
    assert locked(gate, gate.root / "a", 3, "--lock-name", "acme/other")["lock"] is None


def test_a_withdrawal_that_was_seen_can_not_be_left_out(gate: Gate) -> None:
    gate.say("affirm", "owner")
    locked(gate)
    gate.say("withdraw", "owner", "--reason", "license")
    assert codes(locked(gate, None, 5)) == ["release-withdrawn"]
    write(gate.release / CLAIMS, gate.lines()[:2])

    assert codes(gate.verify()) == []
    assert codes(locked(gate, None, 5)) == ["status-went-back"]


def test_what_is_refuted_or_denied_by_the_policy_is_not_remembered(gate: Gate) -> None:
    gate.policy("require: [{endorsement: {}}]")
    locked(gate, None, 5)
    assert not (gate.root / "parentage.lock").exists()
    gate.policy("")
    (gate.release / "extra.py").write_text("import os")
    locked(gate, None, 1)
    assert not (gate.root / "parentage.lock").exists()


def test_what_the_lock_file_calls_a_release(gate: Gate) -> None:
    def name(release: Path) -> str:
        found = gate.do(
            "verify", release, "--key", "{}/owner.pub", "--level", "integrity", "--lock", "{}/l"
        )
        return str(found["lock"]["name"])

    assert name(gate.release) == "merged"
    cache = gate.root / "models--acme--rio" / "snapshots" / ("0" * 40)
    cache.parent.mkdir(parents=True)
    gate.release.rename(cache)
    assert name(cache) == "acme/rio"


def test_lock_mistakes(gate: Gate) -> None:
    (gate.root / "bad").write_text("{}")
    found = gate.do("verify", gate.release, "--key", "{}/owner.pub", "--lock", "{}/bad", code=2)
    assert found["error"]["code"] == "lock"
    found = gate.do("verify", gate.release, "--key", "{}/owner.pub", "--lock-name", "a", code=2)
    assert "--lock" in found["error"]["message"]


def test_a_timestamp_keeps_what_was_signed_before_the_theft(gate: Gate) -> None:
    """With a real authority over HTTP, named by the policy; the clock is an argument."""
    theft = datetime.now(UTC) + timedelta(days=1)
    with OpensslTsa(gate.root / "tsa").serving() as tsa:
        recipe = {"version": "0.1", "parents": [{"id": "a"}, {"id": "b"}], "steps": [MERGE]}
        (gate.root / "recipe.json").write_text(json.dumps(recipe))
        (gate.release / CLAIMS).unlink()
        gate.do("declare", gate.release, "--recipe", "{}/recipe.json", *parents())
        gate.do("sign", gate.release, "--key", "{}/owner.key", "--timestamp-url", tsa.url)
        gate.do("affirm", gate.release, "--key", "{}/owner.key", "--timestamp-url", tsa.url)
    payload = stolen(gate, theft)
    for name in ("safe1", "safe2"):
        gate.sign(payload, name)

    def judged(rest: str) -> Any:
        gate.policy(rest)
        return parentage.verify_release(
            gate.release, trust=load(gate.root / "trust.yaml"),
            demands=Demands(level="integrity", now=theft + timedelta(days=1)),
        )  # fmt: skip

    assert judged("").exit_code == 5
    report = judged("timestamps: [{root: tsa/root.pem}]\nstatus: {onMissing: fail}")
    assert (report.exit_code, report.standing and report.standing.state) == (0, "current")


def parents() -> list[str]:
    return ["--parent", "a={}/a", "--parent", "b={}/b"]


def stolen(gate: Gate, since: datetime) -> bytes:
    oms, lineage = gate.payloads()[:2]
    about = About(sha256(lineage), json.loads(oms)["subject"][0]["digest"]["sha256"])
    found = Status(state="withdrawn", sequence=2, effective_at=clock.to_text(since), reason="key-compromise",
                   previous=Digest(sha256=sha256(gate.payloads()[-1])))  # fmt: skip
    return status.build(about, found)


def test_where_a_release_lies(gate: Gate) -> None:
    gate.policy("require: [{release: {purl: 'pkg:huggingface/acme/rio@*'}}]")
    assert codes(gate.verify(code=5)) == ["requirement-not-met"]
    gate.say("locate", "owner", "--at", "pkg:huggingface/evil/rio@1")
    assert "evil" in json.dumps(gate.verify(code=5)["required"])
    gate.say("locate", "owner", "--at", f"pkg:huggingface/acme/rio@{'0' * 40}")

    assert gate.verify()["required"][0]["met"]
    assert (
        "package URL" in gate.say("locate", "owner", "--at", "acme/rio", code=2)["error"]["message"]
    )


def test_shards_are_joined_by_the_verifiers_of_a_policy(gate: Gate) -> None:
    def shard(number: int, name: str) -> None:
        gate.do("verify", gate.release, "--policy", "{}/trust.yaml", "--parent", "{}/a", "--parent", "{}/b",
                "--device", "cpu", "--shard", f"{number}/2", "-o", f"{{}}/part{number}",
                "--sign-key", f"{{}}/{name}.key", code=4)  # fmt: skip

    shard(1, "lab1")
    shard(2, "lab2")
    join = ("join", gate.release, "{}/part1", "{}/part2", "--policy", "{}/trust.yaml")
    assert gate.do(*join)["verdict"] == "verified"
    shard(2, "hub")
    assert "no verifier in this policy" in gate.do(*join, code=1)["error"]["message"]
    shard(2, "owner")
    assert gate.do(*join, code=1)["error"]["code"] == "part"
    alone = gate.do("join", gate.release, "{}/part1", "--key", "{}/owner.pub", code=2)
    assert "whose parts" in alone["error"]["message"]
    own = gate.do(*join, "--verifier", "{}/owner.pub", code=2)
    assert "can't be a verifier" in own["error"]["message"]
