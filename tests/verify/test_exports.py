"""Derived documents: valid by the formats' own schemas, true to the lineage, and of verified releases only."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from worlds import MERGE, World, training

import parentage
from parentage import PrivateKey, PublicKey, TrustedKeys, Verdict, export_release
from parentage.attest.identity import KeylessIdentity
from parentage.attest.statement import Subject
from parentage.manifest.errors import CannotRunError, UsageError
from parentage.manifest.lineage import Lineage, Parent
from parentage.manifest.lineage import parse as parse_lineage
from parentage.manifest.recipe import parse as parse_recipe
from parentage.verify.exports.cyclonedx import cyclonedx
from parentage.verify.exports.record import Record
from parentage.verify.exports.slsa import slsa
from parentage.verify.exports.svr import svr
from parentage.verify.report import Report, StepReport
from parentage.verify.verdict import Rung

NOW = datetime(2026, 6, 14, 9, tzinfo=UTC)
LAB = "https://lab.example/verifier/v1"
SCHEMAS = {
    name: json.loads((Path(__file__).parent / "schemas" / f"{file}.json").read_text())
    for name, file in (("slsa", "slsa-provenance-v1"), ("svr", "svr-v0.2"))
}
BOM = JsonStrictValidator(SchemaVersion.V1_7)
CASES = sorted(path.parent for path in (Path(__file__).parents[1] / "vectors").glob("*/case.json"))
REVISION = "0123456789abcdef0123456789abcdef01234567"


def valid(form: str, document: bytes) -> Any:
    """Return a document that its format's schema accepts, and that no terminal acts on."""
    text = document.decode("ascii")
    assert all(c.isprintable() for c in text.replace("\n", ""))
    found = json.loads(text)
    if form == "cyclonedx":
        error = BOM.validate_str(text)
        assert error is None, error
    else:
        jsonschema.validate(found, SCHEMAS[form], cls=jsonschema.Draft202012Validator)
    return found


def export(world: World, name: str, form: str, parents: str = "", **options: Any) -> Any:
    report, document = export_release(
        world.root / name, form, trust=world.trust, now=NOW, verifier=LAB,
        parents=[(None, world.root / p) for p in parents], **options,
    )  # fmt: skip
    assert report.verified == bool(document)
    return valid(form, document) if document else report


def released(world: World, parents: list[dict[str, str]], steps: list[Any], **outputs: Path) -> str:
    """Declare and sign the weights of `a` as what some steps made."""
    recipe = parse_recipe({"version": "0.1", "parents": parents, "steps": steps}, where="test")
    folder = world.save("released", world.weights("a"))
    found = {p["id"]: world.root / p["id"] for p in parents}
    parentage.declare(folder, recipe, parents=found, step_outputs=outputs)
    world.sign("released")
    return "released"


def properties(part: Any) -> dict[str, str]:
    return {p["name"]: p["value"] for p in part.get("properties", [])}


def test_provenance_says_what_the_lineage_says(world: World) -> None:
    world.merge()
    lineage = world.lineage("merged")

    found = export(world, "merged", "slsa")

    build = found["predicate"]["buildDefinition"]
    (step,) = build["externalParameters"]["steps"]
    assert step["params"]["weights"] == ["0.6", "0.4"]
    assert "output" not in step
    assert {d["name"]: d["digest"] for d in build["resolvedDependencies"]} == {
        parent.id: dict(parent.weights) for parent in lineage.parents
    }
    origin = found["predicate"]["parentage_derivedFrom"]
    assert origin["weights"] == dict(lineage.weights.root)
    assert origin["signer"] == {"method": "key", "keySha256": world.key.public.fingerprint}
    names = [subject["name"] for subject in found["subject"]]
    assert names == ["merged", "model.safetensors"]


def test_provenance_is_about_what_the_recipe_made_and_nothing_else(world: World) -> None:
    """A config.json with these bytes may lie in any release."""
    world.merge()
    (world.root / "merged" / "config.json").write_text("{}")
    world.declare("merged", ["a", "b"], [MERGE])

    found = export(world, "merged", "slsa")

    assert [subject["name"] for subject in found["subject"]] == ["merged", "model.safetensors"]


