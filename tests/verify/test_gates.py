"""Gates: every check refuses what it is for, all reasons come at once, and nothing that says nothing passes."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import MERGE, World, training

import parentage
from parentage import Demands, KeySigner, PrivateKey
from parentage.attest import bundle, claims, oms
from parentage.attest.coverage import DEFAULT_IGNORES
from parentage.attest.opening import open_bundle
from parentage.attest.roles import believed
from parentage.manifest import recipe as recipes
from parentage.manifest import table
from parentage.manifest.errors import PolicyError, UsageError
from parentage.manifest.strict_yaml import parse_yaml
from parentage.verify.gates.checks import CHECKS, content
from parentage.verify.gates.checks.origin import passes, repo_of
from parentage.verify.gates.facts import Facts, FileFact
from parentage.verify.gates.policy import Gate, GatePolicy, Rules, load, parse
from parentage.verify.gates.reasons import ORDER, strongest
from parentage.verify.gates.report import GateReport
from parentage.verify.gates.run import decided, run
from parentage.verify.gates.text import text_of
from parentage.verify.report import Report
from parentage.verify.verdict import EXIT_CODES, Verdict

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
CARD = "---\nbase_model: [a, b]\nbase_model_relation: merge\nlicense: mit\n---\n# merged\n"
TRUST = 'version: "0.1"\nroles: {publisher: {any: [{key: release.pub}]}}\nstatus: {onMissing: ignore}\nparents: {unsigned: ignore}\n'
QUIET = {"card": {"all": "ignore"}, "licences": {"unknown": "ignore"}}


def run_upload(release: Path, gate: Gate, **more: Any) -> GateReport:
    return run(release, gate, "upload", **more)


def run_download(release: Path, gate: Gate, **more: Any) -> GateReport:
    return run(release, gate, "download", **more)


class Place:
    """A publisher's releases, and a gate in front of them."""

    def __init__(self, root: Path) -> None:
        self.world, self.root = World(root), root
        (root / "release.pub").write_bytes(self.world.key.public.pem)
        (root / "trust.yaml").write_text(TRUST)
        self.merged = self.world.merge()

    def copy(
        self, name: str, files: dict[str, bytes] | None = None, *, signed: bool = True
    ) -> Path:
        """Return the merge with more files, signed anew."""
        folder = self.root / name
        shutil.copytree(self.merged, folder)
        for file, data in (files or {}).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        if signed:
            (folder / "model.sig").unlink()
            (folder / ".parentage" / "claims.jsonl").unlink()
            parents = {"a": self.root / "a", "b": self.root / "b"}
            parentage.declare(folder, self.world.recipe(["a", "b"], [MERGE]), parents=parents)
            self.world.sign(name)
        return folder

    def gate(self, *, trust: str = "trust.yaml", **gates: Any) -> Gate:
        path = self.root / "gate.yaml"
        document = {"version": "0.1", "trust": trust, **gates}
        path.write_text(json.dumps(document))  # JSON is YAML
        return load(path)

    def upload(self, release: Path, given: str = "ab", **rules: Any) -> GateReport:
        return run_upload(
            release,
            self.gate(upload={**QUIET, **rules}),
            parents=[(None, self.root / parent) for parent in given],
            demands=Demands(device="cpu", threads=1),
        )

    def integrity(self, release: Path, **rules: Any) -> GateReport:
        return self.upload(release, "", level="integrity", **rules)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("gate"))


def refusals(report: GateReport) -> set[str]:
    return {one.code for one in report.reasons if one.refuses}


def notes(report: GateReport) -> set[str]:
    return {one.code for one in report.reasons if not one.refuses}


def test_a_recomputed_release_with_a_true_card_passes(place: Place) -> None:
    release = place.copy("good", {"README.md": CARD.encode()})
    report = run_upload(
        release, place.gate(upload={"licences": {"allow": ["MIT"], "unknown": "warn"}}),
        parents=[(None, place.root / p) for p in "ab"], demands=Demands(device="cpu", threads=1),
    )  # fmt: skip

    assert (report.verdict, report.exit_code, refusals(report)) == (Verdict.VERIFIED, 0, set())
    assert report.passed
    assert report.report.reached == "A (exact)"
    assert set(report.checks) == {check.code for check in CHECKS}
    assert report.policies.trust == report.report.policy_sha256 != report.policies.gate
    assert [(one.source, one.target) for one in report.arrows] == [
        ("parent a", "merge: weighted_sum/v1, A (exact)"),
        ("parent b", "merge: weighted_sum/v1, A (exact)"),
        ("merge: weighted_sum/v1, A (exact)", "this release"),
    ]
    document = json.loads(report.to_json())
    jsonschema.Draft202012Validator(
        json.loads((SCHEMAS / "gate-report-v0.1.json").read_text())
    ).validate(document)


