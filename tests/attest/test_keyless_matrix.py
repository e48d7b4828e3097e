"""One thing wrong with a keyless bundle, and two reference verifiers beside ours.

Whatever sigstore-python or @sigstore/verify refuses, we refuse.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mutations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import Case, Made
from sigstore.models import Bundle as SigstoreBundle
from sigstore.models import TrustedRoot as SigstoreRoot
from sigstore.verify import Verifier, policy
from sigstore_models.trustroot.v1 import TrustedRoot as RootModel
from sigstore_rig import Rig, judge, require_node

from parentage.attest import trusted_root
from parentage.attest.identity_pattern import IdentityPattern
from parentage.attest.keyless import NONSENSE
from parentage.attest.keyless_trust import TrustedIdentities
from parentage.attest.opening import open_bundle
from parentage.manifest.errors import (
    MalformedError,
    ParentageError,
    SignatureError,
    TrustedRootError,
)

GOLDEN = mutations.load(Path(__file__).parents[1] / "vectors" / "keyless")
REFUSALS = (SignatureError, MalformedError, TrustedRootError)


def ours(case: Case) -> ParentageError | None:
    pattern = IdentityPattern(case.identity, case.issuer)
    try:
        root = trusted_root.parse(case.root, "root")
        open_bundle(case.bundle, TrustedIdentities((pattern,), root), "bundle")
    except REFUSALS as error:
        return error
    return None


def pythons(case: Case) -> str | None:
    who = policy.Identity(identity=case.identity, issuer=case.issuer)
    try:
        verifier = Verifier(trusted_root=SigstoreRoot(RootModel.from_json(case.root)))
        verifier.verify_dsse(SigstoreBundle.from_json(case.bundle), who)
    except (*NONSENSE, OSError) as error:  # OSError: a time beyond what the system can say
        return str(error) or type(error).__name__
    return None


# ---- golden bundles: no Node, for ever


@pytest.mark.parametrize("version", [1, 2])
def test_golden_bundles_verify_for_ever(version: int) -> None:
    assert ours(mutations.honest(GOLDEN, version)) is None


@pytest.mark.parametrize(
    ("version", "name"),
    [(version, name) for version in (1, 2) for name in mutations.matrix(GOLDEN, version)],
)
def test_one_thing_wrong_is_refused(version: int, name: str) -> None:
    assert ours(mutations.matrix(GOLDEN, version)[name]) is not None


def test_a_v1_bundle_without_its_stamp_is_a_matter_of_policy() -> None:
    """The log's own time stands in; who wants more asks for it."""
    document = copy.deepcopy(GOLDEN.bundles["honest-v1"])
    document["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = []
    good = mutations.honest(GOLDEN, 1)
    case = Case(good.root, json.dumps(document).encode())
    assert ours(case) is None

    pattern = IdentityPattern(good.identity, good.issuer)
    demanding = TrustedIdentities((pattern,), trusted_root.parse(good.root, "root"), timestamps=1)
    assert open_bundle(good.bundle, demanding, "b").payload == mutations.STATEMENT
    with pytest.raises(SignatureError, match="too few timestamps"):
        open_bundle(case.bundle, demanding, "b")


# ---- every leaf of the document


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    else:
        yield path


def edited(document: Any, path: tuple[Any, ...], value: Any) -> bytes:
    changed = copy.deepcopy(document)
    held = changed
    for step in path[:-1]:
        held = held[step]
    if value is DROP:
        del held[path[-1]]
    else:
        held[path[-1]] = value
    return json.dumps(changed).encode()


DROP = object()


def variants(value: Any) -> Iterator[Any]:
    yield from (DROP, None, "", 0, [], {}, "AAAA")
    if isinstance(value, str) and value:
        for position in {0, len(value) // 3, len(value) // 2, len(value) - 1}:
            letter = "B" if value[position] == "A" else "A"
            yield value[:position] + letter + value[position + 1 :]
        yield value + "\n"
        yield " " + value
        yield value * 2
    if isinstance(value, str) and value.isdecimal():
        yield from (str(int(value) + 1), int(value), "0" + value, "-" + value, "+" + value)


def leaf_cases(made: Made, version: int) -> dict[str, Case]:
    good = mutations.honest(made, version)
    document = json.loads(good.bundle)
    cases: dict[str, Case] = {}
    for path in leaves(document):
        held: Any = document
        for step in path:
            held = held[step]
        for number, value in enumerate(variants(held)):
            name = f"{'.'.join(map(str, path))} #{number}"
            cases[name] = Case(good.root, edited(document, path, value))
    return cases


# ---- beside the references


@pytest.fixture(scope="module")
def fresh(running_rig: Rig) -> Iterator[Made]:
    foreign = Rig(require_node())
    yield mutations.make(running_rig, foreign)
    foreign.close()


def disagreements(cases: dict[str, Case]) -> list[str]:
    """Return what a reference refuses and we accept."""
    nodes = judge([(c.root, c.bundle, c.identity, c.issuer) for c in cases.values()])
    found: list[str] = []
    for (name, case), node in zip(cases.items(), nodes, strict=True):
        python = pythons(case)
        if ours(case) is None and (python is not None or not node["ok"]):
            found.append(f"{name}: python {python}, node {node}")
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_whatever_a_reference_refuses_we_refuse(fresh: Made, version: int) -> None:
    good = {"honest": mutations.honest(fresh, version)}
    cases = {**good, **mutations.matrix(fresh, version)}

    assert disagreements(cases) == []
    assert [name for name, case in cases.items() if ours(case) is None] == ["honest"]


@pytest.mark.parametrize("version", [1, 2])
def test_whatever_leaf_is_changed(fresh: Made, version: int) -> None:
    cases = leaf_cases(fresh, version)
    assert len(cases) > 200
    assert disagreements(cases) == []


def test_the_references_differ_where_we_say_that_they_do(fresh: Made) -> None:
    """Rows that one of them, or both, let pass: why ours is not just one of the two."""
    python_accepts: set[tuple[int, str]] = set()
    node_accepts: set[tuple[int, str]] = set()
    for version in (1, 2):
        cases = mutations.matrix(fresh, version)
        nodes = judge([(c.root, c.bundle, c.identity, c.issuer) for c in cases.values()])
        for (name, case), node in zip(cases.items(), nodes, strict=True):
            if pythons(case) is None:
                python_accepts.add((version, name))
            if node["ok"]:
                node_accepts.add((version, name))

    pythons_rows = {
        *(
            (1, name)
            for name in ("stamp-bit", "stamp-of-another", "stamped-before-the-certificate")
        ),
        *((2, name) for name in ("log-id-last-bit", "a-promise-from-nowhere")),
        *((1, name) for name in ("log-out-of-service", "stamper-out-of-service")),
        *((version, "authority-out-of-service") for version in (1, 2)),
        *((version, "certificate-log-out-of-service") for version in (1, 2)),
        *((version, "stamped-again") for version in (1, 2)),
        *((version, "checkpoint-by-another-name") for version in (1, 2)),
    }
    nodes_rows = {
        (version, name)
        for version in (1, 2)
        for name in ("media-type", "unknown-field", "proof-root-bit", "proof-size")
    }
    both_rows = {
        *((version, "proof-size-of-the-same-shape") for version in (1, 2)),
        *((version, "checkpoint-by-another-name-too") for version in (1, 2)),
        *((2, name) for name in ("index", "a-time-that-nobody-signs", "log-out-of-service")),
        (1, "no-promise"),
    }
    assert pythons_rows | both_rows <= python_accepts
    assert nodes_rows | both_rows <= node_accepts


# ---- any bytes


@settings(max_examples=150)
@given(st.sampled_from([1, 2]), st.data())
def test_any_bit_of_a_part_is_refused_by_name(version: int, data: st.DataObject) -> None:
    """Certificates, tokens, bodies: whatever parser they reach, it ends in a named error."""
    good = mutations.honest(GOLDEN, version)
    document = json.loads(good.bundle)
    material = document["verificationMaterial"]
    parts: list[tuple[Any, str]] = [
        (material["certificate"], "rawBytes"),
        (material["timestampVerificationData"]["rfc3161Timestamps"][0], "signedTimestamp"),
        (material["tlogEntries"][0], "canonicalizedBody"),
    ]
    holder, key = data.draw(st.sampled_from(parts))
    raw = bytearray(base64.b64decode(holder[key]))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if bytes(raw) == base64.b64decode(holder[key]):
        return
    holder[key] = base64.b64encode(raw[: data.draw(st.integers(1, len(raw)))]).decode()
    assert ours(Case(good.root, json.dumps(document).encode())) is not None
