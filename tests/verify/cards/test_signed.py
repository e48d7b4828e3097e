"""Cards of signed releases: what was changed since, and by whom the manifest is."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from parentage import PrivateKey, TrustedKeys
from parentage.manifest.errors import MalformedError, SignatureError, UnsignedError, UsageError
from parentage.verify.cards.check import check
from parentage.verify.cards.report import CardReport
from parentage.verify.showing import Level


def found(report: CardReport) -> list[tuple[str, str]]:
    return [(problem.code, problem.level.value) for problem in report.problems]


GOLDEN = Path(__file__).parents[2] / "vectors" / "recomputed-by-one"


def edit(release: Any, old: str, new: str) -> None:
    path = release.folder / "README.md"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_synced_and_signed_is_true(signed: Any) -> None:
    report = check(signed.folder, trust=signed.trust)

    assert found(report) == []
    assert (report.manifest, report.exit_code) == ("verified", 0)
    assert check(signed.folder).manifest == "signed"


def test_a_typo_corrected_after_signing_is_a_note(signed: Any) -> None:
    edit(signed, "A merge.", "A  merge.")

    report = check(signed.folder)

    assert found(report) == [("C08", "note")]
    assert "its metadata is as signed" in report.problems[0].message
    assert report.exit_code == 0


def test_metadata_changed_after_signing_names_the_key(signed: Any) -> None:
    edit(signed, "license: apache-2.0", "license: gpl-3.0\nlanguage: no")

    report = check(signed.folder)
    strict = check(signed.folder, levels={"C08": Level.ERROR})

    assert found(report) == [("C08", "warning")]
    assert report.problems[0].message == "the card's metadata was changed after signing"
    assert (report.problems[0].where, report.problems[0].line) == ("language, license", 3)
    assert (strict.exit_code, strict.verdict) == (1, "refuted")


def test_the_signed_card_at_hand_says_what_stood_there(signed: Any, tmp_path: Path) -> None:
    shutil.copy(signed.folder / "README.md", tmp_path / "then.md")
    (signed.folder / ".parentage" / "card.json").unlink()
    edit(signed, "license: apache-2.0", "license: gpl-3.0")

    with_it = check(signed.folder, signed_card=tmp_path / "then.md").problems[0]
    without = check(signed.folder).problems[0]

    assert (with_it.where, with_it.line) == ("license", 2)
    assert with_it.expected == 'license: "apache-2.0"'
    assert with_it.found == 'license: "gpl-3.0"'
    assert without.message == "the card was changed after signing"
    with pytest.raises(UsageError, match="not the card that was signed"):
        check(signed.folder, signed_card=signed.folder / "README.md")


def test_a_record_that_is_not_signed_is_not_believed(signed: Any) -> None:
    """Whoever edits the card could edit its digests, too, and call it a typo."""
    from parentage.manifest.card import digests_of, read_card

    edit(signed, "license: apache-2.0", "license: gpl-3.0")
    data = (signed.folder / "README.md").read_bytes()
    record = signed.folder / ".parentage" / "card.json"
    forged = json.loads(digests_of(read_card(data), data).to_json())
    record.write_text(json.dumps({**forged, "body": "0" * 64}))

    assert found(check(signed.folder)) == [("C08", "warning")]
    assert check(signed.folder).problems[0].message == "the card was changed after signing"


def test_a_card_that_is_gone_or_new(signed: Any) -> None:
    (signed.folder / "README.md").unlink()

    assert found(check(signed.folder)) == [("C01", "error"), ("C08", "warning")]


def test_sign_keeps_the_digests_of_what_it_signs(signed: Any) -> None:
    record = json.loads((signed.folder / ".parentage" / "card.json").read_bytes())
    data = (signed.folder / "README.md").read_bytes()

    assert record["file"] == hashlib.sha256(data).hexdigest()
    body = data.partition(b"---\n")[2].partition(b"---\n")[2]
    assert record["body"] == hashlib.sha256(body).hexdigest()
    assert record["matter"]["license"] == hashlib.sha256(b'"apache-2.0"').hexdigest()


def test_a_record_of_an_earlier_card_is_not_signed_again(signed: Any) -> None:
    signed.declare()
    (signed.folder / "README.md").write_bytes(b"\xff")
    signed.sign()

    assert not (signed.folder / ".parentage" / "card.json").exists()


@pytest.mark.parametrize("spoil", ["size", "header", "gone"])
def test_other_weights_than_the_manifests(signed: Any, spoil: str) -> None:
    path = signed.folder / "model.safetensors"
    data = path.read_bytes()
    if spoil == "size":
        path.write_bytes(data + b"\0")
    elif spoil == "header":
        path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    else:
        path.unlink()

    report = check(signed.folder)

    assert found(report) == [("C09", "error")]
    assert report.exit_code == 1


def test_bytes_of_weights_are_read_where_they_are_asked_for(signed: Any) -> None:
    path = signed.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")

    quick, full = check(signed.folder), check(signed.folder, weights=True)

    assert found(quick) == []
    assert any("bytes of the weights" in text for text in quick.not_checked)
    assert found(full) == [("C09", "error")]
    assert not any("bytes of the weights" in text for text in full.not_checked)


def test_a_draft_goes_first_and_a_key_asks_for_what_is_signed(signed: Any) -> None:
    signed.declare()

    assert check(signed.folder).manifest == "declared"
    assert check(signed.folder, trust=signed.trust).manifest == "verified"


def test_nobody_elses_manifest_counts(signed: Any) -> None:
    stranger = TrustedKeys((PrivateKey.generate().public,))

    with pytest.raises(SignatureError):
        check(signed.folder, trust=stranger)


def test_two_lineages_need_a_key_to_choose(signed: Any) -> None:
    """Unverified, any line says it is by the publisher: which one counts is not guessed."""
    path = signed.folder / ".parentage" / "claims.jsonl"
    bundle = json.loads(path.read_bytes())
    import base64

    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["predicate"]["created"] = "2020-01-01T00:00:00Z"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    path.write_bytes(path.read_bytes() + b"junk\n" + json.dumps(bundle).encode() + b"\n")

    with pytest.raises(MalformedError, match="several lineages"):
        check(signed.folder)
    assert check(signed.folder, trust=signed.trust).exit_code == 0


def test_a_lineage_of_other_weights_is_not_this_ones(signed: Any) -> None:
    table = signed.folder / ".parentage" / "tensors.jsonl"
    table.write_bytes(table.read_bytes() + b"\n")

    with pytest.raises(MalformedError, match="about these weights"):
        check(signed.folder)


def test_a_signature_without_a_lineage_is_no_manifest(signed: Any) -> None:
    (signed.folder / ".parentage" / "claims.jsonl").unlink()

    for trust in (None, signed.trust):
        with pytest.raises(UnsignedError):
            check(signed.folder, trust=trust)


def test_the_section_is_the_manifests(signed: Any) -> None:
    edit(signed, "1. merge: 0.6 x", "1. merge: 0.9 x")

    assert ("C06", "warning") in found(check(signed.folder))
    edit(signed, "<!-- parentage:end -->", "")
    assert ("C06", "warning") in found(check(signed.folder))


def benchmark(release: Any, root: str, value: str) -> bytes:
    """A benchmark statement over a weights root, as one line of claims, signed by the publisher."""
    from parentage import KeySigner
    from parentage.attest import bundle
    from parentage.attest.statement import Subject
    from parentage.attest.statements import benchmark as benchmarks
    from parentage.attest.statements.shared import Digest

    said = benchmarks.Benchmark(
        binding="asserted",
        weights={"ptd1-b3": root},
        created="2026-06-14T09:00:00Z",
        harness=benchmarks.Harness(name="lm-eval"),
        tasks=(benchmarks.Task(id="mmlu", dataset="cais/mmlu"),),
        scores=(benchmarks.Score(task="mmlu", metric="acc,none", value=value),),
        results=benchmarks.Results(media_type="application/json", sha256="4" * 64),
    )
    payload = benchmarks.build(Digest(sha256="5" * 64), (Subject("model", "6" * 64),), said)
    return bundle.build(payload, KeySigner(release.key)) + b"\n"


INDEX = """\
model-index:
- name: rio
  results:
  - dataset: {name: MMLU, type: cais/mmlu}
    metrics: [{type: acc, value: %s}]
