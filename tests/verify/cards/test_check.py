"""Cards against manifests: what each rule finds, and what it lets pass."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cards import (
    COMMIT_A,
    COPY,
    FOLD,
    MERGE,
    NEX,
    OPAQUE,
    QUANTISE,
    QWEN,
    TRAINING,
    TRUE,
    card,
    draft,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import UnsignedError, UsageError
from parentage.verify.cards.check import check
from parentage.verify.cards.levels import parse_levels
from parentage.verify.cards.report import CardReport
from parentage.verify.cards.rules import RULES
from parentage.verify.showing import Level, Problem

BASES = "base_model: [nex-agi/nex-n2-pro, qwen/qwen3.5-397b-a17b]\n"
ONE = "base_model: nex-agi/nex-n2-pro\n"


def codes(report: CardReport) -> list[str]:
    return [f"{problem.code} {problem.level}" for problem in report.problems]


def of(report: CardReport, rule: str) -> list[Problem]:
    return [problem for problem in report.problems if problem.code == rule]


def levels_of(report: CardReport, rule: str) -> list[str]:
    return [problem.level.value for problem in of(report, rule)]


def test_a_true_card_is_left_alone(tmp_path: Path) -> None:
    report = check(card(draft(tmp_path), TRUE))

    assert codes(report) == []
    assert (report.exit_code, report.relation, len(report.rules)) == (0, "merge", 13)


def test_the_card_says_post_trained_and_the_weights_are_a_merge(tmp_path: Path) -> None:
    """The Rio case: a 0.6/0.4 merge whose card tells of post-training."""
    draft(tmp_path)
    matter = (
        "license: apache-2.0\nbase_model: Qwen/Qwen3.5-397B-A17B\nbase_model_relation: finetune\n"
    )
    card(tmp_path, matter, "# Rio\n\nRio 3 is post-trained from Qwen3.5-397B-A17B by us.\n")

    report = check(tmp_path)

    assert report.exit_code == 1
    assert [(p.code, p.line) for p in report.problems if p.level is Level.ERROR] == [
        ("C02", 3),
        ("C03", 4),
        ("C04", 8),
    ]
    assert of(report, "C03")[0].expected == "merge (weighted_sum/v1)"
    assert of(report, "C04")[0].found == "Rio 3 is post-trained from Qwen3.5-397B-A17B by us."


@pytest.mark.parametrize("matter", ["license: apache-2.0\n", "base_model:\n", "base_model: []\n"])
def test_parents_that_the_card_does_not_name(tmp_path: Path, matter: str) -> None:
    report = check(card(draft(tmp_path), matter))

    assert levels_of(report, "C01") == ["error"]
    assert not of(report, "C02")


def test_no_card_hides_parents(tmp_path: Path) -> None:
    report = check(draft(tmp_path))

    assert levels_of(report, "C01") == ["error"]
    assert of(report, "C01")[0].next.startswith("parentage card sync")


@pytest.mark.parametrize(
    ("bases", "found"),
    [
        ("base_model: [NEX-AGI/Nex-N2-Pro, Qwen/Qwen3.5-397B-A17B]\n", []),
        ("base_model: [https://huggingface.co/nex-agi/nex-n2-pro, qwen/qwen3.5-397b-a17b]\n", []),
        ("base_model: [qwen/qwen3.5-397b-a17b, nex-agi/nex-n2-pro]\n", []),
        ("base_model: nex-agi/nex-n2-pro\n", ["qwen/qwen3.5-397b-a17b"]),
        (
            "base_model:\n- nex-agi/nex-n2-pro\n- qwen/qwen3.5-397b-a17b\n- x/y\n",
            ["nex-agi/nex-n2-pro, qwen/qwen3.5-397b-a17b"],
        ),
    ],
)
def test_other_parents_than_the_manifests(tmp_path: Path, bases: str, found: list[str]) -> None:
    report = check(card(draft(tmp_path), bases + "base_model_relation: merge\nlicense: mit\n"))

    expected = [
        p.expected.replace(f"@{COMMIT_A}", "").replace(f"@{'b' * 40}", "")
        for p in of(report, "C02")
    ]
    assert expected == found


def test_a_parent_without_a_place_is_not_guessed(tmp_path: Path) -> None:
    nowhere = {**QWEN, "uri": ""}
    draft(tmp_path, parents=(NEX, nowhere))

    two = check(card(tmp_path, BASES + "base_model_relation: merge\n"))
    one = check(card(tmp_path, ONE + "base_model_relation: merge\n"))
    three = check(card(tmp_path, "base_model: [nex-agi/nex-n2-pro, a/b, c/d]\n"))

    assert not of(two, "C02")
    assert any("without a locator" in text and "qwen" in text for text in two.not_checked)
    assert [p.message for p in of(one, "C02")] == ["the card names fewer parents than the manifest"]
    assert [p.found for p in of(three, "C02")] == ["c/d"]


@pytest.mark.parametrize(
    ("steps", "parents", "said", "level"),
    [
        ((MERGE,), (NEX, QWEN), "merge", ""),
        ((MERGE,), (NEX, QWEN), "finetune", "error"),
        ((MERGE,), (NEX, QWEN), "", "error"),
        ((MERGE, {**TRAINING, "inputs": ["merge"]}), (NEX, QWEN), "merge", ""),
        ((MERGE, {**TRAINING, "inputs": ["merge"]}), (NEX, QWEN), "finetune", ""),
        ((TRAINING,), (NEX,), "finetune", ""),
        ((TRAINING,), (NEX,), "", ""),
        ((TRAINING,), (NEX,), "merge", "error"),
        ((QUANTISE,), (NEX,), "quantized", ""),
        ((QUANTISE,), (NEX,), "finetune", "error"),
        ((QUANTISE,), (NEX,), "", "error"),
        ((FOLD,), (NEX, QWEN), "merge", ""),
        ((FOLD,), (NEX, QWEN), "finetune", ""),
        ((COPY,), (NEX,), "", ""),
        ((COPY,), (NEX,), "finetune", "error"),
        ((OPAQUE,), (NEX,), "finetune", ""),
        ((), (NEX,), "finetune", ""),
    ],
)
def test_the_relation_is_the_recipes(
    tmp_path: Path, steps: Any, parents: Any, said: str, level: str
) -> None:
    draft(tmp_path, steps=steps, parents=parents)
    matter = (BASES if len(parents) == 2 else ONE) + (
        f"base_model_relation: {said}\n" if said else ""
    )

    report = check(card(tmp_path, matter))

    assert levels_of(report, "C03") == ([level] if level else [])


def test_a_merge_by_its_tag_alone_is_a_warning(tmp_path: Path) -> None:
    report = check(card(draft(tmp_path), BASES + "tags: [mergekit, merge]\n"))

    assert levels_of(report, "C03") == ["warning"]


def test_an_adapter_is_an_adapter(tmp_path: Path) -> None:
    draft(tmp_path, steps=(TRAINING,), parents=(NEX,))
    config = {"base_model_name_or_path": "nex-agi/Nex-N2-Pro", "revision": COMMIT_A}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))

    report = check(card(tmp_path, ONE + "base_model_relation: adapter\nlicense: apache-2.0\n"))

    assert codes(report) == []
    assert report.relation == "adapter"


@pytest.mark.parametrize(
    ("config", "level"),
    [
        ({"base_model_name_or_path": "someone/else", "revision": None}, "error"),
        ({"base_model_name_or_path": "nex-agi/nex-n2-pro", "revision": "c" * 40}, "error"),
        ({"base_model_name_or_path": "/home/me/base", "revision": None}, "warning"),
        ({"base_model_name_or_path": "nex-agi/nex-n2-pro", "revision": "main"}, ""),
        ({}, ""),
        ("[]", "warning"),
        ('{"a": 1, "a": 2}', "warning"),
    ],
)
def test_an_adapters_config_names_its_base(tmp_path: Path, config: Any, level: str) -> None:
    draft(tmp_path, steps=(TRAINING,), parents=(NEX,))
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "adapter_config.json").write_text(text)

    report = check(card(tmp_path, ONE))

    assert levels_of(report, "C07") == ([level] if level else [])


@pytest.mark.parametrize("key", ["datasets: [a/b]\n", "tags: [generated_from_trainer]\n"])
def test_training_by_metadata(tmp_path: Path, key: str) -> None:
    merge = check(card(draft(tmp_path), TRUE + key))
    folded = check(card(draft(tmp_path, steps=(FOLD,)), TRUE + key))
    observed = check(card(draft(tmp_path, steps=()), TRUE + key))
    trained = check(card(draft(tmp_path, steps=(TRAINING,), parents=(NEX,)), ONE + key))

    assert levels_of(merge, "C04") == ["error"]
    assert of(merge, "C04")[0].line == 7
    assert levels_of(folded, "C04") == levels_of(observed, "C04") == ["warning"]
    assert levels_of(trained, "C04") == []


@pytest.mark.parametrize(
    ("own", "parent", "level"),
    [
        ("apache-2.0", "Apache-2.0", ""),
        ("gpl-3.0", "Apache-2.0", ""),
        ("mit", "GPL-3.0-only", "warning"),
        ("mit", "MIT OR GPL-3.0-only", ""),
        ("mit", "MIT AND GPL-3.0-only", "warning"),
        ("apache-2.0", "llama3.1", "warning"),
        ("llama3.1", "llama3.1", ""),
        ("gemma", "llama3.1", "warning"),
        ("something", "Apache-2.0", "warning"),
        ("", "Apache-2.0", "warning"),
    ],
)
def test_licences_are_at_least_as_strict(tmp_path: Path, own: str, parent: str, level: str) -> None:
    draft(tmp_path, parents=({**NEX, "license": parent}, {**QWEN, "license": ""}))

    report = check(card(tmp_path, BASES + (f"license: {own}\n" if own else "")))

    assert levels_of(report, "C05") == ([level] if level else [])
    assert any("qwen" in text for text in report.not_checked)


def test_a_milder_licence_as_an_error_is_a_policys_no(tmp_path: Path) -> None:
    draft(tmp_path, parents=({**NEX, "license": "GPL-3.0-only"}, QWEN))
    card(tmp_path, TRUE.replace("apache-2.0", "mit"))

    report = check(tmp_path, levels=parse_levels(["C05=error"]))

    assert (report.exit_code, report.verdict) == (5, "denied")
    assert check(tmp_path).exit_code == 0


def test_what_is_unknown_is_never_more_than_a_warning(tmp_path: Path) -> None:
    card(draft(tmp_path), TRUE.replace("apache-2.0", "my-own"))

    report = check(tmp_path, levels=parse_levels(["licence-differs=error"]))

    assert levels_of(report, "C05") == ["warning", "warning"]


def test_a_key_that_nobody_reads(tmp_path: Path) -> None:
    """What TRL writes: a placeholder under a misspelt key."""
    report = check(card(draft(tmp_path), BASES + "licence: license\n"))

    assert of(report, "C05")[0].message == "the card has a key that no one reads: licence"
    assert of(report, "C05")[0].line == 3


CONFIG = """\
models:
  - model: nex-agi/nex-n2-pro
    parameters: {weight: 0.6}
  - model: qwen/qwen3.5-397b-a17b
    parameters: {weight: 0.4}
