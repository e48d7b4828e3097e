"""`parentage card` as it is typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from cards import MERGE, NEX, QWEN, TRUE, card, draft
from commandline import Run, ok
from hub_rig import LocalHub

from parentage.verify.cards.rules import RULES

SCHEMAS = Path(__file__).parents[2] / "schemas"


def test_check_says_where_and_what(run: Run, tmp_path: Path) -> None:
    card(draft(tmp_path), TRUE.replace("relation: merge", "relation: finetune"))

    code, out, _ = run("card", "check", tmp_path)

    assert code == 1
    assert out.startswith(f"REFUTED  card of {tmp_path}")
    assert "[C03] (README.md:5)" in out
    assert f"next:     parentage card sync {tmp_path}" in out
    assert "not checked" in out


def test_every_form_of_the_answer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(draft(tmp_path / "rio"), TRUE.replace("license: apache-2.0\n", ""))
    monkeypatch.chdir(tmp_path)

    report = json.loads(ok(run("card", "check", "rio", "--json")))
    _, sarif, _ = run("card", "check", "rio", "--rule", "C05=error", "--format", "sarif")
    _, github, _ = run("card", "check", "rio", "--format", "github")

    schema = json.loads((SCHEMAS / "card-v0.1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(report)
    assert report["problems"][0]["code"] == "C05"
    (found,) = json.loads(sarif)["runs"][0]["results"]
    assert (found["ruleId"], found["level"]) == ("C05", "error")
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "rio/README.md"
    (rule,) = json.loads(sarif)["runs"][0]["tool"]["driver"]["rules"]
    assert rule["shortDescription"]["text"].startswith(RULES["C05"].help.rstrip("."))
    assert github.startswith("::warning file=rio/README.md,line=1")


def test_no_manifest_is_3_also_as_json(run: Run, tmp_path: Path) -> None:
    code, out, err = run("card", "check", card(tmp_path, TRUE))
    as_json = run("card", "check", tmp_path, "--json")

    assert (code, out) == (3, "")
    assert "next:     parentage declare" in err
    assert as_json[0] == json.loads(as_json[1])["exitCode"] == 3


@pytest.mark.parametrize(
    "wrong", [("--rule", "C99=error"), ("--rule", "C01=loud"), ("--signed-card", "/no")]
)
def test_usage(run: Run, tmp_path: Path, wrong: tuple[str, str]) -> None:
    assert run("card", "check", card(draft(tmp_path), TRUE), *wrong)[0] == 2


def test_explain(run: Run) -> None:
    everything = ok(run("card", "explain"))
    one = ok(run("card", "explain", "relation-differs"))
    listed = json.loads(ok(run("card", "explain", "--json")))

    assert [line[:3] for line in everything.splitlines() if line.startswith("C")] == [*RULES]
    assert one.startswith("C03 relation-differs (error)")
    assert [rule["id"] for rule in listed["rules"]] == [*RULES]
    assert run("card", "explain", "C14")[0] == 2


def test_sync_checks_writes_and_is_done(run: Run, tmp_path: Path) -> None:
    card(draft(tmp_path), "license: mit # why\n", "# Rio\x1b[2J\n")
    before = (tmp_path / "README.md").read_bytes()

    code, _, diff = run("card", "sync", tmp_path, "--check")
    assert code == 1
    assert "+base_model:" in diff
    assert "\x1b" not in diff
    assert (tmp_path / "README.md").read_bytes() == before

    written = run("card", "sync", tmp_path)
    assert written[0] == 0
    assert "base_model, base_model_relation, tags, the provenance section" in written[1]
    assert f"next: parentage sign {tmp_path}" in written[2]
    again = json.loads(ok(run("card", "sync", tmp_path, "--check", "--json")))
    assert (again["changed"], again["keys"]) == (False, [])
    assert ok(run("card", "check", tmp_path)).startswith("VERIFIED")


def test_sync_of_a_signed_release_says_what_it_breaks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = Path(__file__).parents[1] / "vectors" / "honest-linear" / "release"
    shutil.copytree(golden, tmp_path / "rio")

    code, _, err = run("card", "sync", tmp_path / "rio")

    assert code == 0
    assert "the signature holds no more" in err
    assert f"next: parentage declare {tmp_path / 'rio'}" in err


def test_a_card_on_a_hub_is_checked_with_the_hubs_tags_and_without_weights(
    run: Run, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARENTAGE_CACHE", str(tmp_path / "cache"))
    golden = Path(__file__).parents[1] / "vectors" / "honest-linear" / "release"
    shutil.copytree(golden, tmp_path / "rio")
    card(
        tmp_path / "rio",
        'base_model: [a/b, c/d]\nbase_model_relation: merge\ntags: ["base_model:finetune:a/b"]\n',
    )
    hub.put_folder("acme/rio", tmp_path / "rio")

    report = json.loads(ok(run("card", "check", "hf://acme/rio", "--json")))

    assert ("C13", "note") in {(p["code"], p["level"]) for p in report["problems"]}
    assert "C09" not in {p["code"] for p in report["problems"]}
    assert any("not fetched" in text for text in report["notChecked"])
    assert list((tmp_path / "cache").rglob("README.md"))
    assert not list((tmp_path / "cache").rglob("model.safetensors*"))
    assert run("card", "check", "hf://acme/rio", "--weights")[0] == 2


def test_the_hub_is_asked_for_the_new_name_of_a_parent(
    run: Run, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARENTAGE_CACHE", str(tmp_path / "cache"))
    card(draft(tmp_path / "rio"), TRUE.replace("nex-agi/Nex-N2-Pro", "nex-agi/renamed"))
    hub.put_folder("acme/rio", tmp_path / "rio")
    hub.put("nex-agi/nex-n2-pro", {"a.txt": b"x"})
    hub.hub.rename("nex-agi/nex-n2-pro", "nex-agi/renamed")

    report = json.loads(run("card", "check", "hf://acme/rio", "--json")[1])

    assert "C02" not in {problem["code"] for problem in report["problems"]}


def test_the_whole_way_and_a_card_that_is_edited_afterwards(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/cards.md has it; the card that claims post-training is refused before it is signed."""
    golden = Path(__file__).parents[1] / "vectors" / "honest-linear"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARENTAGE_PASSPHRASE", "secret")
    for name, parent in (("nex", "a"), ("qwen", "b")):
        shutil.copytree(golden / "parents" / parent, name)
    Path("rio").mkdir()
    shutil.copy(golden / "release" / "model.safetensors", "rio")
    readme = Path("rio/README.md")
    readme.write_text(
        "---\nlicense: apache-2.0 # checked\n---\n# Rio\n\nRio was post-trained by us.\n"
    )
    recipe = {"version": "0.1", "steps": [MERGE]}
    recipe["parents"] = [{k: p[k] for k in ("id", "uri", "license")} for p in (NEX, QWEN)]
    Path("recipe.json").write_text(json.dumps(recipe))
    parents = ("--parent", "nex=./nex", "--parent", "qwen=./qwen")
    ok(run("keygen", "-o", "release.key"))

    declared = ok(run("declare", "rio", "--recipe", "recipe.json", *parents))
    assert "next      parentage card sync rio, then parentage sign rio" in declared
    ok(run("card", "sync", "rio"))
    code, out, _ = run("card", "check", "rio")
    assert code == 1
    assert "[C04] (rio/README.md:12)" in out
    readme.write_text(
        readme.read_text().replace("Rio was post-trained by us.", "A 0.6 to 0.4 merge.")
    )
    ok(run("card", "check", "rio"))
    ok(run("sign", "rio", "--key", "release.key"))
    assert "signed by whom you trust" in ok(run("card", "check", "rio", "--key", "release.pub"))
    ok(run("verify", "rio", "--key", "release.pub", "--level", "integrity"))

    readme.write_text(readme.read_text().replace("license: apache-2.0", "license: cc-by-4.0"))
    code, out, _ = run("card", "check", "rio", "--key", "release.pub", "--rule", "C08=error")
    assert code == 1
    assert "metadata was changed after signing  [C08] (rio/README.md:2)" in out
    code, out, _ = run("verify", "rio", "--key", "release.pub", "--level", "integrity")
    assert code == 1
    assert "next:     parentage card check says which part of the card" in out