def opaque(name: str) -> dict[str, Any]:
    return {"id": "o", "op": "opaque/v1", "inputs": [name], "description": "secret"}


@pytest.fixture(scope="module")
def trained(place: Place) -> Path:
    place.world.save("trained", {k: v + 0.0002 for k, v in place.world.weights("merged").items()})
    return place.world.declare("trained", ["a", "b"], [MERGE, training("merge")])


def test_what_can_not_be_recomputed_passes_only_where_it_is_named(
    place: Place, trained: Path
) -> None:
    report = place.upload(trained)
    assert (report.verdict, refusals(report)) == (Verdict.UNPROVEN, {"step-declared"})
    assert place.upload(trained, declared=["opaque"]).verdict is Verdict.UNPROVEN
    let = place.upload(trained, declared=["training"])
    assert let.verdict is Verdict.VERIFIED
    assert "step-declared" in notes(let)
    # A kind that is accepted excuses no step before it.
    assert refusals(place.upload(trained, "a", declared=["training"])) == {"rung-not-reached"}

    place.world.save("hidden", {k: v + 0.5 for k, v in place.world.weights("merged").items()})
    secret = place.world.declare("hidden", ["a", "b"], [MERGE, opaque("merge")])
    assert place.upload(secret, declared=["training"]).verdict is Verdict.UNPROVEN
    assert place.upload(secret, declared=["opaque"]).verdict is Verdict.VERIFIED


def test_a_missing_parent_and_a_missing_recipe_are_unproven(place: Place) -> None:
    report = place.upload(place.merged, "a")
    assert (report.verdict, refusals(report)) == (Verdict.UNPROVEN, {"rung-not-reached"})
    assert next(one for one in report.reasons if one.refuses).next == "--parent b=FOLDER"

    base = place.world.declare("base", [], [])
    refused = place.upload(base, "")
    assert (refused.verdict, refusals(refused)) == (Verdict.DENIED, {"recipe-missing"})
    assert place.upload(base, "", noRecipe="warn").verdict is Verdict.VERIFIED
    assert "recipe-missing" in notes(place.upload(base, "", noRecipe="warn"))


def test_a_weaker_rung_than_demanded(place: Place) -> None:
    # Within cells, and not what the named engine gives: a blend in float64, rounded once.
    a, b = place.world.weights("a"), place.world.weights("b")
    blend = {k: (0.6 * a[k].double() + 0.4 * b[k].double()).float() for k in a}
    place.world.save("celled", blend)
    step = {**MERGE, "arithmetic": {"profile": "mk-0.1.5", "compute": "F32"}}
    release = place.world.declare("celled", ["a", "b"], [step])
    strict, loose = place.upload(release), place.upload(release, rung="C")

    assert (strict.verdict, refusals(strict)) == (Verdict.UNPROVEN, {"rung-not-reached"})
    assert loose.verdict is Verdict.VERIFIED


def test_steps_that_are_denied(place: Place) -> None:
    report = place.integrity(place.merged, denySteps=["weighted_sum/v1"])

    assert (report.verdict, refusals(report)) == (Verdict.DENIED, {"step-denied"})


def test_a_status_that_is_demanded(place: Place) -> None:
    report = place.integrity(place.merged, status="current")

    assert (report.verdict, refusals(report)) == (Verdict.DENIED, {"status-not-current"})


@pytest.mark.parametrize("uri", [
    "pkg:huggingface/Evil/A@" + "0" * 40, "hf://evil/a", "HF://evil/a/", "https://huggingface.co/evil/a/tree/main",
    "https://hf.co/evil/a", "http://www.huggingface.co//evil/./a?x=1", "pkg:huggingface/%65vil%2Fa@v1", " hf://evil/a@main",
])  # fmt: skip
def test_a_denied_name_is_known_however_it_is_written(uri: str) -> None:
    assert repo_of(uri) == "evil/a"