merge_method: linear
"""


def imported(text: str) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"mediaType": "application/vnd.mergekit+yaml", "sha256": digest, "text": text}


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (CONFIG, ""),
        ("# as it ran\n" + CONFIG, ""),
        (CONFIG.replace("0.6", "0.7"), "error"),
        (CONFIG.replace("linear", "slerp"), "error"),
        ("a: [", "warning"),
        ("- a\n", "warning"),
    ],
)
@pytest.mark.parametrize("where", ["file", "card"])
def test_the_config_is_the_signed_recipes(
    tmp_path: Path, text: str, level: str, where: str
) -> None:
    draft(tmp_path, source=imported(CONFIG))
    body = "# Rio\n"
    if where == "file":
        (tmp_path / "mergekit_config.yml").write_text(text)
    else:
        body += f"\n```yaml\n{text}```\n"

    found = of(check(card(tmp_path, TRUE, body)), "C06")

    if where == "card" and "merge_method" not in text:
        level = ""  # another YAML
    assert [problem.level.value for problem in found] == ([level] if level else [])
    if level == "error":
        assert found[0].file == ("mergekit_config.yml" if where == "file" else "README.md")
        assert found[0].line == (0 if where == "file" else 11)


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (CONFIG, ""),
        (CONFIG.replace("0.6", "0.60"), ""),
        (CONFIG.replace("0.6", "0.61"), "error"),
        (CONFIG.replace("linear", "ties") + "base_model: a/b\n", ""),
    ],
)
def test_a_config_beside_a_recipe_that_was_written_by_hand(
    tmp_path: Path, text: str, level: str
) -> None:
    card(draft(tmp_path), TRUE)
    (tmp_path / "mergekit_config.yml").write_text(text)

    report = check(tmp_path)

    assert levels_of(report, "C06") == ([level] if level else [])
    if "ties" in text:
        assert any("mergekit_config.yml" in said for said in report.not_checked)


@pytest.mark.parametrize(
    ("files", "matter", "found"),
    [
        ({"config.json": {"quantization_config": {"quant_method": "awq"}}}, "", ["awq"]),
        ({}, "quantized_by: somebody\n", ["somebody"]),
        ({}, "tags: [GGUF]\n", ["GGUF"]),
        ({"config.json": {}}, "", []),
    ],
)
def test_what_is_called_quantised(
    tmp_path: Path, files: Any, matter: str, found: list[str]
) -> None:
    card(draft(tmp_path), TRUE + matter)
    for name, document in files.items():
        (tmp_path / name).write_text(json.dumps(document))

    assert [problem.found for problem in of(check(tmp_path), "C11")] == found


def test_another_width_than_the_recipes(tmp_path: Path) -> None:
    card(
        draft(tmp_path, steps=(QUANTISE,), parents=(NEX,)), ONE + "base_model_relation: quantized\n"
    )
    (tmp_path / "config.json").write_text('{"quantization_config": {"load_in_4bit": true}}')

    assert [problem.found for problem in of(check(tmp_path), "C11")] == ["4 bits"]


@pytest.mark.parametrize(
    ("uri", "level"),
    [(NEX["uri"], ""), ("pkg:huggingface/nex-agi/nex-n2-pro@main", "warning"), ("", "warning")],
)
def test_a_parent_that_can_be_moved(tmp_path: Path, uri: str, level: str) -> None:
    report = check(card(draft(tmp_path, parents=({**NEX, "uri": uri}, QWEN)), TRUE))

    assert levels_of(report, "C12") == ([level] if level else [])


@pytest.mark.parametrize(
    ("tags", "messages"),
    [
        (["base_model:nex-agi/Nex-N2-Pro", "base_model:merge:nex-agi/Nex-N2-Pro", "base_model:merge:Qwen/Qwen3.5-397B-A17B"], 0),
        (["base_model:finetune:qwen/qwen3.5-397b-a17b"], 2),
        ([], 1),
    ],
)  # fmt: skip
def test_what_the_hub_makes_of_it(tmp_path: Path, tags: list[str], messages: int) -> None:
    report = check(card(draft(tmp_path), TRUE), hub_tags=tags)

    assert levels_of(report, "C13") == ["note"] * messages
    assert report.exit_code == 0


def test_scores_without_a_statement(tmp_path: Path) -> None:
    index = """\