def test_a_weights_file_may_be_called_as_the_model_is(world: World) -> None:
    record = a_record(name="model.safetensors")

    found = valid("slsa", slsa(record))

    names = [subject["name"] for subject in found["subject"]]
    assert len(set(names)) == len(names) == 2


def test_outputs_of_steps_and_what_a_training_read(world: World) -> None:
    data = [{"sha256": "1" * 64, "name": "chats"}, {"sha256": "2" * 64, "uri": "https://x/y"}]
    step = training("merge", data=data, log={"sha256": "3" * 64})
    outputs = {"merge": world.merge()}
    name = released(world, [{"id": "a"}, {"id": "b"}], [MERGE, step], **outputs)

    found = export(world, name, "slsa")

    digests = {d["name"]: d["digest"] for d in found["predicate"]["runDetails"]["byproducts"]}
    assert digests["step merge"] == dict(world.lineage("merged").weights.root)
    read = {
        d["name"]: d["digest"]
        for d in found["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert read["train: data: chats"] == {"sha256": "1" * 64}
    assert read["train: log"] == {"sha256": "3" * 64}
    assert {"train: program", "train: data", "a", "b"} < set(read)

    bom = export(world, name, "cyclonedx")
    kinds = {c["bom-ref"]: c["type"] for c in bom["components"]}
    assert kinds == {
        f"material:{'0' * 64}": "application",
        f"material:{'1' * 64}": "data",
        f"material:{'2' * 64}": "data",
    }
    assert {"ref": "release", "dependsOn": sorted(kinds)} in bom["dependencies"]


def test_a_recipe_keeps_its_source_as_a_dependency(world: World) -> None:
    lineage = a_lineage()
    source = {"mediaType": "application/vnd.mergekit+yaml", "sha256": "5" * 64,
              "materials": [{"sha256": "6" * 64, "name": "tokenizer.json"}]}  # fmt: skip
    document = parentage_document(lineage)
    document["recipe"]["source"] = source

    found = valid("slsa", slsa(a_record(lineage=parse_lineage(document, where="t"))))

    read = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "recipe", "digest": {"sha256": "5" * 64},
            "mediaType": "application/vnd.mergekit+yaml"} in read  # fmt: skip
    assert {"name": "recipe: tokenizer.json", "digest": {"sha256": "6" * 64}} in read


def test_no_build_no_provenance(world: World) -> None:
    name = released(world, [], [])

    with pytest.raises(CannotRunError, match="no build to describe"):
        export(world, name, "slsa")
    assert "pedigree" in export(world, name, "cyclonedx")["metadata"]["component"]


def test_the_bill_of_materials_names_parents_ratios_and_roots(world: World) -> None:
    world.merge()
    parents = [
        {
            "id": "a",
            "uri": f"pkg:huggingface/nex-agi/nex-n2-pro@{REVISION}",
            "license": "Apache-2.0",
        },
        {"id": "b", "uri": "somewhere else", "license": "Apache-2.0 OR MIT"},
    ]
    name = released(world, parents, [MERGE])
    lineage = world.lineage(name)

    found = export(world, name, "cyclonedx")

    model = found["metadata"]["component"]
    parts = {part["bom-ref"]: part for part in model["pedigree"]["ancestors"]}
    nex, other = parts["parent:a"], parts["parent:b"]
    assert found["specVersion"] == "1.7"
    assert nex["purl"] == f"pkg:huggingface/nex-agi/nex-n2-pro@{REVISION}"
    assert (nex["group"], nex["name"], nex["version"]) == ("nex-agi", "nex-n2-pro", REVISION)
    assert nex["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert other["licenses"] == [{"expression": "Apache-2.0 OR MIT"}]
    assert "purl" not in other
    for part, parent, weight in (
        (nex, lineage.parents[0], "0.6"),
        (other, lineage.parents[1], "0.4"),
    ):
        said = properties(part)
        assert said["parentage:step:merge:weight"] == weight
        assert said["parentage:weights:ptd1-b3"] == parent.weights["ptd1-b3"]
    assert properties(other)["parentage:uri"] == "somewhere else"
    said = properties(model)
    assert said["parentage:weights:ptd1-b3"] == lineage.weights.root["ptd1-b3"]
    assert json.loads(said["parentage:step:000:merge"])["params"]["weights"] == ["0.6", "0.4"]
    hashes = {c["name"]: c["hashes"][0]["content"] for c in model["components"]}
    weights = (world.root / name / "model.safetensors").read_bytes()
    assert hashes["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert "signed lineage statement" in properties(found["metadata"])["parentage:derived"]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"op": "slerp/v1", "params": {"t": "0.3"}}, {"a": {"input": "0"}, "b": {"input": "1", "t": "0.3"}}),
        (
            {"op": "task_arithmetic/v1", "params": {"base": "a", "weights": ["0.5"], "densities": ["0.5"],
             "sparsify": "magnitude", "elect": True, "rescale": False, "normalize": True, "overrides": [{"tensors": ["*.w"], "weights": ["1"]}]}},
            {"a": {"input": "0", "base": "true", "overrides": "true"},
             "b": {"input": "1", "weight": "0.5", "overrides": "true"}},
        ),
    ],
)  # fmt: skip
def test_ratios_of_other_steps(step: Any, expected: Any) -> None:
    step = {"id": "m", "inputs": ["a", "b"], "arithmetic": {"profile": "parentage-1"}, **step}
    document = parentage_document(a_lineage()) | {"recipe": {"steps": [step]}}

    found = valid("cyclonedx", cyclonedx(a_record(lineage=parse_lineage(document, where="t")), NOW))

    ancestors = found["metadata"]["component"]["pedigree"]["ancestors"]
    assert {
        a["bom-ref"][-1]: {
            k.rpartition(":")[2]: v for k, v in properties(a).items() if ":step:" in k
        }
        for a in ancestors
    } == expected


def test_the_same_record_and_time_give_the_same_bytes(world: World) -> None:
    world.merge()

    for form in ("slsa", "cyclonedx", "svr"):
        again = [
            export_release(world.root / "merged", form, trust=world.trust, now=NOW, verifier=LAB)
            for _ in range(2)
        ]
        assert again[0] == again[1]


def test_a_result_lists_what_holds(world: World) -> None:
    world.merge()
    signed = ["PARENTAGE_IDENTITY", "PARENTAGE_INTEGRITY", "PARENTAGE_LINEAGE_DECLARED"]

    by_bytes = export(world, "merged", "svr")["predicate"]
    found = export(world, "merged", "svr", "ab")

    assert by_bytes["properties"] == signed
    assert found["predicate"]["properties"] == [*signed, "PARENTAGE_RECIPE_EXACT"]
    assert found["predicate"]["verifier"] == {"id": LAB, "policies": []}
    assert found["predicate"]["timeCreated"] == "2026-06-14T09:00:00Z"
    assert [s["name"] for s in found["subject"]] == ["model", ".parentage/tensors.jsonl", "oms-statement"]  # fmt: skip


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [("AA", "EXACT"), ("AB", "WITNESSED"), ("BA", "WITNESSED"), ("CB", "IN_CELL")],
)
def test_the_weakest_step_names_the_recipe(rungs: str, expected: str) -> None:
    steps = [StepReport(id=f"s{n}", op="x/v1", rung=Rung(rung)) for n, rung in enumerate(rungs)]
    report = Report(steps=steps)
    report.decide(Verdict.VERIFIED)

    found = valid("svr", svr(a_record(), report, LAB, NOW))

    assert found["predicate"]["properties"][3:] == [f"PARENTAGE_RECIPE_{expected}"]
    report.decide(Verdict.UNPROVEN)
    with pytest.raises(UsageError, match="not verified"):
        svr(a_record(), report, LAB, NOW)