def test_parents_by_root_and_by_name(place: Place) -> None:
    world = place.world
    root = dict(world.lineage("merged").parents[0].weights)["ptd1-b3"]
    other = dict(world.lineage("merged").parents[1].weights)["ptd1-b3"]
    own = dict(world.lineage("merged").weights.root)["ptd1-b3"]
    for denied in (root, own):
        report = place.integrity(place.merged, parents={"deny": [{"root": denied}]})
        assert (report.verdict, refusals(report)) == (Verdict.DENIED, {"parent-denied"})
    assert refusals(place.integrity(place.merged, parents={"allow": [root]})) == {
        "parent-not-allowed"
    }
    assert place.integrity(place.merged, parents={"allow": [root, other]}).passed
    assert place.integrity(place.merged, parents={"deny": [{"repo": "evil/*"}]}).passed

    document = {
        "version": "0.1",
        "parents": [
            {"id": "a", "uri": "pkg:huggingface/Evil/A@" + "0" * 40},
            {"id": "b", "license": "cc-by-nc-4.0"},
        ],
        "steps": [MERGE],
    }
    folder = place.copy("named", signed=False)
    (folder / "model.sig").unlink()
    (folder / ".parentage" / "claims.jsonl").unlink()
    parentage.declare(
        folder, recipes.parse(document, where="t"), parents={p: place.root / p for p in "ab"}
    )
    world.sign("named")
    assert refusals(place.integrity(folder, parents={"deny": [{"repo": "evil/*"}]})) == {
        "parent-denied"
    }
    # and a licence of a parent
    assert refusals(place.integrity(folder, licences={"deny": ["CC-BY-NC-4.0"]})) == {
        "licence-denied"
    }
    assert refusals(place.integrity(folder, licences={"allow": ["mit"]})) == {"licence-denied"}
    assert refusals(place.integrity(folder, licences={"unknown": "fail"})) == {"licence-unknown"}


@pytest.mark.parametrize(
    ("licence", "allow", "deny", "lets"),
    [
        ("MIT", {"mit"}, set(), True),
        ("MIT", set(), set(), True),
        ("GPL-3.0", {"mit"}, set(), False),
        ("MIT OR GPL-3.0", {"mit"}, set(), True),
        ("MIT AND GPL-3.0", {"mit"}, set(), False),
        ("MIT and cc-by-nc-4.0", set(), {"cc-by-nc-4.0"}, False),
        ("cc-by-nc-4.0 or MIT", set(), {"cc-by-nc-4.0"}, True),
        ("(MIT OR Apache-2.0) AND cc-by-nc-4.0", set(), {"cc-by-nc-4.0"}, False),
        ("(MIT) OR (cc-by-nc-4.0)", set(), {"cc-by-nc-4.0"}, False),
        ("(cc-by-nc-4.0)", set(), {"cc-by-nc-4.0"}, False),
        ("mit, cc-by-nc-4.0", set(), {"cc-by-nc-4.0"}, False),
        ("GPL-3.0 WITH x", {"gpl-3.0", "x"}, set(), True),
        ("AND", {"mit"}, set(), False),
    ],
)
def test_expressions_of_licences(licence: str, allow: set[str], deny: set[str], lets: bool) -> None:
    assert passes(licence, frozenset(allow), frozenset(deny)) is lets


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, buffer)
    assert zipfile.is_zipfile(buffer)
    return buffer.getvalue()


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


FILES: dict[str, tuple[dict[str, Callable[[], bytes]], str, str]] = {
    "a pickle by its name": ({"training_args.bin": lambda: b"x"}, "pickle", "pickles"),
    "a pickle by its beginning": ({"notes.txt": lambda: pickle.dumps([1])}, "pickle", "pickles"),
    "torch's own under another name": ({"state.dat": torch_zip}, "pickle", "pickles"),
    "NumPy's objects": ({"array.npy": lambda: saved(np.array([{}], dtype=object))}, "pickle", "pickles"),
    "Keras": ({"lambda.keras": lambda: b"x"}, "pickle", "pickles"),
    "code": ({"modeling_x.py": lambda: b"import os"}, "remote-code", "code"),
    "code under another name": ({"lib": lambda: b"\x7fELF\x02"}, "remote-code", "code"),
    "a config that asks for code": (
        {"config.json": lambda: b'{"a": [{"auto\\u005fmap": {"AutoModel": "x.Y"}}]}'}, "remote-code", "code"),
    "a deep config": ({"deep/config.json": lambda: b'{"a":' * 900 + b'{"auto_map": 1}' + b"}" * 900}, "remote-code", "code"),
    "a module of another package": ({"st/modules.json": lambda: (
        b'[{"type": "sentence_transformers.models.Transformer"}, {"type": "acme/x--y.Pool"}]')}, "remote-code", "code"),
    "modules that are no list of them": ({"odd/modules.json": lambda: b'["x"]'}, "remote-code", "code"),
    "a config that nobody can read": ({"tokenizer_config.json": lambda: b'{"a": NaN}'}, "remote-code", "code"),
    "other weights": ({"sub/model.safetensors": lambda: b"x"}, "weights-unverified", "otherWeights"),
    "other weights of another format": ({"model.GGUF": lambda: b"x"}, "weights-unverified", "otherWeights"),
}  # fmt: skip