"""


@pytest.mark.parametrize(
    ("said", "signed_value", "ours", "message"),
    [
        ("0.71", "0.7134", True, ""),
        ("71.3", "0.7134", True, ""),
        ("0.72", "0.7134", True, "that no statement binds to these weights"),
        (".nan", "0.7134", True, "that no statement binds to these weights"),
        ("1e999999", "0.7134", True, "that no statement binds to these weights"),
        ("0.71", "0.7134", False, "that a statement binds to other weights"),
    ],
)
def test_a_score_is_bound_by_a_statement_over_these_weights(
    signed: Any, said: str, signed_value: str, ours: bool, message: str
) -> None:
    edit(signed, "license: apache-2.0\n", "license: apache-2.0\n" + INDEX % said)
    root = check(signed.folder).root["ptd1-b3"] if ours else "7" * 64
    path = signed.folder / ".parentage" / "claims.jsonl"
    path.write_bytes(path.read_bytes() + benchmark(signed, root, signed_value))

    for trust in (None, signed.trust):
        problems = [p for p in check(signed.folder, trust=trust).problems if p.code == "C10"]
        assert [p.message for p in problems] == (
            [f"1 benchmark results {message}"] if message else []
        )


def test_a_strangers_statement_binds_nothing_where_a_key_is_named(signed: Any) -> None:
    edit(signed, "license: apache-2.0\n", "license: apache-2.0\n" + INDEX % "0.71")
    root = check(signed.folder).root["ptd1-b3"]
    path = signed.folder / ".parentage" / "claims.jsonl"
    kept = path.read_bytes()
    signed.key = PrivateKey.generate()
    path.write_bytes(kept + benchmark(signed, root, "0.7134"))

    assert "C10" in {p.code for p in check(signed.folder, trust=signed.trust).problems}


def test_what_trusted_verifiers_recomputed_is_in_the_section() -> None:
    from parentage.attest.policy_file import load
    from parentage.verify.cards.sync import plan

    by_policy = plan(GOLDEN / "release", load(GOLDEN / "trust.yaml")).after.decode()
    unverified = plan(GOLDEN / "release").after.decode()

    assert "- recomputed: 3 tensors at rung A" in by_policy
    assert "recomputed:" not in unverified


def test_broken_digests_of_a_card_are_no_way_around_the_rules(
    signed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher can sign anything; what is signed and can't be read leaves the card unproven."""
    from parentage.manifest import card as cards

    signed.declare()
    monkeypatch.setattr(cards.Digests, "to_json", lambda _: b"[]\n")
    signed.sign()

    report = check(signed.folder, trust=signed.trust)

    assert (report.exit_code, report.verdict) == (4, "unproven")
    assert len(report.rules) == 13


