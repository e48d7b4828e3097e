"""Results files of every format: read as they stand, and refused by name where they are broken."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import MalformedError, ParentageError, ResultsError
from parentage.verify.benchmarks.documents import number, read_file
from parentage.verify.benchmarks.readers import READERS, read_results
from parentage.verify.benchmarks.samples import digest_log, pick, read_log

FILES = Path(__file__).parent / "results"
LOG = FILES / "lm-eval-0.4.13-samples.jsonl"


def read(name: str) -> Any:
    return read_results((FILES / name).read_bytes(), name)


def scored(name: str) -> dict[tuple[str, str, str], str]:
    return {(s.task, s.metric, s.filter): s.value for s in read(name).scores}


#: What another reader finds at the place where the harness's own source puts it.
EXPECTED: dict[str, tuple[str, Callable[[], dict[tuple[str, str, str], str]]]] = {
    "lm-eval-0.4.13.json": ("lm-evaluation-harness", lambda: {
        ("tiny_choice", "acc", "none"): str(json.loads((FILES / "lm-eval-0.4.13.json").read_text())["results"]["tiny_choice"]["acc,none"])}),
    "lighteval-0.13.0.json": ("lighteval", lambda: {
        ("lighteval:gsm8k:5", "extractive_match", ""): "0.4162",
        ("extended:mt_bench:0", "single_turn", ""): "7.7125",
        ("extended:mt_bench:0", "multi_turn", ""): "7.4625"}),
    "inspect_ai-0.3.285.json": ("inspect_ai", lambda: {("arc", "accuracy", "choice"): "0.625"}),
    "evalplus-0.3.1.json": ("evalplus", lambda: {
        ("humaneval", "pass@1", ""): "0.666666666667", ("humaneval+", "pass@1", ""): "0.333333333333"}),
    "opencompass-0.5.4.csv": ("opencompass", lambda: {
        (row["dataset"], row["metric"], row["mode"]): row["qwen2.5-7b-instruct-hf"]
        for row in csv.DictReader((FILES / "opencompass-0.5.4.csv").read_text().splitlines())
        if row["qwen2.5-7b-instruct-hf"] != "-"}),
    "every_eval_ever-0.3.0.json": ("inspect_ai", lambda: {("choice", "accuracy", ""): "0.71500"}),
    "model-index.md": ("model-index", lambda: {
        ("ai2_arc:ARC-Challenge:test", "acc_norm", "normalized accuracy"): "64.590"}),
    "eval_results.yaml": ("eval_results", lambda: {
        ("/".join((one["dataset"]["id"], one["dataset"]["task_id"])), "value", one.get("notes", "")): one["value"]
        for one in yaml.load((FILES / "eval_results.yaml").read_text(), yaml.BaseLoader)}),  # noqa: S506
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_scores_stand_as_they_are_written(name: str) -> None:
    harness, expected = EXPECTED[name]

    assert scored(name) == expected()
    assert read(name).harness.name == harness


def test_every_format_has_a_file() -> None:
    read_by = {
        reader
        for name in EXPECTED
        for reader, entry in READERS.items()
        if entry.matches(_document(name))
    }
    assert read_by == set(READERS)


def _document(name: str) -> Any:
    from parentage.verify.benchmarks.documents import open_document

    return open_document((FILES / name).read_bytes(), name)


def test_what_lm_eval_says_beside_scores() -> None:
    found, said = (
        read("lm-eval-0.4.13.json"),
        json.loads((FILES / "lm-eval-0.4.13.json").read_text()),
    )

    assert (found.harness.version, found.harness.backend) == ("0.4.13", "hf")
    assert found.tasks[0].task_hash == said["task_hashes"]["tiny_choice"]
    assert found.tasks[0].samples == found.scores[0].samples == 16
    assert found.scores[0].stderr == "0.11967838846954226"
    assert found.model == ("/work/model",)
    assert found.started == int(said["date"])


def test_data_sets_and_their_revisions() -> None:
    lighteval = read("lighteval-0.13.0.json").tasks[0]
    assert (lighteval.dataset, lighteval.dataset_revision[:8]) == ("openai/gsm8k", "e53f0488")
    card = read("model-index.md").tasks[0]
    assert (card.dataset, card.dataset_revision[:8]) == ("ai2_arc", "210d026f")
    hub = read("eval_results.yaml").tasks
    assert [(task.dataset, task.dataset_revision[:8]) for task in hub] == [
        ("cais/hle", "5503434d"),
        ("Idavidrein/gpqa", ""),
    ]
    record = read("every_eval_ever-0.3.0.json")
    assert (record.tasks[0].dataset, record.tasks[0].samples) == ("allenai/ai2_arc", 2376)
    assert record.scores[0].stderr == "0.0093"


def test_a_record_of_two_results_by_nobody_known() -> None:
    said = json.loads((FILES / "every_eval_ever-0.3.0.json").read_text())
    said["eval_library"] = {"name": "unknown", "version": "unknown"}
    said["source_metadata"]["source_name"] = "a board"
    one = said["evaluation_results"][0]
    said["evaluation_results"] = [{**one, "evaluation_result_id": f"r{n}"} for n in range(2)]
    found = read_results(json.dumps(said).encode(), "t")
    assert (found.harness.name, [score.filter for score in found.scores]) == (
        "a board",
        ["r0", "r1"],
    )


def test_a_log_as_json_and_as_an_archive_say_the_same(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(FILES / "inspect_ai-0.3.285.json", "header.json")
    one = read("inspect_ai-0.3.285.json")
    other = read_results(read_file(tmp_path / "log.eval"), "log.eval")
    assert (one.tasks, one.scores, one.finished) == (other.tasks, other.scores, other.finished)
    assert one.scores[0].stderr == "0.18298126367784995"
    assert one.finished is not None
    assert one.started is not None
    assert one.finished - one.started == 90


LM = json.loads((FILES / "lm-eval-0.4.13.json").read_text())
INSPECT = {"status": "success", "eval": {"task": "t", "model": "hf/m"},
           "results": {"scores": [{"name": "s", "metrics": {"accuracy": {"value": 1}}}]}}  # fmt: skip
BROKEN: dict[str, tuple[bytes, str]] = {
    "nan": (b'{"results": {"t": {"acc,none": NaN}}, "configs": {}, "versions": {}, "config": {}}', "exact value"),
    "infinity": (b'{"results": {"t": {"acc,none": Infinity}}, "configs": {}, "versions": {}, "config": {}}', "exact value"),
    "nan-in-yaml": (b"- dataset: {id: a/b}\n  value: .nan\n", "not a number"),
    "nan-as-text": (b"- dataset: {id: a/b}\n  value: NaN\n", "decimal text"),
    "duplicate-key": (b'{"results": {"t": {"acc,none": 1, "acc,none": 0}}}', "duplicate key"),
    "unknown": (b'{"score": 1}', "known format"),
    "no-score": (json.dumps({**LM, "results": {}}).encode(), "without a score"),
    "only-text": (json.dumps({**LM, "results": {"t": {"acc,none": "N/A"}}}).encode(), "without a score"),
    "results-a-list": (json.dumps({**LM, "results": [1]}).encode(), "not an object"),
    "astronomical": (json.dumps({**LM, "results": {"t": {"acc,none": 0}}}).replace('"acc,none": 0', '"acc,none": 1e99').encode(), "decimal text"),
    "unfinished": (json.dumps({**INSPECT, "status": "error"}).encode(), "did not finish"),
    "invalidated": (json.dumps({**INSPECT, "invalidated": True}).encode(), "invalidated"),
    "two-models": (b"dataset,version,metric,mode,a,b\nx,1,acc,gen,1,2\n", "several models"),
    "short-line": (b"dataset,version,metric,mode,a\nx,1,acc,gen\n", "another length"),
    "no-outcomes": (b'{"date": "d", "hash": "h", "eval": {}}', "no outcomes"),
    "problem-without": (b'{"date": "d", "hash": "h", "eval": {"A/1": []}}', "no outcomes"),
    "next-version": (b'{"schema_version": "1.0.0", "model_info": {}, "evaluation_results": []}', "another version"),
    "twice": (b"- dataset: {id: a/b}\n  value: 1\n- dataset: {id: a/b}\n  value: 2\n", "stands twice"),
    "front-matter-without-end": (b"---\nmodel-index: []\n", "no end"),
    "alias": (b"- &a {dataset: {id: a/b}, value: 1}\n- *a\n", "not valid YAML"),
    "not-text": (b"\xff\xfe\x00", "not text"),
    "half-a-zip": (b"PK\x03\x04 and no more", "unpacked"),
    "deep": (b"[" * 100_000, "nested too deeply"),
    "long-name": (json.dumps({**LM, "results": {"t" * 600: {"acc,none": 1}}}).encode(), "not a name"),
    "empty": (b"", "known format"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_errors(name: str) -> None:
    data, what = BROKEN[name]
    with pytest.raises(MalformedError, match=what) as caught:
        read_results(data, "r")
    assert caught.value.code in {"results", "json"}
    assert caught.value.where.startswith("r")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="its zipfile unpacks Zstandard")
def test_an_archive_that_this_python_can_not_unpack() -> None:
    """inspect_ai 0.3.285 packs with Zstandard."""
    with pytest.raises(ResultsError, match="unpacked") as caught:
        read("inspect_ai-0.3.285.eval")
    assert "inspect log convert" in caught.value.hint


def test_an_archive_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("samples/1.json", "{}")
    with pytest.raises(ResultsError, match="no header"):
        read_results(read_file(path), "r")


def test_a_header_that_unpacks_to_too_much(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b" " * (65 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ResultsError, match="too large"):
        read_results(read_file(path), "r")


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(ResultsError, match="too large"):
        read_file(path)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=20))  # fmt: skip
def test_numbers_keep_their_value(value: Decimal) -> None:
    text = number(value, "t")
    assert Decimal(text) == value
    assert "e" not in text.lower()


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["results", "configs", "versions", "config", "t", "acc,none", "eval", "status",
                         "version", "scores", "metrics", "evaluation_results", "model_info", "date", "hash",
                         "schema_version", "config_general", "config_tasks"]), inner, max_size=6),
    max_leaves=20))  # fmt: skip
def test_any_json_is_read_or_refused_by_name(value: Any) -> None:
    try:
        found = read_results(json.dumps(value).encode(), "t")
    except ParentageError as error:
        assert error.exit_code == 1  # noqa: PT017  (it may also be read)
    else:
        assert found.scores


def test_a_log_of_samples() -> None:
    log = read_log(LOG)
    lines = [json.loads(line) for line in LOG.read_text().splitlines()]
    flat = [
        (one["arg_0"], one["arg_1"], answer[0][0])
        for line in lines
        for one, answer in zip(line["arguments"].values(), line["resps"], strict=True)
    ]

    assert (log.log.count, log.requests, log.others) == (16, 32, 0)
    assert log.log == digest_log(LOG)
    found = pick(LOG, {0, 5, 31}, log.log)
    assert [(r.context, r.continuation, str(r.logged)) for r in found] == [
        flat[at] for at in (0, 5, 31)
    ]


@given(st.dictionaries(
    st.sampled_from(["arguments", "resps", "doc"]),
    st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=4),
                 lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
                 max_leaves=10)))  # fmt: skip
def test_any_line_is_read_or_refused_by_name(line: Any) -> None:
    with NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_text(json.dumps(line) + "\n")
        try:
            log = read_log(path)
        except MalformedError as error:
            assert error.code in {"results", "json"}  # noqa: PT017  (it may also be read)
        else:
            assert len(pick(path, range(log.requests), log.log)) == log.requests


def test_a_log_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LOG.read_bytes())
    log = read_log(path)
    path.write_bytes(LOG.read_bytes().replace(b"0 plus 0", b"0 plus 9"))
    with pytest.raises(ResultsError, match="changed"):
        pick(path, {0}, log.log)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"", "no samples"),
        (b"{}\n", "arguments and resps"),
        (b'{"arguments": {"a": {"x": "c", "y": "d"}}, "resps": []}\n', "as many answers"),
        (b'{"arguments": [["c", "d"]], "resps": [[["nan", "False"]]]}\n', "decimal text"),
        (b'{"arguments": [["c", "d"]], "resps": [[["x", "False"]]]}\n', "not a number"),
        (b"[1", "not valid JSON"),
    ],
)
def test_a_log_that_is_none(tmp_path: Path, line: bytes, what: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line)
    with pytest.raises(MalformedError, match=what):
        read_log(path)


def test_generated_answers_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"arguments": [["c", {"until": ["."]}]], "resps": [["text"]]}\n')
    assert (read_log(path).requests, read_log(path).others) == (0, 1)


def test_a_line_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with path.open("wb") as stream:
        stream.truncate(17 << 20)
    with pytest.raises(ResultsError, match="too large"):
        read_log(path)


@pytest.mark.parametrize(
    "how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_spoilt_archive_is_a_named_error(how: int) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", how) as archive:
        archive.writestr("header.json", json.dumps({"a": list(range(300))}))
    for at in range(4, len(packed.getvalue()), 3):
        data = bytearray(packed.getvalue())
        data[at] ^= 0x55
        with contextlib.suppress(MalformedError):
            read_results(bytes(data), "spoilt.eval")
        with pytest.raises(MalformedError):
            read_results(bytes(packed.getvalue()[:at]), "short.eval")