@pytest.fixture(scope="module")
def crowded(place: Place) -> Path:
    """All of these in one release, signed: only the gate minds."""
    files = {name: make() for made, _, _ in FILES.values() for name, make in made.items()}
    own = (
        b'[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]'
    )
    return place.copy("crowded", {**files, "own/modules.json": own})


def test_all_reasons_come_at_once_and_each_can_be_let_be(place: Place, crowded: Path) -> None:
    report = place.integrity(
        crowded, files={"deny": ["notes.*"], "maxFiles": 3, "maxBytes": 10, "maxFileBytes": 5}
    )
    found = {(one.code, one.where) for one in report.reasons}

    assert report.verdict is Verdict.DENIED
    for made, code, _ in FILES.values():
        assert {(code, name) for name in made} <= found
    assert ("remote-code", "own/modules.json") not in found
    assert ("file-denied", "notes.txt") in found
    assert [one.message for one in report.reasons if one.code == "release-too-large"] == [
        "too many bytes",
        "too many files",
        "too many bytes in one file",
    ]
    lenient = {rule: "ignore" for _, _, rule in FILES.values()}
    assert refusals(place.integrity(crowded, **lenient)) == set()
    assert place.integrity(crowded, **lenient).passed
    warned = place.integrity(crowded, **dict.fromkeys(lenient, "warn"))
    assert warned.passed
    assert notes(warned) >= {code for _, code, _ in FILES.values()}
    assert refusals(
        place.integrity(crowded, **lenient, files={"allow": ["*.safetensors", "*.jsonl"]})
    ) == {"file-denied"}


@pytest.mark.parametrize("rule", sorted({rule for _, _, rule in FILES.values()}))
def test_each_rule_holds_by_itself(place: Place, crowded: Path, rule: str) -> None:
    rules = {other: "ignore" for _, _, other in FILES.values() if other != rule}
    report = place.integrity(crowded, **rules)

    assert report.verdict is Verdict.DENIED
    assert refusals(report) == {code for _, code, other in FILES.values() if other == rule}


def test_a_file_that_the_signer_left_out(place: Place) -> None:
    """Notes that no loader reads: `verify` lets them be, and says so; the gate refuses."""
    folder = place.copy("left", {"notes.txt": b"1", ".gitattributes": b"x"}, signed=False)
    names = ["model.safetensors", table.TENSORS, table.LEAVES]
    digests = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}
    signer = KeySigner(place.world.key)
    payload = oms.build("m", digests, ignore_paths=[*DEFAULT_IGNORES, "notes.txt"])
    (folder / "model.sig").write_bytes(bundle.build(payload, signer))
    opened = open_bundle((folder / "model.sig").read_bytes(), place.world.trust, "t")
    lineage = place.world.lineage_unbound("merged")
    statement = claims.lineage_statement(opened, digests[table.TENSORS], lineage)
    (folder / ".parentage" / "claims.jsonl").write_bytes(bundle.build(statement, signer) + b"\n")

    report = place.integrity(folder)
    assert report.report.verified
    assert (report.verdict, refusals(report)) == (Verdict.DENIED, {"file-ignored"})
    assert [one.where for one in report.reasons if one.refuses] == ["notes.txt"]
    assert place.integrity(folder, ignored="warn").passed


