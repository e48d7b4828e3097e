"""`claims.jsonl`: order-free, append-only; losing or adding lines never raises a verdict."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from worlds import MERGE, World

import parentage
from parentage import KeySigner, PrivateKey, TrustedKeys
from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS
from parentage.attest.peek import peek
from parentage.manifest.errors import StatementError, UnsignedError, UsageError

#: From worst to best; a lost line may only move to the left.
ORDER = [3, 1, 4, 0]


def lines(release: Path) -> list[bytes]:
    return (release / CLAIMS).read_bytes().splitlines()


@pytest.fixture
def crowded(world: World) -> Path:
    """A release whose claims hold a stranger's, an old one's, another kind and junk."""
    release = world.merge()
    own = lines(release)[0]
    payload = bundle.parse(own, "t").payload
    strange = bundle.build(payload, KeySigner(PrivateKey.generate()))
    note = json.loads(payload) | {"predicateType": "https://example.com/endorsement/v0.1"}
    kind = bundle.build(json.dumps(note).encode(), KeySigner(world.key))
    other = world.merge(
        "other", {**MERGE, "params": {"weights": ["0.5", "0.5"], "normalize": True}}
    )
    (release / CLAIMS).write_bytes(
        b"\n".join([b"junk", strange, own, b"", kind, lines(other)[0], b"[" * 9999]) + b"\n"
    )
    return release


def test_order_and_company_do_not_matter(world: World, crowded: Path) -> None:
    expected = world.verify("merged", ["a", "b"])
    assert expected.verified
    assert any("5 lines of claims.jsonl" in text for text in expected.not_checked)
    shuffled = lines(crowded)
    for seed in range(4):
        random.Random(seed).shuffle(shuffled)
        (crowded / CLAIMS).write_bytes(b"\n".join(shuffled))
        assert world.verify("merged", ["a", "b"]).to_json() == expected.to_json()


def test_no_subset_of_the_lines_raises_the_verdict(world: World, crowded: Path) -> None:
    everything = lines(crowded)
    best = ORDER.index(world.verify("merged", ["a", "b"]).exit_code)
    for size in range(len(everything) + 1):
        for subset in itertools.combinations(everything, size):
            (crowded / CLAIMS).write_bytes(b"\n".join(subset))
            found = world.verify("merged", ["a", "b"], level="integrity").exit_code
            assert ORDER.index(found) <= best
            if everything[2] not in subset:
                assert found != 0


def test_two_lineages_about_the_same_weights_are_refused(world: World) -> None:
    release = world.merge()
    payload = json.loads(bundle.parse(lines(release)[0], "t").payload)
    payload["predicate"]["created"] = "2026-01-01T00:00:00Z"
    from parentage.manifest import canonical

    second = bundle.build(canonical.dumps(payload), KeySigner(world.key))
    with (release / CLAIMS).open("ab") as file:
        file.write(second + b"\n")

    report = world.verify("merged", ["a", "b"])

    assert report.exit_code == 1
    assert "two lineages" in report.findings[0].message


def test_signing_again_replaces_the_own_lineage_and_keeps_the_rest(
    world: World, crowded: Path
) -> None:
    before = lines(crowded)
    recipe = world.recipe(["a", "b"], [MERGE])
    parents = {name: world.root / name for name in ("a", "b")}
    parentage.declare(crowded, recipe, parents=parents)
    world.sign("merged")

    assert [line for line in before if line and line != before[2]] == lines(crowded)[:-1]
    assert world.verify("merged", ["a", "b"]).verified


def test_subjects_must_all_match(world: World) -> None:
    """The same root of files under other names is another model signature, so another subject."""
    from parentage.attest.claims import find_lineage
    from parentage.attest.opening import open_bundle
    from parentage.manifest.files import open_files

    release = world.merge()
    payload = json.loads(bundle.parse(lines(release)[0], "t").payload)
    for index, subject in enumerate(payload["subject"]):
        changed = json.loads(json.dumps(payload))
        changed["subject"][index]["digest"]["sha256"] = "0" * 64
        line = bundle.build(json.dumps(changed).encode(), KeySigner(world.key))
        (release / CLAIMS).write_bytes(line)
        with open_files(release) as files:
            opened = open_bundle((release / "model.sig").read_bytes(), world.trust, "t")
            with pytest.raises(StatementError, match="something else") as caught:
                find_lineage(files, opened, world.trust)
        assert caught.value.where == f"subject {subject['name']}"


def test_a_subject_may_not_be_left_out(world: World) -> None:
    release = world.merge()
    payload = json.loads(bundle.parse(lines(release)[0], "t").payload)
    del payload["subject"][2]
    line = bundle.build(json.dumps(payload).encode(), KeySigner(world.key))
    (release / CLAIMS).write_bytes(line)

    assert world.verify("merged", ["a", "b"]).exit_code == 1


def test_lineage_and_signature_must_be_by_one_signer(world: World) -> None:
    """Two trusted keys: a lineage by one about files signed by the other is not the publisher's."""
    other = PrivateKey.generate()
    release = world.merge()
    payload = bundle.parse(lines(release)[0], "t").payload
    (release / CLAIMS).write_bytes(bundle.build(payload, KeySigner(other)))
    world.trust = TrustedKeys((world.key.public, other.public))

    assert world.verify("merged", ["a", "b"]).exit_code == 3


def test_peek_reads_what_is_there_and_trusts_nothing(world: World, crowded: Path) -> None:
    found = peek(crowded)

    assert [entry["where"] for entry in found] == [
        "model.sig", *(f"claims.jsonl:{n}" for n in (2, 3, 5, 6)),
    ]  # fmt: skip
    assert peek(crowded / CLAIMS)[0]["predicateType"].endswith("lineage/v0.1")
    with pytest.raises(UnsignedError):
        peek(world.root / "a")
    with pytest.raises(UsageError):
        peek(world.root / "nowhere")