def test_nobody_but_a_verifier_says_how_far_it_was_recomputed(tmp_path: Path) -> None:
    """Neither the author of the card, nor somebody who is believed in another role."""
    from parentage.attest.policy_file import load
    from parentage.verify.cards.sync import plan

    shutil.copytree(GOLDEN, tmp_path / "all")
    folder, policy = tmp_path / "all" / "release", tmp_path / "all" / "trust.yaml"
    card = folder / "README.md"
    believed = load(policy)
    card.write_bytes(plan(folder, believed).after)
    true, line = card.read_text(), "- recomputed: 3 tensors at rung A (.parentage/claims.jsonl:"
    assert line in true
    assert "C06" not in {p.code for p in check(folder, trust=believed).problems}
    for lie in (line + "9)", "- recomputed: all of it, by NASA"):
        card.write_text(true.replace(line, lie + "\n" + line))
        assert "C06" in {p.code for p in check(folder, trust=believed).problems}, lie

    card.write_text(true)
    policy.write_text(
        policy.read_text()
        .replace("{key: lab1.pub}, ", "")
        .replace(", threshold: 2}\n  witness: {any: [", "}\n  witness: {any: [{key: lab1.pub}, ")
    )
    believed = load(policy)
    assert line not in plan(folder, believed).after.decode()
    assert "C06" in {p.code for p in check(folder, trust=believed).problems}