def test_wrong_bytes_are_refuted_and_everything_else_is_still_said(place: Place) -> None:
    folder = place.copy("spoilt", {"run.py": b"1"}, signed=False)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    report = place.upload(folder)

    assert (report.verdict, report.exit_code) == (Verdict.REFUTED, 1)
    assert {"tensor-digest", "recipe-mismatch", "file-unsigned", "remote-code"} <= refusals(report)
    assert report.reasons[0].verdict is Verdict.REFUTED


def test_nobody_signed(place: Place, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"1")
    report = place.integrity(tmp_path)

    assert (report.verdict, report.exit_code) == (Verdict.UNSIGNED, 3)
    assert refusals(report) == {"unsigned", "pickle"}
    assert report.card is None
    assert not place.integrity(place.root / "a").passed


def test_somebody_else_signed(place: Place) -> None:
    stranger = PrivateKey.generate()
    folder = place.copy("stranger")
    (folder / "model.sig").unlink()
    (folder / ".parentage" / "claims.jsonl").unlink()
    parents = {"a": place.root / "a", "b": place.root / "b"}
    parentage.declare(folder, place.world.recipe(["a", "b"], [MERGE]), parents=parents)
    parentage.sign_release(folder, KeySigner(stranger), parentage.TrustedKeys((stranger.public,)))
    report = place.integrity(folder)

    assert (report.verdict, refusals(report)) == (Verdict.REFUTED, {"signature"})
    assert "the card: there is no manifest for it" in report.not_checked


def test_a_card_that_lies(place: Place) -> None:
    folder = place.copy("carded", {"README.md": CARD.replace("[a, b]", "[elsewhere]").encode()})
    rules = {"licences": {"unknown": "ignore"}, "level": "integrity"}

    def ask(**more: Any) -> GateReport:
        return run_upload(folder, place.gate(upload={**rules, **more}))

    assert (ask().verdict, refusals(ask())) == (Verdict.REFUTED, {"C02"})
    assert ask(card={"C02": "warning"}).passed
    assert ask(card={"all": "ignore"}).passed
    assert not ask(card={"all": "ignore", "parents-differ": "error"}).passed
    assert next(one for one in ask().reasons if one.code == "C02").file == "README.md"


@pytest.mark.parametrize("level", ["recompute", "integrity", "remote"])
@pytest.mark.parametrize("counts", [(0, 0), (5, 4)])
def test_no_tensor_compared_is_no_pass(place: Place, level: str, counts: tuple[int, int]) -> None:
    """Whatever a verification says: one that compared nothing, or not all, and recomputed nothing."""
    report = place.integrity(place.merged).report
    tensors, checked = counts
    cover = msgspec.structs.replace(report.coverage, tensors=tensors, tensors_checked=checked)
    facts = Facts(
        rules=place.gate(upload={**QUIET, "level": level}).rules("upload"),
        report=msgspec.structs.replace(report, coverage=cover),
        files={},
        lineage=place.world.lineage("merged"),
        licence="",
    )
    said = {one.code: one.verdict for check in CHECKS for one in check.look(facts)}

    wanted = {"nothing-checked", *(["rung-not-reached"] if level == "recompute" else [])}
    assert said == dict.fromkeys(wanted, Verdict.UNPROVEN)


@pytest.mark.parametrize("verdict", [Verdict.REFUTED, Verdict.UNSIGNED, Verdict.DENIED])
def test_what_the_verification_decided_holds_whatever_the_reasons(
    place: Place, verdict: Verdict
) -> None:
    gate = place.gate(upload={**QUIET, "level": "integrity"})
    report = msgspec.structs.replace(place.integrity(place.merged).report, verdict=verdict)
    facts = Facts(
        rules=gate.rules("upload"), report=report, files={}, licence="",
        lineage=place.world.lineage("merged"),
    )  # fmt: skip

    assert decided(gate, "upload", facts, None).verdict is verdict
    unread = msgspec.structs.replace(
        facts, report=msgspec.structs.replace(report, verdict=Verdict.UNPROVEN), lineage=None
    )
    assert decided(gate, "upload", unread, None).verdict is Verdict.UNPROVEN


def test_the_order_of_verdicts(place: Place, trained: Path) -> None:
    denied = place.upload(trained, licences={"unknown": "fail"})
    assert (denied.verdict, refusals(denied)) == (
        Verdict.DENIED,
        {"step-declared", "licence-unknown"},
    )
    assert strongest([]) is Verdict.VERIFIED
    for index, verdict in enumerate(ORDER):
        assert strongest(ORDER[index:]) is verdict
    assert set(ORDER) == set(Verdict) == set(EXIT_CODES)


