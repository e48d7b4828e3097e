"""What `card sync` writes, and that it leaves the rest as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from cards import COPY, FOLD, MERGE, NEX, OPAQUE, QUANTISE, QWEN, TRAINING, draft
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.card import read_card
from parentage.manifest.errors import CardError
from parentage.manifest.lineage import Lineage, parse
from parentage.verify.cards.authority import Authority
from parentage.verify.cards.check import check
from parentage.verify.cards.kinds import kinds_of
from parentage.verify.cards.names import parents_of
from parentage.verify.cards.section import BEGIN, END
from parentage.verify.cards.sync import Synced, plan, synced


def lineage(**changes: object) -> Lineage:
    document = {
        "weights": {"root": {"ptd1-b3": "3" * 64}, "tensors": 1, "bytes": "8"},
        "parents": [NEX, QWEN],
        "recipe": {"steps": [MERGE]},
        "created": "2026-06-14T09:00:00Z",
        **changes,
    }
    return parse(document, where="test")


def sync(text: str | None, **changes: object) -> Synced:
    said = lineage(**changes)
    authority = Authority(lineage=said, state="declared")
    kinds = kinds_of(said, is_adapter=False)
    data = None if text is None else text.encode()
    return synced(data, authority, kinds, parents_of(said))


AUTHORS = """\
---
# Written by hand.
language: [en, no]     # two
license: llama3.1 # legal said so
tags:
  - merge   # by mergekit
widget:
- text: |
    # not a comment
    base_model: not a key
extra: "0.60"
---
# Rio

My text, with `code`,  two spaces  \nand a line end.

## Provenance of the name

