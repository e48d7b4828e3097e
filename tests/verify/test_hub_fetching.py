"""Files of a repository brought to disk: breaks, lies and full disks on the way."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hub_repo import BIG, FILES, QUICKEST, REPO, at_hub, serving
from hub_rig import LocalHub
from hubs import running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import (
    HubAnswerError,
    HubContentError,
    HubError,
    HubUnreachableError,
    UsageError,
    WriteFailedError,
)
from parentage.verify.sources.fetching import PART, fetch, settle
from parentage.verify.sources.hub import (
    Repo,
    listing,
    read_whole,
    resolve,
)
from parentage.verify.sources.listed import Listed
from parentage.verify.sources.place import parse_place


@pytest.fixture
def there(hub: LocalHub) -> LocalHub:
    hub.put(REPO, FILES)
    return hub


def fetched(repo: Repo, into: Path, **options: Any) -> dict[str, bytes]:
    found = fetch(repo, listing(repo).values(), into, **options)
    return {name: one.path.read_bytes() for name, one in found.items()}


def test_files_are_fetched_hashed_and_watched(there: LocalHub, tmp_path: Path) -> None:
    seen: dict[str, bytearray] = {}
    done: list[int] = []

    def watch(listed: Listed) -> Any:
        seen[listed.path] = bytearray()
        return seen[listed.path].extend

    repo = at_hub()
    found = fetch(repo, listing(repo).values(), tmp_path, watch=watch, progress=done.append)
    assert {name: one.sha256 for name, one in found.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()
    }
    assert seen == FILES
    assert sum(done) == sum(map(len, FILES.values()))
    assert not (tmp_path / "model.safetensors").exists()
    settle(found, tmp_path)
    assert {n: (tmp_path / n).read_bytes() for n in FILES} == FILES
    assert not list(tmp_path.rglob(f"*{PART}"))


@pytest.mark.parametrize("kept", [1, 3_000_000, len(BIG), len(BIG) + 5])
def test_a_fetch_goes_on_where_it_ended(there: LocalHub, tmp_path: Path, kept: int) -> None:
    seen = bytearray()
    repo = at_hub()
    (tmp_path / "model.safetensors.parentage.part").write_bytes((BIG + b"extra")[:kept])
    listed = listing(repo)["model.safetensors"]
    before = there.log.sent("lfs-get")
    found = fetch(repo, [listed], tmp_path, watch=lambda _: seen.extend)
    assert found[listed.path].path.read_bytes() == BIG == bytes(seen)
    assert there.log.sent("lfs-get") - before == len(BIG) - (kept if kept <= len(BIG) else 0)


def test_what_was_kept_and_is_wrong_is_read_anew(there: LocalHub, tmp_path: Path) -> None:
    seen: list[bytearray] = []
    done: list[int] = []

    def watch(_: Listed) -> Any:
        seen.append(bytearray())
        return seen[-1].extend

    repo = at_hub()
    (tmp_path / "model.safetensors.parentage.part").write_bytes(b"z" * 2_500_000)
    listed = listing(repo)["model.safetensors"]
    found = fetch(repo, [listed], tmp_path, watch=watch, progress=done.append)
    assert found[listed.path].path.read_bytes() == BIG == bytes(seen[1])
    assert sum(done) == len(BIG)


def test_a_break_in_the_middle_is_mended(there: LocalHub, tmp_path: Path) -> None:
    there.faults.add("truncate", route="lfs-get", keep=1_000_000, times=4)  # more than attempts
    there.faults.add("status", route="lfs-get", code=503, times=2)
    assert fetched(at_hub(), tmp_path) == FILES
    assert there.log.sent("lfs-get") < len(BIG) + 1_000


def test_bytes_of_the_same_length_are_refused(there: LocalHub, tmp_path: Path) -> None:
    for fault in ({"path": "*.safetensors"}, {"path": "config.json", "route": "resolve"}):
        there.faults.clear()
        there.faults.add("corrupt", **fault)
        with pytest.raises(HubContentError, match="other bytes than it lists"):
            fetched(at_hub(), tmp_path / fault["path"][0])
        name = fault["path"].replace("*", "model")
        assert not (tmp_path / fault["path"][0] / (name + PART)).exists()
    there.faults.clear()
    assert fetched(at_hub(), tmp_path / "c") == FILES


def test_more_bytes_than_listed_are_refused(there: LocalHub, tmp_path: Path) -> None:
    class Chunked(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for _ in range(4):
                self.wfile.write(b"10\r\n" + b"x" * 16 + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    repo = at_hub()
    listed = listing(repo)["model.safetensors"]
    small = Listed("model.safetensors", 40, listed.sha256, listed.blob_oid)
    with serving(Chunked) as url:
        repo.targets[small.path] = url
        with pytest.raises(HubContentError, match="more bytes than it lists"):
            fetch(repo, [small], tmp_path)
        with pytest.raises(HubAnswerError, match="answers too much"):
            read_whole(repo, small)


def test_a_stall_and_a_storm_end_a_fetch_and_nothing_is_lost(
    there: LocalHub, tmp_path: Path
) -> None:
    there.faults.add("stop", route="lfs-get", keep=3_000_000, seconds=5)
    there.faults.after("lfs-get", lambda: there.faults.add("status", route="lfs-get", code=500))
    with pytest.raises(HubUnreachableError, match="HTTP 500"):
        fetched(at_hub(), tmp_path)
    kept = (tmp_path / "model.safetensors.parentage.part").stat().st_size
    assert kept >= 3_000_000
    there.faults.clear()
    there.log.clear()
    assert fetched(at_hub(), tmp_path) == FILES
    assert there.log.sent("lfs-get") == len(BIG) - kept


def test_what_a_watcher_raises_stops_everything(there: LocalHub, tmp_path: Path) -> None:
    def watch(_: Listed) -> Any:
        raise HubError("not the signed one")

    with pytest.raises(HubError, match="not the signed one"):
        fetched(at_hub(), tmp_path, watch=watch)


def test_a_swap_between_listing_and_reading(there: LocalHub, tmp_path: Path) -> None:
    repo = at_hub()
    found = listing(repo)
    there.faults.add("replace", path="model.safetensors", data=bytes(len(BIG)))
    with pytest.raises(HubContentError):
        fetch(repo, found.values(), tmp_path)


def test_a_disk_that_refuses_is_named(there: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "sub").write_bytes(b"in the way")
    with pytest.raises(WriteFailedError):
        fetched(at_hub(), tmp_path)
    outside, into = tmp_path / "outside", tmp_path / "into"
    outside.write_bytes(b"mine")
    into.mkdir()
    (into / "config.json.parentage.part").symlink_to(outside)
    with pytest.raises(WriteFailedError):
        fetched(at_hub(), into)
    assert outside.read_bytes() == b"mine"


def test_parts_do_not_collide(tmp_path: Path, there: LocalHub) -> None:
    there.put(REPO, {"config.json.parentage.part": b"x"})
    with pytest.raises(UsageError, match=r"config\.json\.parentage\.part"):
        fetched(at_hub(), tmp_path)


_FAULTS = st.tuples(
    st.sampled_from(
        [
            "status",
            "redirect",
            "ignore-range",
            "wrong-range",
            "fewer",
            "truncate",
            "corrupt",
            "replace",
        ]
    ),
    st.sampled_from(["*", "*.safetensors", "config.json", "sub/*"]),
    st.integers(1, 3),
    st.integers(0, 200_000),
)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with running(tmp_path_factory.mktemp("hub")) as hub:
        hub.put(REPO, {**FILES, "model.safetensors": BIG[:200_000]})
        yield hub


@given(st.lists(_FAULTS, max_size=4), st.integers(0, 250_000), st.booleans())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_server_answers_what_is_fetched_is_what_is_listed(
    steady: LocalHub, faults: list[tuple[str, str, int, int]], kept: int, spoilt: bool
) -> None:
    steady.faults.clear()
    repo = resolve(parse_place(f"hf://{REPO}"), waiting=QUICKEST)
    found = listing(repo)
    for kind, path, times, at in faults:
        to = {"to": steady.url} if kind == "redirect" else {}
        data = {"data": BIG[:at]} if kind == "replace" else {}
        steady.faults.add(kind, path=path, times=times, keep=at, at=at % 1000, **to, **data)
    with tempfile.TemporaryDirectory() as into:
        here = BIG[:kept] if not spoilt else bytes(kept)
        (Path(into) / "model.safetensors.parentage.part").write_bytes(here)
        try:
            got = fetch(repo, found.values(), Path(into))
        except HubError:
            return
        for name, one in got.items():
            data_ = FILES[name] if name != "model.safetensors" else BIG[:200_000]
            assert one.path.read_bytes() == data_
            assert one.sha256 == hashlib.sha256(data_).hexdigest()