def test_a_download_is_asked_by_its_own_rules(place: Place) -> None:
    gate = place.gate(download={**QUIET, "level": "integrity"})

    report = run_download(place.merged, gate)
    assert (report.gate, report.passed, report.report.demanded) == ("download", True, "integrity")
    with pytest.raises(PolicyError, match="says nothing of uploads"):
        run_upload(place.merged, gate)
    with pytest.raises(UsageError, match="no such file"):
        run_download(place.root / "nowhere", gate)


def test_attested_recomputes_need_a_trust_policy_that_asks_for_them(place: Place) -> None:
    with pytest.raises(PolicyError, match="asks no verifier"):
        place.integrity(place.merged, attested=True)
    lab = PrivateKey.generate()
    (place.root / "lab.pub").write_bytes(lab.public.pem)
    asking = (
        TRUST.replace("}}\n", "}, verifier: {any: [{key: lab.pub}]}}\n", 1)
        + "require: [{recompute: {}}]\n"
    )
    (place.root / "asking.yaml").write_text(asking)
    report = run_download(
        place.merged,
        place.gate(trust="asking.yaml", download={**QUIET, "level": "integrity", "attested": True}),
    )
    assert (report.verdict, refusals(report)) == (Verdict.DENIED, {"requirement-not-met"})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "missing required field"),
        ({"version": "0.2", "trust": "t"}, "Invalid enum value"),
        ({"version": "0.1", "trust": "\ud800"}, "not valid YAML"),
        ({"version": "0.1", "trust": "t", "uplod": {}}, "unknown field `uplod`"),
        ({"version": "0.1", "trust": "t", "upload": {"level": "none"}}, "Invalid enum value"),
        ({"version": "0.1", "trust": "t", "upload": {"files": {"maxBytes": 0}}}, ">= 1"),
        (
            {"version": "0.1", "trust": "t", "upload": {"files": {"maxBytes": True}}},
            "Expected `int",
        ),
        (
            {"version": "0.1", "trust": "t", "upload": {"card": {"C99": "error"}}},
            "card: no such rule",
        ),
        (
            {"version": "0.1", "trust": "t", "upload": {"card": {"C01": "fatal"}}},
            "Invalid enum value",
        ),
        (
            {"version": "0.1", "trust": "t", "upload": {"parents": {"deny": [{}]}}},
            "not named in one way",
        ),
        (
            {"version": "0.1", "trust": "t", "upload": {"parents": {"allow": ["xy"]}}},
            "matching regex",
        ),
    ],
)
def test_rules_that_are_none(document: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        parse(json.dumps(document).encode(), where="gate.yaml")


_KEYS = st.sampled_from(
    ["version", "trust", "upload", "download", "card", "parents", "deny", "root", "files", "level"]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["0.1", "fail", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.binary(max_size=64) | _VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_text_is_rules_or_a_named_error(data: bytes) -> None:
    found: object
    try:
        found = parse(data, where="gate.yaml")
    except PolicyError as error:
        found = error
    assert isinstance(found, GatePolicy) or str(found)


def test_the_schema_and_the_first_file() -> None:
    validator = jsonschema.Draft202012Validator(
        json.loads((SCHEMAS / "gate-v0.1.json").read_text())
    )
    for lock in (None, 'odd "name".lock'):
        text = text_of("trust #1.yaml", lock)
        validator.validate(parse_yaml(text.encode(), where="t"))
        policy = parse(text.encode(), where="t")
        assert (policy.trust, policy.lock) == ("trust #1.yaml", lock)
        assert set(policy.gates()) == {"upload", "download"}
    assert not validator.is_valid({"version": "0.1", "trust": "t", "uplod": {}})


def test_trust_without_a_policy_has_no_demands(place: Place) -> None:
    gate = msgspec.structs.replace(place.gate(upload=QUIET), believed=believed(place.world.trust))

    assert gate.rules("upload").rung == "A"


def test_leaves_that_begin_as_a_pickle_does_are_none() -> None:
    head = b"\x80\x04" + bytes(30)
    files = {name: FileFact(size=32, head=head) for name in (table.LEAVES, "state.dat")}
    facts = Facts(rules=Rules(), report=Report(), files=files, lineage=None, licence="")
    assert [one.where for one in content.pickles(facts)] == ["state.dat"]
