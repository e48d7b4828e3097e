"""Model cards read, and changed key by key, against PyYAML and huggingface_hub's own pattern."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.card import MAX_CARD, digests_of, read_card, read_record
from parentage.manifest.card_text import with_list, with_text
from parentage.manifest.errors import CardError, YamlError
from parentage.manifest.strict_yaml import parse_marked

KEYS = st.text("abcdefgh_", min_size=1, max_size=6)
PLAIN = st.one_of(
    st.text("abcxyz 019-.:#'\"[]{}é\u2028", max_size=12),
    st.sampled_from(["no", "on", "0.6", "1e3", "2026-01-01", "~x", "[a", "- a", "null ", "12:30"]),
)
VALUES = st.recursive(
    st.one_of(PLAIN, st.none(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_what_pyyaml_writes_is_read_back(document: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(document, allow_unicode=True, default_flow_style=flow, sort_keys=False)

    marked = parse_marked(text, where="test", limit=1 << 20)

    assert (marked.value or {}) == document
    for path, start in marked.starts.items():
        if len(path) == 1 and not flow:
            assert text[start:].lstrip("\"'? ").startswith(str(path[0]))


@pytest.mark.parametrize(
    ("yaml_text", "value"),
    [
        ("language: no", "no"),
        ("a: 0.60", "0.60"),
        ("a: 2026-01-01", "2026-01-01"),
        ("a: .nan", ".nan"),
        ("a: 1_000", "1_000"),
        ("a: '~'", "~"),
        ("a: ~", None),
        ("a:", None),
        ("a: true", True),
    ],
)
def test_scalars_are_those_of_yaml_1_2(yaml_text: str, value: object) -> None:
    (found,) = parse_marked(yaml_text, where="test", limit=100).value.values()

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &b c",
        "a: *b",
        "a: !!int 1",
        "a: !x [1]",
        "a: ! true",
        "a: 1\n---\nb: 2",
        "a: 1\na: 2",
        "? {a: 1}\n: 2",
        "[" * 65 + "]" * 65,
        "a: " + "b" * 200,
        "a: \x01",
        'a: "\\ud800"',
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(YamlError):
        parse_marked(text, where="test", limit=150)


@given(
    st.lists(
        st.sampled_from(["---", "\n", "\r", "\r\n", " ", "\t", "a: 1", "b: 2", "#"]), max_size=12
    )
)
def test_front_matter_is_found_where_the_hubs_client_finds_it(parts: list[str]) -> None:
    text = "".join(parts)
    expected = REGEX_YAML_BLOCK.match(text)
    try:
        card = read_card(text.encode())
    except CardError:
        assert expected is not None  # it is there, and no mapping
        return

    assert card.has_matter == (expected is not None)
    if expected is not None:
        assert card.text[card.start : card.end].rstrip("\r\n") == expected[2].rstrip("\r\n")
        assert text[card.body :] == text[expected.end() :]


def test_lines_point_at_keys() -> None:
    text = "\n---\r\n# why\r\na: 1\r\nlist:\r\n- x\r\n- y\r\n---\r\n\u2028text\r\nmore"
    card = read_card(text.encode())

    assert (card.line("a"), card.line("list"), card.line("list", 1), card.line("b")) == (4, 5, 7, 0)
    assert card.line_at(card.text.index("more")) == 10


def test_a_card_that_is_no_card() -> None:
    for data in (b"\xff", b"x" * (MAX_CARD + 1), b"---\n[]\n---\n", "\ufeff---\n---\n".encode()):
        with pytest.raises(CardError):
            read_card(data)
    for data in (b"", b"# no front matter", b"---\nnever closed", b"text\n---\na: 1\n---\n"):
        assert not read_card(data).has_matter


def test_digests_tell_a_key_from_the_text() -> None:
    def digests(text: str) -> Any:
        return digests_of(read_card(text.encode()), text.encode())

    base = digests("---\na: [1, 2]\nb: x\n---\ntext\n")
    spelt = digests("---\nb: 'x'\na:\n- 1\n- 2\n---\ntext\n")
    typo = digests("---\na: [1, 2]\nb: x\n---\ntexts\n")
    other = digests("---\na: [1, 2]\nb: z\n---\ntext\n")

    assert base.matter == spelt.matter == typo.matter
    assert base.body == spelt.body == other.body != typo.body
    assert {key for key in base.matter if base.matter[key] != other.matter[key]} == {"b"}
    assert read_record(base.to_json()) == base
    for wrong in (b"{}", b"[", base.to_json().replace(b"v0.1", b"v0.2")):
        with pytest.raises(CardError):
            read_record(wrong)


NAMES = st.lists(
    st.sampled_from(["a/b", "01-ai/Yi", "c", "no", "x y", 'q"', "é"]),
    min_size=1,
    max_size=4,
    unique=True,
)
STYLES = st.sampled_from(["block", "indented", "flow", "plain", "empty", "absent", "none"])


@given(NAMES, NAMES, STYLES, st.sampled_from(["\n", "\r\n"]), st.text("# \nabc-", max_size=20))
def test_a_list_is_changed_and_nothing_else(
    old: list[str], new: list[str], style: str, end: str, body: str
) -> None:
    import json

    items = [json.dumps(name, ensure_ascii=False) for name in old]
    written = {
        "block": ["tags: # of mine", *(f"- {item} # kept" for item in items)],
        "indented": ["tags:", *(f"    - {item}" for item in items)],
        "flow": [f"tags: [{', '.join(items)}] # of mine"],
        "plain": [f"tags: {items[0]} # of mine"],
        "empty": ["tags: # nothing yet"],
        "absent": [],
        "none": [],
    }[style]
    lines = [
        "---",
        "# first",
        "license: 'mit'",
        *written,
        "# between",
        "",
        "other: {a: [1, 2]}",
        "---",
    ]
    text = body if style == "none" else end.join(lines) + end + body
    card = read_card(text.encode())
    if style == "none" and card.has_matter:
        return

    changed = with_list(card, "tags", new)

    if style in {"block", "indented"}:
        new = [v for v in old if v in new] + [v for v in new if v not in old]
    assert changed.matter["tags"] == new
    assert yaml.safe_load(changed.text[changed.start : changed.end])["tags"]
    assert {k: v for k, v in changed.matter.items() if k != "tags"} == {
        k: v for k, v in card.matter.items() if k != "tags"
    }
    assert changed.text[changed.body :] == text[card.body :]
    for line in (x for x in lines if style != "none" and x not in written):
        assert line in changed.text
    if style in {"block", "flow", "plain", "empty"}:
        assert written[0].partition("#")[2] in changed.text
    assert ("\r" in changed.text) == (
        "\r" in text or (style == "none" and end in text and "\r" in end)
    )


@pytest.mark.parametrize("value", ["mit", "no", "1.0", "a: b", "# x", 'q"\\', "01-ai/Yi", " x "])
@pytest.mark.parametrize(
    "before", ["", "k: old # why", "k:\n- a\n- b\n# after", "k:", "k: 'old'", "k: {a: 1}"]
)
def test_a_text_is_read_back_as_it_was_meant(value: str, before: str) -> None:
    text = f"---\na: 1\n{before}\nz: 2\n---\nbody"
    card = read_card(text.encode())

    changed = with_text(card, "k", value)

    assert changed.matter == {**card.matter, "k": value}
    assert all(comment in changed.text for comment in re.findall("# .*", before))


@pytest.mark.parametrize("matter", ["{a: 1}", "k: |\n  old", "k: >\n  old"])
def test_what_can_not_be_edited_is_refused_by_line(matter: str) -> None:
    card = read_card(f"---\n{matter}\n---\n".encode())

    with pytest.raises(CardError) as refused:
        with_text(card, "k", "new")

    assert refused.value.where == "line 2"
    assert refused.value.hint