Rio is a river.
"""


def test_what_is_written(tmp_path: Path) -> None:
    (draft(tmp_path) / "README.md").write_text(AUTHORS)

    planned = plan(tmp_path)
    matter = yaml.safe_load(planned.after.decode().split("---\n")[1])

    assert planned.keys == ("base_model", "base_model_relation", "tags")
    assert matter["base_model"] == ["nex-agi/nex-n2-pro", "qwen/qwen3.5-397b-a17b"]
    assert matter["base_model_relation"] == "merge"
    assert matter["license"] == "llama3.1"
    assert matter["tags"] == ["merge", "parentage"]
    section = planned.after.decode().partition(BEGIN)[2]
    for text in (
        "A badge proves nothing",
        "0.6 x nex + 0.4 x qwen, divided by the sum of the weights",
        f"| nex | nex-agi/nex-n2-pro | `{'a' * 40}` | `ptd1-b3:{'1' * 64}` | Apache-2.0 |",
        f"--parent nex=hf://nex-agi/nex-n2-pro@{'a' * 40} \\",
        f"ptd1-b3:{'3' * 64}",
    ):
        assert text in section


def test_the_authors_lines_stay_in_their_order() -> None:
    after = sync(AUTHORS).after.decode()

    found = iter(after.splitlines())
    assert [line for line in AUTHORS.splitlines() if line not in found] == []


def test_a_synced_card_passes_its_check(tmp_path: Path) -> None:
    draft(tmp_path)
    for text in (None, "# Rio\n", "---\n---\n", "---\ntags: x\n---\n"):
        card = tmp_path / "README.md"
        card.unlink(missing_ok=True)
        if text is not None:
            card.write_text(text)
        card.write_bytes(plan(tmp_path).after)

        assert check(tmp_path).problems == []


MATTER = st.dictionaries(
    st.sampled_from(
        ["base_model", "base_model_relation", "license", "tags", "language", "x", "model-index"]
    ),
    st.one_of(
        st.sampled_from(
            ["mit", "gpl-3.0", "other", "merge", "finetune", "Nex-AGI/Nex-N2-Pro", "a/b", "no"]
        ),
        st.none(),
        st.lists(
            st.sampled_from(["a/b", "QWEN/Qwen3.5-397B-A17B", "parentage", "merge", "é: #"]),
            max_size=3,
        ),
    ),
    max_size=5,
)
BODY = st.text(st.sampled_from("# \nabcé-`<!>|*\u2028"), max_size=60)


@given(MATTER, BODY, BODY, st.booleans(), st.booleans(), st.booleans())
def test_twice_is_once_and_the_rest_is_unchanged(
    matter: dict[str, object], body: str, after: str, flow: bool, windows: bool, again: bool
) -> None:
    dumped = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, default_flow_style=False)
    if flow:
        lines = [
            f"{k}: {yaml.safe_dump(v, default_flow_style=True, width=999)}".removesuffix("...\n")
            for k, v in matter.items()
        ]
        dumped = "".join(line.rstrip("\n") + "\n" for line in lines)
    dumped = "# mine\n" + (dumped if matter else "") + "# end\n"
    section = f"{BEGIN}\nstale\n{END}" if again else ""
    text = f"---\n{dumped}---\n{body}{section}{after}"
    if windows:
        text = text.replace("\n", "\r\n")

    once = sync(text)
    written = once.after.decode()
    twice = sync(written)

    assert not twice.changed
    assert twice.after == once.after
    card = read_card(once.after)
    rest = written[card.body :]
    end = "\r\n" if windows else "\n"
    kept, kept_after = body.replace("\n", end), after.replace("\n", end)
    if again:
        assert rest.partition(BEGIN)[0] == kept
        assert rest.partition(END)[2] == kept_after
    else:
        assert rest.startswith(kept + kept_after)
    others = {
        key: value for key, value in read_card(text.encode()).matter.items() if key not in once.keys
    }
    assert {key: value for key, value in card.matter.items() if key in others} == others
    assert "# mine" in written
    assert "# end" in written
    assert not windows or not re.search("(?<!\r)\n", written)


@pytest.mark.parametrize(
    ("said", "keeps"),
    [
        ("base_model: NEX-agi/Nex-N2-Pro\n", "NEX-agi/Nex-N2-Pro"),
        ("base_model:\n- Qwen/Qwen3.5-397B-A17B # first\n- wrong/one\n", "Qwen/Qwen3.5-397B-A17B"),
        (
            "base_model:\n- Qwen/Qwen3.5-397B-A17B\n- Qwen/Qwen3.5-397B-A17B\n",
            "Qwen/Qwen3.5-397B-A17B",
        ),
    ],
)
def test_the_authors_spelling_and_order_of_parents_stay(said: str, keeps: str) -> None:
    matter = read_card(sync(f"---\n{said}---\n").after).matter

    assert matter["base_model"][0] == keeps
    assert len(matter["base_model"]) == 2
    assert "wrong/one" not in matter["base_model"]


def test_one_parent_is_a_text() -> None:
    matter = read_card(sync("", parents=[NEX], recipe={"steps": [TRAINING]}).after).matter

    assert matter["base_model"] == "nex-agi/nex-n2-pro"
    assert matter["base_model_relation"] == "finetune"


def test_parents_without_a_place_are_left_to_the_author() -> None:
    planned = sync("---\nbase_model: [a/b, c/d]\n---\n", parents=[NEX, {**QWEN, "uri": ""}])

    assert read_card(planned.after).matter["base_model"] == ["a/b", "nex-agi/nex-n2-pro"]
    assert "name them yourself" in planned.notes[0]


@pytest.mark.parametrize(
    ("own", "parents", "written"),
    [
        (None, ("Apache-2.0", "GPL-3.0-only"), "gpl-3.0"),
        ("mit", ("Apache-2.0", "MIT"), "mit"),
        ("mit", ("Apache-2.0", "GPL-3.0-only"), "gpl-3.0"),
        ("agpl-3.0", ("Apache-2.0", "GPL-3.0-only"), "agpl-3.0"),
        ("my-own", ("Apache-2.0", "MIT"), "my-own"),
        (None, ("Apache-2.0", "LicenseRef-ours"), None),
        (None, ("", ""), None),
        ("mit", ("MIT OR Apache-2.0", ""), "mit"),
        (None, ("GPL-3.0-only OR MIT", ""), None),
    ],
)
def test_a_licence_is_at_least_as_strict(
    own: str | None, parents: tuple[str, str], written: str | None
) -> None:
    both = [{**NEX, "license": parents[0]}, {**QWEN, "license": parents[1]}]

    planned = sync(f"---\nlicense: {own}\n---\n" if own else "", parents=both)

    assert read_card(planned.after).matter.get("license") == written


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([MERGE], "0.6 x nex + 0.4 x qwen"),
        ([{**MERGE, "params": {"weights": ["1"], "normalize": False, "base": "nex", "scale": "0.5"}}], "nex + 0.5 x (1 x qwen), each minus nex"),
        ([FOLD], "lora\\_merge/v1 of qwen, nex"),
        ([{"id": "s", "op": "slerp/v1", "inputs": ["nex", "qwen"], "params": {"t": "0.3"}, "arithmetic": {"profile": "parentage-1", "store": "BF16"}}], "stored as BF16"),
    ],
)  # fmt: skip
def test_a_recipe_in_words(steps: list[object], words: str) -> None:
    assert words in sync("", recipe={"steps": steps}).after.decode()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (TRAINING, "on-policy-distillation, 10 steps"),
        (COPY, "tensors of nex, unchanged"),
        (OPAQUE, "that nobody can recompute: a secret"),
        (QUANTISE, "quantise\\_rtn/v1 of nex"),
    ],
)
def test_a_recipe_of_one_parent_in_words(step: object, words: str) -> None:
    assert words in sync("", parents=[NEX], recipe={"steps": [step]}).after.decode()


def test_no_parents_and_no_history() -> None:
    text = sync("", parents=[], recipe={"steps": []}).after.decode()

    assert "names no parents" in text
    assert "without a history" in text
    assert "base_model" not in text


def test_the_manifests_texts_are_no_markdown() -> None:
    step = {**OPAQUE, "description": "a | b <script> [x](javascript:1) `c` <!-- parentage:end -->"}

    text = sync("", parents=[NEX], recipe={"steps": [step]}).after.decode()

    assert text.count(END) == 1
    assert "<script>" not in text
    assert "\\[x\\](javascript" in text


@pytest.mark.parametrize("markers", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_broken_markers_are_not_guessed_at(markers: str) -> None:
    with pytest.raises(CardError) as refused:
        sync(f"# Rio\n{markers}\n")

    assert "one pair" in refused.value.what


def test_a_value_in_a_block_is_left_alone() -> None:
    with pytest.raises(CardError) as refused:
        sync("---\nbase_model: |\n  a/b\n---\n")

    assert refused.value.hint == "write base_model on one line"


#: What mergekit 0.1.5 writes (mergekit/card.py, generate_card).
MERGEKIT = """\
---
base_model:
- nex-agi/nex-n2-pro
- qwen/qwen3.5-397b-a17b
library_name: transformers
tags:
- mergekit
- merge