@pytest.mark.parametrize("form", ["slsa", "cyclonedx", "svr"])
def test_nothing_is_derived_from_what_is_not_verified(world: World, form: str) -> None:
    world.merge()
    other = TrustedKeys((PrivateKey.generate().public,))

    def verdict(**options: Any) -> Verdict:
        report, document = export_release(
            world.root / "merged", form, **{"trust": world.trust, "verifier": LAB, **options}
        )
        assert not document
        return report.verdict

    assert verdict(trust=other) == Verdict.REFUTED
    assert verdict(parents=[("a", world.root / "a")]) == Verdict.UNPROVEN
    path = world.root / "merged" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert verdict() == Verdict.REFUTED
    (world.root / "merged" / "model.sig").unlink()
    assert verdict() == Verdict.UNSIGNED


def test_a_recipe_that_is_false_gives_no_result(world: World) -> None:
    step = MERGE | {"params": {"weights": ["0.6000001", "0.4"], "normalize": True}}
    world.merge()
    world.declare("merged", ["a", "b"], [step])

    report = export(world, "merged", "svr", "ab")

    assert report.verdict == Verdict.REFUTED


@pytest.mark.parametrize("uri", ["", "lab", "lab one:x y", "https://lab\n", "1:x"])
def test_a_verifier_is_a_uri(world: World, uri: str) -> None:
    """Asked for before a byte is read: there is no release here."""
    with pytest.raises(UsageError, match="named by a URI"):
        export_release(world.root / "none", "svr", trust=world.trust, verifier=uri)


