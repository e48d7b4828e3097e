"""A repository checked without a download: what that proves, what it doesn't, and what it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from gguf import GGUFWriter
from hub_rig import LocalHub
from hubs import running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from worlds import raw_safetensors

import parentage
from parentage import Demands, KeySigner, PrivateKey, Report, TrustedKeys
from parentage.manifest import table
from parentage.manifest.digest import CHUNK
from parentage.manifest.errors import CannotRunError, HubError, UsageError
from parentage.verify.demands import Remembered
from parentage.verify.levels import levels
from parentage.verify.remote import Slices, verify_remote
from parentage.verify.slices import count, draw
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.web import Patience

QUICK = Patience(attempts=2, pause=0.001, stall=0.3, answer=0.5, longest=0.01)
SHARDS = 3
ROWS = 5 * CHUNK // 2 // 1024  # of 1 KiB: two chunks and a half a tensor


class Release:
    """A signed release of several shards, in a folder and on a Hub."""

    def __init__(self, folder: Path, hub: LocalHub) -> None:
        self.folder, self.hub, self.key = folder, hub, PrivateKey.generate()
        self.trust = TrustedKeys((self.key.public,))
        generator = np.random.default_rng(5)
        weight_map = {}
        for number in range(SHARDS):
            name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
            tensors = {
                f"layers.{number}.{kind}": generator.standard_normal((rows, 256), np.float32)
                for kind, rows in (("w", ROWS), ("norm", 1))
            }
            save_file(tensors, folder / name)
            weight_map |= dict.fromkeys(tensors, name)
        index = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(index)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "README.md").write_text("# A model\n")
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
        parentage.sign_release(folder, KeySigner(self.key), self.trust, observed=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.files = {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }
        self.commit = hub.put_folder("acme/m", folder)
        self.weights = sum(len(d) for n, d in self.files.items() if n.endswith(".safetensors"))

    def but(self, **changes: bytes | None) -> str:
        """Commit something else, named by a file's stem; return a revision."""
        names = {n.rpartition("/")[2].split(".")[0] or n: n for n in self.files}
        changed = {names.get(stem, stem): data for stem, data in changes.items()}
        return self.hub.put("acme/m", {**self.files, **changed})

    def check(self, revision: str = "", **options: Any) -> Report:
        slices = options.pop("slices", None)
        return verify_remote(
            HubPlace("acme/m", revision or self.commit),
            trust=options.pop("trust", self.trust),
            demands=Demands(**options),
            slices=slices if isinstance(slices, Slices | None) else Slices(slices),
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with (
        running(tmp_path_factory.mktemp("hub")) as hub,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("parentage.verify.sources.hub.patience", lambda: QUICK)
        yield Release(tmp_path_factory.mktemp("release"), hub)


@pytest.fixture
def release(made: Release) -> Iterator[Release]:
    made.hub.log.clear()
    yield made
    made.hub.faults.clear()


def codes(report: Report) -> set[str]:
    return {found.code for found in report.findings if found.refutes}


def test_it_is_verified_as_far_as_that_goes(release: Release) -> None:
    report = release.check()
    local = parentage.verify_release(
        release.folder, trust=release.trust, demands=Demands(level="integrity")
    )
    assert (report.verdict, report.exit_code, report.findings) == ("verified", 0, [])
    assert report.demanded == "remote"
    assert report.release == f"hf://acme/m@{release.commit}"
    assert report.root == local.root
    assert report.signer == local.signer
    same = ("files", "files_signed", "files_ignored", "bytes", "bytes_signed", "tensors")
    assert [getattr(report.coverage, n) for n in same] == [getattr(local.coverage, n) for n in same]
    assert report.coverage.tensors_checked == 0
    assert report.not_checked[0].startswith("the bytes of the weights: none was read; that they")
    assert "the recipe: nothing was recomputed" in report.not_checked
    assert levels(report, has_recipe=True) == ("PARENTAGE_IDENTITY", "PARENTAGE_LINEAGE_DECLARED")


def test_it_reads_headers_and_what_is_small(release: Release) -> None:
    report = release.check()
    headers = sum(
        8 + int.from_bytes(data[:8], "little")
        for name, data in release.files.items()
        if name.endswith(".safetensors")
    )
    leaves = {".parentage/leaves.bin", "model.sig"}
    assert report.remote is not None
    assert report.remote.requests == len(release.hub.log.requests)
    assert report.remote.bytes == release.hub.log.sent()
    large = {n for n in release.files if n.endswith((".safetensors", "leaves.bin"))}
    assert report.remote.files_declared == len(large)
    assert report.remote.bytes_declared == sum(len(release.files[n]) for n in large)
    assert report.remote.files_read + len(large) == len(release.files)
    assert release.hub.log.sent("lfs-get") <= headers + len(release.files["model.sig"])
    assert not any("leaves" in asked.path for asked in release.hub.log.of("resolve"))
    assert leaves
    # One for what it is, one for the list, two for each shard, one for each file that is read.
    assert report.remote.requests == 2 + 2 * SHARDS + report.remote.files_read


def test_a_moving_revision_is_pinned(release: Release) -> None:
    revision = release.but()
    release.hub.faults.after("info", lambda: release.but(config=b"{}"))
    report = release.check("main")
    assert (report.verdict, report.release) == ("verified", f"hf://acme/m@{revision}")


def other_header(data: bytes) -> bytes:
    """Return a file whose header names other tensors, in as many bytes."""
    return data.replace(b"norm", b"Norm", 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config": b"{}"}, "file-digest"),
        ({"README": b"# Another\n"}, "file-digest"),
        ({"vocab": None}, "file-missing"),
        ({"extra.py": b"import os"}, "file-unsigned"),
        ({"tensors": b"{}\n"}, "statement"),
        ({"tensors": None}, "lineage"),
        ({"leaves": b"0" * 32}, "file-digest"),
        ({"leaves": None}, "malformed"),
        ({"model": None}, "shard-index"),
        ({"model-00002-of-00003": None}, "shard-index"),
        ({"claims": b""}, "unsigned"),
        ({"model.sig": b"{}"}, "bundle"),
    ],
)
def test_what_was_changed_after_signing(
    release: Release, changes: dict[str, bytes | None], expected: str
) -> None:
    names = {"model": "model-00001-of-00003", "model.sig": "model"}
    if "model.sig" in changes:
        revision = release.hub.put("acme/m", {**release.files, "model.sig": changes["model.sig"]})
    else:
        revision = release.but(**{names.get(n, n): data for n, data in changes.items()})
    report = release.check(revision)
    assert report.verdict in {"refuted", "unsigned"}
    assert expected in {found.code for found in report.findings}


def test_weights_that_were_changed(release: Release) -> None:
    name = "model-00002-of-00003.safetensors"
    data = bytearray(release.files[name])
    data[-1] ^= 1
    for changed in (bytes(data), other_header(release.files[name])):
        revision = release.hub.put("acme/m", {**release.files, name: changed})
        report = release.check(revision)
        found = {f.code: f for f in report.findings}
        assert (report.verdict, report.root) == ("refuted", {})
        assert hashlib.sha256(changed).hexdigest() in found["file-digest"].found
        assert report.release.endswith(revision)


def test_a_hub_that_lists_what_it_does_not_have(release: Release) -> None:
    name = "model-00002-of-00003.safetensors"
    header = other_header(release.files[name])
    release.hub.faults.add("replace", path=name, data=header)
    report = release.check()
    assert report.verdict == "refuted"
    assert {"header-digest", "tensor-missing"} <= codes(report) or "shard-index" in codes(report)


def test_a_header_with_the_same_tensors_and_other_bytes(release: Release) -> None:
    name = "model-00002-of-00003.safetensors"
    data = release.files[name]
    size = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:size])
    again = json.dumps(dict(reversed(entries.items())), separators=(",", ":")).encode()
    other = data[:8] + again.ljust(size - 8) + data[size:]
    assert (len(other), other != data) == (len(data), True)
    release.hub.faults.add("replace", path=name, data=other)
    assert codes(release.check()) == {"header-digest"}