---
# rio

This is a merge of pre-trained language models created using [mergekit](https://github.com/cg123/mergekit).

## Merge Details
### Merge Method

This model was merged using the [Linear](https://arxiv.org/abs/2203.05482) merge method.

### Models Merged

The following models were included in the merge:
* [nex-agi/nex-n2-pro](https://huggingface.co/nex-agi/nex-n2-pro)
* [qwen/qwen3.5-397b-a17b](https://huggingface.co/qwen/qwen3.5-397b-a17b)

### Configuration

The following YAML configuration was used to produce this model:

```yaml
models:
  - model: nex-agi/nex-n2-pro
    parameters: {weight: 0.6}
  - model: qwen/qwen3.5-397b-a17b
    parameters: {weight: 0.4}
merge_method: linear

```
"""


def test_mergekits_own_card_lacks_a_relation_and_a_licence(tmp_path: Path) -> None:
    (draft(tmp_path) / "README.md").write_text(MERGEKIT)

    before = check(tmp_path)
    (tmp_path / "README.md").write_bytes(plan(tmp_path).after)

    assert [(p.code, p.level.value) for p in before.problems] == [
        ("C03", "warning"),
        ("C05", "warning"),
    ]
    assert check(tmp_path).problems == []
    assert (
        "- parentage\nbase_model_relation: merge\nlicense: apache-2.0\n\n---\n"
        in (tmp_path / "README.md").read_text()
    )