def test_no_such_format_or_parent(world: World) -> None:
    with pytest.raises(UsageError, match="no such format"):
        export_release(world.root / "a", "spdx", trust=world.trust)
    with pytest.raises(UsageError, match="no such file"):
        export_release(world.root / "a", "slsa", trust=world.trust, parents=[("x", Path("none"))])


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_every_golden_release_is_exported_or_refused(folder: Path) -> None:
    trust = TrustedKeys((PublicKey.load(folder / "release.pub"),))

    for form in ("slsa", "cyclonedx", "svr"):
        report, document = export_release(folder / "release", form, trust=trust, verifier=LAB)
        assert bool(document) == report.verified
        if document:
            valid(form, document)


def a_lineage(**parent: Any) -> Lineage:
    parents = [{"id": n, "weights": {"ptd1-b3": c * 64}} for n, c in (("a", "a"), ("b", "b"))]
    parents[0] |= parent
    document = {
        "weights": {"root": {"ptd1-b3": "c" * 64}, "tensors": 1, "bytes": "4"},
        "parents": parents,
        "recipe": {"steps": [MERGE]},
        "created": "2026-06-14T09:00:00Z",
    }
    return parse_lineage(document, where="test")


def parentage_document(lineage: Lineage) -> dict[str, Any]:
    from parentage.manifest.lineage import to_document

    return to_document(lineage)


def a_record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "name": "released",
        "subjects": (Subject("model", "1" * 64),),
        "files": {"model.safetensors": "2" * 64, ".parentage/tensors.jsonl": "3" * 64},
        "weights": ("model.safetensors",),
        "signature": "4" * 64,
        "lineage": a_lineage(),
        "statement": "5" * 64,
        "signer": KeylessIdentity("https://issuer.example", "https://x/\x1b[2J\u202e@main"),
    }
    return Record(**fields | changes)


texts = st.text(st.characters(codec="utf-8"), max_size=40)
purls = st.builds("pkg:{}/{}@{}".format, st.sampled_from(["huggingface", "x", ""]), texts, texts)


@given(uri=texts | purls, spdx=texts, name=texts)
def test_any_text_in_a_lineage_gives_valid_documents(uri: str, spdx: str, name: str) -> None:
    """Names, locators and licences are whatever somebody signed."""
    lineage = a_lineage(uri=uri, license=spdx)
    assert isinstance(lineage.parents[0], Parent)
    record = a_record(lineage=lineage, name=name)

    bom = valid("cyclonedx", cyclonedx(record, NOW))
    provenance = valid("slsa", slsa(record))

    ancestors = bom["metadata"]["component"]["pedigree"]["ancestors"]
    said = {part["bom-ref"]: properties(part)["parentage:weights:ptd1-b3"] for part in ancestors}
    assert said == {"parent:a": "a" * 64, "parent:b": "b" * 64}
    read = provenance["predicate"]["buildDefinition"]["resolvedDependencies"][0]
    assert read["digest"] == {"ptd1-b3": "a" * 64}