model-index:
- name: rio
  results:
  - task: {type: text-generation}
    dataset: {name: MMLU, type: cais/mmlu}
    metrics:
    - {type: acc, value: 0.71}
"""
    card(draft(tmp_path), TRUE + index)
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "hle.yaml").write_text(
        "- dataset: {id: cais/hle, task_id: default}\n  value: 20.9\n"
    )

    report = check(tmp_path)

    assert [(p.file, p.line, p.found) for p in of(report, "C10")] == [
        ("README.md", 7, "mmlu: acc 0.71"),
        (".eval_results/hle.yaml", 1, "cais/hle: 20.9"),
    ]
    assert check(tmp_path, levels=parse_levels(["C10=error"])).exit_code == 5


@pytest.mark.parametrize("text", ["a: [", "&a [*a]", "\x00", "x: 1\nx: 2\n"])
def test_results_that_can_not_be_read_are_said(tmp_path: Path, text: str) -> None:
    card(draft(tmp_path), TRUE)
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "x.yaml").write_text(text)

    assert levels_of(check(tmp_path), "C10") == ["warning"]


def test_without_a_manifest_there_is_nothing_to_hold_it_against(tmp_path: Path) -> None:
    with pytest.raises(UnsignedError) as refused:
        check(card(tmp_path, TRUE))

    assert refused.value.exit_code == 3
    assert "parentage declare" in refused.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"---\na: &x [1]\nb: *x\n---\n",
        b"---\na: !!python/object/apply:os.system [id]\n---\n",
        b"---\na: 1\na: 2\n---\n",
        b"---\n- a\n---\n",
        b"---\na: \x07\n---\n",
        b"---\n" + b"[" * 5000 + b"\n---\n",
        b"---\n" + b"a: " + b"x" * (1 << 20) + b"\n---\n",
        b"x" * ((4 << 20) + 1),
        b"\xff\xfe",
        b"\xef\xbb\xbf---\na: 1\n---\n",
        b"---\n? [a]\n: 1\n---\n",
    ],
)  # fmt: skip
def test_a_hostile_card_is_unproven_and_named(tmp_path: Path, data: bytes) -> None:
    (draft(tmp_path) / "README.md").write_bytes(data)

    report = check(tmp_path)

    assert (report.exit_code, report.verdict) == (4, "unproven")
    assert [problem.code for problem in report.problems] == ["card-unreadable"]
    assert "the card: it can't be read" in report.not_checked


@pytest.mark.parametrize(
    "value", ["{a: [b]}", "[[a], {b: c}]", "~", "true", "[~, true]", "''", "12"]
)
def test_values_of_any_kind_are_findings_at_most(tmp_path: Path, value: str) -> None:
    keys = ["base_model", "base_model_relation", "license", "license_name", "licence", "tags"]
    keys += ["datasets", "model-index", "quantized_by"]
    for key in keys:
        card(draft(tmp_path), f"{key}: {value}\n")

        assert check(tmp_path).exit_code == 1


def test_ten_megabytes_of_yaml_are_not_parsed(tmp_path: Path) -> None:
    (draft(tmp_path) / "README.md").write_bytes(b"---\n" + b"a: {}\n" * (10 << 18) + b"---\n")

    report = check(tmp_path)

    assert report.problems[0].message == "file too large"


def test_texts_from_the_card_are_escaped(tmp_path: Path) -> None:
    card(draft(tmp_path), 'base_model: "a/b\\e[2J"\n')

    (problem, *_) = of(check(tmp_path), "C02")

    assert "\x1b" not in problem.found
    assert "\\x1b" in problem.found


def test_levels_are_read_by_id_and_by_name() -> None:
    assert parse_levels(["c05=error", "score-unbound=ignore"]) == {"C05": Level.ERROR, "C10": None}
    for wrong in ("C99=error", "C05=loud", "C05"):
        with pytest.raises(UsageError):
            parse_levels([wrong])
    with pytest.raises(UsageError):
        parse_levels(["C05=error", "licence-differs=note"])


def test_a_rule_that_is_ignored_is_said_to_be(tmp_path: Path) -> None:
    report = check(card(draft(tmp_path), ""), levels=parse_levels([f"{r}=ignore" for r in RULES]))

    assert (report.problems, report.rules, report.exit_code) == ([], [], 0)
    assert "C01 parents-missing: set to ignore" in report.not_checked


def test_a_link_out_of_the_release_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text(f"---\n{TRUE}---\n")
    draft(tmp_path / "rio")
    (tmp_path / "rio" / "README.md").symlink_to(outside)

    report = check(tmp_path / "rio")

    assert [problem.message for problem in report.problems] == ["link leads out of the release"]


def test_a_renamed_parent_is_followed_where_a_hub_is_asked(tmp_path: Path) -> None:
    card(draft(tmp_path), TRUE.replace("nex-agi/Nex-N2-Pro", "Nex/New-Name"))
    leads = {"nex-agi/nex-n2-pro": "nex/new-name", "nex/new-name": "nex/new-name"}

    asked = check(tmp_path, renamed=leads.get)
    alone = check(tmp_path)
    other = check(tmp_path, renamed=lambda repo: "another/one" if repo == "nex/new-name" else None)

    assert of(asked, "C02") == []
    assert len(of(alone, "C02")) == len(of(other, "C02")) == 2
    assert any("renamed" in text for text in alone.not_checked)


def test_configs_that_take_long_to_read_are_not_read(tmp_path: Path) -> None:
    draft(tmp_path, source=imported(CONFIG))
    (tmp_path / "mergekit_config.yml").write_text(CONFIG + "# " + "x" * (64 << 10))
    blocks = f"```yaml\n{CONFIG}# {'x' * (64 << 10)}\n```\n" + f"```yaml\n{CONFIG}```\n" * 6

    report = check(card(tmp_path, TRUE, blocks))

    assert [p.message for p in of(report, "C06")] == ["can't be compared: file too large"]
    assert any("3 more merge configs" in text for text in report.not_checked)
    assert any("a merge config of" in text for text in report.not_checked)


def test_result_files_without_end_are_no_way_around_the_rules(tmp_path: Path) -> None:
    card(draft(tmp_path), TRUE)
    (tmp_path / ".eval_results").mkdir()
    for number in range(257):
        (tmp_path / ".eval_results" / f"{number}.yaml").touch()

    report = check(tmp_path)

    assert (report.exit_code, report.verdict) == (4, "unproven")
    assert [p.message for p in report.problems] == ["too many files"]
    assert "C10 score-unbound: what it looks at can't be read" in report.not_checked
    card(tmp_path, TRUE.replace("merge", "finetune"))
    assert check(tmp_path).exit_code == 1


def test_text_beyond_a_bound_is_said_not_to_be_read(tmp_path: Path) -> None:
    report = check(card(draft(tmp_path), TRUE, "word " * 60_000 + "It was post-trained.\n"))

    assert of(report, "C04") == []
    assert any("beyond its first" in text for text in report.not_checked)


KEYS = st.sampled_from(
    [
        "base_model",
        "base_model_relation",
        "license",
        "license_name",
        "licence",
        "tags",
        "datasets",
        "model-index",
        "quantized_by",
        "x",
    ]
)
LEAVES = st.none() | st.booleans() | st.text("ab/-: .é\x1b[]{}#|@0", max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["results", "task", "dataset", "metrics", "type", "value", "name"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["post-trained ", "not ", "merge ", "\n", "\r", "```yaml\n", "```", "merge_method: linear\n", "<!--", "<!-- parentage:begin -->", "<!-- parentage:end -->", "---\n", "- ", ". ", "\u2028", "\x00", "models: [a]\n"]
)  # fmt: skip


@given(st.dictionaries(KEYS, TREES, max_size=6), st.lists(WORDS, max_size=20).map("".join))
@settings(max_examples=60)
def test_any_card_gives_a_report(
    tmp_path_factory: pytest.TempPathFactory, matter: dict[str, Any], body: str
) -> None:
    folder = draft(tmp_path_factory.mktemp("any"), source=imported(CONFIG))
    (folder / "README.md").write_bytes(f"---\n{json.dumps(matter)}\n---\n{body}".encode())

    report = check(folder)

    assert report.exit_code in {0, 1, 4, 5}
    assert all(
        problem.message.isprintable() and problem.found.isprintable() for problem in report.problems
    )


def test_words_of_training_do_not_hide_between_the_markers(tmp_path: Path) -> None:
    from parentage.verify.cards.section import BEGIN, END
    from parentage.verify.cards.sync import plan

    folder = card(draft(tmp_path / "rio"), TRUE)
    (folder / "README.md").write_bytes(plan(folder).after)
    assert "C04" not in {p.code for p in check(folder).problems}
    text = (folder / "README.md").read_text()
    lie = "\nWe post-trained this model on 4T tokens.\n"
    for changed in (text.replace(END, lie + END), f"{text.partition(BEGIN)[0]}{BEGIN}{lie}{END}\n"):
        (folder / "README.md").write_text(changed)
        report = check(folder)
        assert "C04" in {p.code for p in report.problems}
        assert report.exit_code == 1


def test_names_of_files_drive_no_terminal_and_no_log(tmp_path: Path) -> None:
    from parentage.verify.formats import FORMATS

    folder = card(draft(tmp_path / "rio"), TRUE)
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "a\x1b]0;x\x07\n::error::b.yaml").write_text("[")
    shown = check(folder).shown("card check")
    assert any(problem.file.startswith(".eval_results/") for problem in shown.problems)
    for name in ("human", "github", "markdown", "junit", "gitlab", "sarif"):
        text = FORMATS[name](shown)
        assert "\x1b" not in text, name
        assert not any(line.startswith("::error::b") for line in text.splitlines()), name