def test_a_table_that_is_not_about_these_tensors(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher may sign whatever it likes; without leaves, identities alone would not show it."""
    real = table.build

    def reshaped(*arguments: Any) -> tuple[bytes, bytes]:
        data, leaves = real(*arguments)
        return data.replace(b'"shape":[2,8]', b'"shape":[8,2]'), leaves

    monkeypatch.setattr("parentage.manifest.table.build", reshaped)
    save_file({"w": np.ones((2, 8), np.float32)}, tmp_path / "model.safetensors")
    parentage.sign_release(tmp_path, KeySigner(release.key), release.trust, observed=True)
    release.hub.put_folder("acme/reshaped", tmp_path)
    report = verify_remote(HubPlace("acme/reshaped"), trust=release.trust)
    assert (report.verdict, codes(report)) == ("refuted", {"tensor-place"})


def test_weights_that_a_hub_would_not_send(release: Release) -> None:
    """Only slices can see it: without them the check says that no weights were read."""
    name = "model-00003-of-00003.safetensors"
    size = len(release.files[name])
    release.hub.faults.add("corrupt", path=name, at=size - 1000)
    blind = release.check()
    assert blind.verdict == "verified"
    assert "none was read" in blind.not_checked[0]
    seen = release.check(slices=1000)
    assert (seen.verdict, codes(seen)) == ("refuted", {"slice-digest"})
    assert name in seen.findings[0].where


def test_slices_are_counted_and_can_be_repeated(release: Release) -> None:
    report = release.check(slices=4)
    assert report.verdict == "verified"
    assert report.remote is not None
    assert (report.remote.slices, report.remote.of_slices) == (4, SHARDS * 4)
    assert len(report.remote.seed) == 32
    assert "but for 4 slices" in report.not_checked[0]
    once = ranges(release)
    release.hub.log.clear()
    again = release.check(slices=Slices(4, report.remote.seed))
    assert ranges(release) == once
    assert again.remote is not None
    assert again.remote.seed == report.remote.seed
    assert f"--slice-seed {again.remote.seed}" in again.remote.drawn()
    every = release.check(slices=10**4)
    assert every.remote is not None
    assert every.remote.slices == every.remote.of_slices == SHARDS * 4


def ranges(release: Release) -> list[tuple[str, str]]:
    return sorted(
        (asked.path, asked.range) for asked in release.hub.log.of("lfs-get") if asked.range
    )


def test_no_slice_is_drawn_before_everything_else_was_read(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def drawing(*arguments: Any) -> Any:
        asked.append(len(release.hub.log.requests))
        return draw(*arguments)

    monkeypatch.setattr("parentage.verify.remote.chunks.draw", drawing)
    report = release.check(slices=1)
    assert report.remote is not None
    # Three more: where the leaves lie, the leaves, the slice.
    assert asked == [report.remote.requests - 3]


def test_draws_are_fair_and_told_apart_by_their_seed(release: Release) -> None:
    claimed = table.parse(release.files[table.TENSORS])
    assert count(claimed) == SHARDS * 4
    drawn = [draw(claimed, 3, bytes([seed])) for seed in range(200)]
    assert all(len(set(one)) == 3 for one in drawn)
    hits = {one: sum(one in some for some in drawn) for some in drawn for one in some}
    assert len(hits) == SHARDS * 4
    assert max(hits.values()) < 3 * min(hits.values())


def test_leaves_that_do_not_lead_to_the_signed_identity(release: Release) -> None:
    release.hub.faults.add("corrupt", path=table.LEAVES, at=40)
    report = release.check(slices=100)
    assert (report.verdict, codes(report)) == ("refuted", {"tensor-table"})
    short = release.files[table.LEAVES][:-32]
    revision = release.hub.put("acme/m", {**release.files, table.LEAVES: short})
    assert release.check(revision, slices=100).verdict == "refuted"


def test_who_is_believed(release: Release, tmp_path: Path) -> None:
    stranger = PrivateKey.generate()
    report = release.check(trust=TrustedKeys((stranger.public,)))
    assert (report.verdict, codes(report)) == ("refuted", {"signature"})
    unsigned = release.hub.put("acme/m", {"model.sig": None})
    assert release.check(unsigned).verdict == "unsigned"


def test_a_lock_is_asked(release: Release) -> None:
    first = release.check(remembered=Remembered("acme/m"))
    assert first.lock is not None
    assert (first.lock.state, first.verdict) == ("first use", "verified")
    known = Remembered("acme/m", first.lock.entry)
    same = release.check(remembered=known)
    assert same.verdict == "verified"
    gone = release.check(release.hub.put("acme/m", {"model.sig": None}), remembered=known)
    assert gone.verdict == "denied"
    assert first.lock.entry is not None
    other = Remembered("acme/m", msgspec.structs.replace(first.lock.entry, signers=("key 0",)))
    assert release.check(remembered=other).verdict == "denied"


def test_weights_in_one_small_file(release: Release, tmp_path: Path) -> None:
    header = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors(header, bytes(16)))
    parentage.sign_release(tmp_path, KeySigner(release.key), release.trust, observed=True)
    release.hub.put_folder("acme/one", tmp_path)
    place = HubPlace("acme/one")
    report = verify_remote(place, trust=release.trust, slices=Slices(9))
    assert report.verdict == "verified", report.findings
    assert report.remote is not None
    assert report.remote.slices == 1


def test_a_gguf_with_a_long_head(release: Release, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list([f"token {number}" for number in range(30_000)])
    writer.add_tensor("w", np.ones((1024, 1024), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parentage.sign_release(tmp_path, KeySigner(release.key), release.trust, observed=True)
    release.hub.put_folder("acme/gguf", tmp_path)
    release.hub.log.clear()
    report = verify_remote(HubPlace("acme/gguf"), trust=release.trust, slices=Slices(2))
    assert report.verdict == "verified", report.findings
    size = (tmp_path / "m.gguf").stat().st_size
    head, read = size - (4 << 20), release.hub.log.sent("lfs-get")
    assert head < read < 2 * head + (2 << 20) + 100_000  # two slices, and what a head may grow by
    assert len(release.hub.log.of("lfs-get")) < 12


def test_an_onnx_file_has_no_head(release: Release, tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[weights])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    parentage.sign_release(tmp_path, KeySigner(release.key), release.trust, observed=True)
    release.hub.put_folder("acme/onnx", tmp_path)
    with pytest.raises(CannotRunError, match="verify without --level remote"):
        verify_remote(HubPlace("acme/onnx"), trust=release.trust)


@pytest.mark.parametrize("seed", ["xy", "abc", "00" * 65, "0x00"])
def test_seeds_that_are_none(seed: str) -> None:
    with pytest.raises(UsageError, match="not a seed"):
        Slices(3, seed)
    with pytest.raises(UsageError, match="no slices to draw"):
        Slices(0, "00")


def test_more_than_a_check_should_read(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parentage.verify.sources.remote_files._MAX_ALL", 100)
    with pytest.raises(CannotRunError, match="too much would have to be read"):
        release.check()
    monkeypatch.setattr("parentage.verify.sources.remote_files._MAX_ALL", 10**9)
    monkeypatch.setattr("parentage.verify.sources.remote_files._MAX_REGULAR", 3)
    with pytest.raises(HubError, match="file too large"):
        release.check()


CHANGES: dict[str, bytes | None] = {
    "config.json": b"{}",
    "tokenizer/vocab.txt": None,
    "extra.safetensors": b"weights",
    "model-00001-of-00003.safetensors": b"swapped",
    "model-00002-of-00003.safetensors": None,
    "model.safetensors.index.json": b"{}",
    "model.sig": None,
    ".parentage/claims.jsonl": b"",
    table.TENSORS: b"{}",
    table.LEAVES: b"",
}
FAULTS = st.sampled_from(
    ["status", "garbage", "redirect", "ignore-range", "wrong-range", "fewer", "truncate", "corrupt", "replace"]
)  # fmt: skip


@given(
    changed=st.dictionaries(st.sampled_from(sorted(CHANGES)), st.none(), min_size=1, max_size=3),
    faults=st.lists(
        st.tuples(
            FAULTS,
            st.sampled_from(["", "info", "tree", "resolve", "lfs-get"]),
            st.integers(1, 4),
            st.binary(max_size=40),
        ),
        max_size=3,
    ),
    slices=st.integers(0, 3),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_server_answers_what_was_changed_is_never_verified(
    made: Release, changed: dict[str, None], faults: list[tuple[str, str, int, bytes]], slices: int
) -> None:
    made.hub.faults.clear()
    revision = made.hub.put("acme/m", {**made.files, **{name: CHANGES[name] for name in changed}})
    for kind, route, times, data in faults:
        values: dict[str, Any] = {"data": data} if kind in {"garbage", "replace"} else {}
        if kind == "redirect":
            values = {"to": made.hub.url + "/api/models/acme/m"}
        made.hub.faults.add(kind, route=route, times=times, **values)
    try:
        report = made.check(revision, slices=Slices(slices))
    except CannotRunError:
        return  # no verdict at all: a Hub that can't be read
    else:
        assert report.verdict != "verified"
        assert report.exit_code != 0
    finally:
        made.hub.faults.clear()
