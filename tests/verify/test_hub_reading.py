"""A repository of a Hub read at one commit: what a Hub or mirror can do wrong, and what we call it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hub_rig import STRANGER_TOKEN, LocalHub
from hubs import running
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import (
    HubAnswerError,
    HubContentError,
    HubError,
    HubGatedError,
    HubNotFoundError,
    HubOfflineError,
    HubTokenError,
    HubUnreachableError,
    MissingExtraError,
    UsageError,
    WriteFailedError,
)
from parentage.verify.sources.fetching import PART, fetch, settle
from parentage.verify.sources.hub import (
    Repo,
    listing,
    patience,
    read_range,
    read_whole,
    resolve,
)
from parentage.verify.sources.listed import Listed, check_folders, collected, entries
from parentage.verify.sources.place import parse_place
from parentage.verify.sources.web import PassingError, Patience, Traffic, Web, redirected

QUICK = Patience(attempts=3, pause=0.01, stall=0.4, answer=0.6, longest=0.05)
QUICKEST = Patience(attempts=3, pause=0.0, stall=0.4, answer=0.6, longest=0.0)
REPO = "acme/m"
BIG = bytes(range(256)) * 20_000  # 5 MB: several buffers of a fetch
FILES = {
    "model.safetensors": BIG,
    "config.json": b'{"a": 1}',
    "sub/notes.txt": b"n" * 1000,
    "empty.txt": b"",
}


@pytest.fixture
def there(hub: LocalHub) -> LocalHub:
    hub.put(REPO, FILES)
    return hub


def at_hub(revision: str = "") -> Repo:
    return resolve(
        parse_place(f"hf://{REPO}" + (f"@{revision}" if revision else "")), waiting=QUICK
    )


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324  (git's)


def test_a_repository_is_what_the_client_says_it_is(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)
    theirs = {
        entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in HfApi(endpoint=there.url).list_repo_tree(REPO, recursive=True)
        if hasattr(entry, "blob_id")
    }
    assert {n: (f.size, f.sha256, f.blob_oid) for n, f in found.items()} == theirs
    assert repo.commit == there.head(REPO)
    assert found["model.safetensors"].sha256 == hashlib.sha256(BIG).hexdigest()
    assert found["config.json"].blob_oid == git_oid(FILES["config.json"])
    assert str(repo) == f"hf://{REPO}@{there.head(REPO)}"
    assert read_range(repo, found["model.safetensors"], 5, 1005) == BIG[5:1005]
    assert read_range(repo, found["config.json"], 3, 3) == b""
    assert read_whole(repo, found["sub/notes.txt"]) == FILES["sub/notes.txt"]
    assert read_whole(repo, found["empty.txt"]) == b""
    with pytest.raises(UsageError):
        read_range(repo, found["config.json"], 0, 9)


def test_a_moving_revision_is_resolved_once(there: LocalHub) -> None:
    first = there.head(REPO)
    repo = at_hub("main")
    there.put(REPO, {"config.json": b"{}", "model.safetensors": b"swapped"})
    found = listing(repo)
    assert repo.commit == first != there.head(REPO)
    assert (repo.asked.revision, repo.place.revision) == ("main", first)
    assert read_whole(repo, found["config.json"]) == FILES["config.json"]
    assert read_range(repo, found["model.safetensors"], 0, 9) == BIG[:9]


def test_a_revision_is_never_taken_from_the_cache(there: LocalHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=there.url)
    cached = api.resolve_revision(REPO, revision="main", cache_dir=tmp_path)
    there.faults.add("status", code=503)
    assert api.resolve_revision(REPO, revision="main", cache_dir=tmp_path) == cached
    with pytest.raises(HubUnreachableError, match="busy or broken"):
        at_hub("main")


def test_a_renamed_repository_is_named(there: LocalHub) -> None:
    HfApi(endpoint=there.url).move_repo(REPO, "acme/renamed")
    repo = at_hub()
    assert (repo.place.repo, repo.moved_from) == ("acme/renamed", REPO)
    assert read_whole(repo, listing(repo)["config.json"]) == FILES["config.json"]


def test_requests_and_bytes_are_counted(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    for start in (0, 4096, 9999):
        read_range(repo, found, start, start + 100)
    # Its store is asked directly once the Hub said where it is.
    assert there.log.counts() == {"info": 1, "tree": 1, "resolve": 1, "lfs-get": 3}
    assert repo.web.traffic.requests == len(there.log.requests)
    assert repo.web.traffic.bytes == there.log.sent()


# Names and refusals


def test_refusals_have_names(there: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubNotFoundError, match="no such repository"):
        resolve(parse_place("hf://acme/none"), waiting=QUICK)
    with pytest.raises(HubNotFoundError, match="no such revision"):
        at_hub("nope")
    with pytest.raises(HubNotFoundError, match="no such file"):
        read_whole(at_hub(), Listed("none.txt", 3, None, "0" * 40))
    there.hub.repo(REPO).private = True
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    with pytest.raises(HubNotFoundError, match="or a private one"):
        at_hub()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubNotFoundError, match="hf auth login"):
        at_hub()
    there.hub.repo(REPO).private, there.hub.repo(REPO).gated = False, "manual"
    with pytest.raises(HubGatedError, match="ask for access on the page of acme/m"):
        read_whole(at_hub(), Listed("config.json", 8, None, "0" * 40))
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    with pytest.raises(HubTokenError, match="expired, revoked") as refused:
        at_hub()
    assert "secret" not in str(refused.value)


def test_a_token_is_never_repeated(there: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("hf_abcdefgh1234", "oauth-looking-other-token"):
        monkeypatch.setenv("HF_TOKEN", token)
        there.faults.clear()
        there.faults.add("status", code=403, message=f"your Bearer {token} is bad")
        with pytest.raises(HubTokenError) as refused:
            at_hub()
        assert token not in repr(refused.value.as_dict())


def test_offline_is_said(there: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubOfflineError, match="unset HF_HUB_OFFLINE"):
        at_hub()
    assert there.log.requests == []


@pytest.mark.parametrize("address", ["ftp://x", "nonsense", "https://u:p@x", "https://x?y=1"])
def test_an_endpoint_is_an_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(UsageError, match="HF_ENDPOINT") as refused:
        at_hub()
    assert "u:p" not in str(refused.value)


def test_a_stall_may_last_as_long_as_the_client_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "7")
    assert patience().stall == 7
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "-1")
    assert patience() == Patience()


# Answers that are none


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"sha": "main", "id": "acme/m"}', b'{"sha": NaN}', b"[" * 100_000],
)
def test_nonsense_instead_of_a_commit(there: LocalHub, document: bytes) -> None:
    there.faults.add("garbage", data=document)
    with pytest.raises(HubAnswerError):
        at_hub()


def test_another_commit_than_asked_for(there: LocalHub) -> None:
    other = {"sha": "1" * 40, "id": REPO}
    there.faults.add("garbage", data=json.dumps(other).encode())
    with pytest.raises(HubAnswerError, match="another commit"):
        at_hub(there.head(REPO))


@pytest.mark.parametrize(
    "name", ["../up", "/root", "a//b", "a/./b", "a\\b", "a\x1b[2Jb", "a\nb", "", "x" * 256]
)
def test_names_that_lead_elsewhere(there: LocalHub, name: str) -> None:
    entry = {"type": "file", "path": name, "oid": "0" * 40, "size": 1}
    repo = at_hub()
    there.faults.add("garbage", route="tree", data=json.dumps([entry]).encode())
    with pytest.raises(HubAnswerError, match="file name that is not one"):
        listing(repo)


def test_a_list_with_a_file_that_is_a_folder(there: LocalHub) -> None:
    repo = at_hub()
    both = [{"type": "file", "path": p, "oid": "0" * 40, "size": 1} for p in ("a/b", "a")]
    there.faults.add("garbage", route="tree", data=json.dumps(both).encode())
    with pytest.raises(HubAnswerError, match="a folder, too"):
        listing(repo)


def test_lists_that_contradict_themselves() -> None:
    file = {"type": "file", "path": "a", "oid": "0" * 40, "size": 1}
    with pytest.raises(HubAnswerError, match="twice"):
        collected({}, entries([file, file], "x"), "x")
    with pytest.raises(HubAnswerError, match="a folder, too"):
        check_folders(["a/b/c", "a"], "x")
    with pytest.raises(HubAnswerError, match="two sizes"):
        entries([{**file, "lfs": {"oid": "0" * 64, "size": 2}}], "x")
    for wrong in ({"size": -1}, {"oid": "0"}, {"lfs": {"oid": "Z" * 64, "size": 1}}, {"size": "1"}):
        with pytest.raises(HubAnswerError, match="list of files is not one"):
            entries([{**file, **wrong}], "x")


def test_a_list_without_an_end_is_bounded(there: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parentage.verify.sources.listed.MAX_FILES", 2500)
    repo = at_hub()
    there.faults.add("endless", route="tree")
    with pytest.raises(HubAnswerError, match="too many files"):
        listing(repo)


def test_a_list_that_goes_on_elsewhere(there: LocalHub) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.send_header(
                "Link", '<http://127.0.0.1:1/api/models/acme/m/tree/x?a=1>; rel="next"'
            )
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: Any) -> None:
            pass

    repo = at_hub()
    with serving(Elsewhere) as url, pytest.raises(HubAnswerError, match="goes on elsewhere"):
        listing(Repo(**{**{f: getattr(repo, f) for f in repo.__struct_fields__}, "endpoint": url}))


class serving:  # noqa: N801  (used like a function)
    """One more server on loopback."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


# Ranges


@pytest.mark.parametrize("kind", ["ignore-range", "wrong-range", "fewer"])
@pytest.mark.parametrize("name", ["model.safetensors", "sub/notes.txt"])
def test_a_range_is_exactly_what_was_asked_for(there: LocalHub, kind: str, name: str) -> None:
    repo = at_hub()
    found = listing(repo)[name]
    fault = there.faults.add(kind)
    with pytest.raises(HubAnswerError, match=r"ignores Range|another range"):
        read_range(repo, found, 100, 200)
    assert fault.hits == 1  # no attempt is wasted on a server that can't


def test_a_file_of_another_size(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)["config.json"]
    there.faults.add("replace", route="resolve", data=b"longer than it was")
    with pytest.raises(HubAnswerError, match="something else than the file"):
        read_whole(repo, found)
    with pytest.raises(HubAnswerError, match="another range"):
        read_range(repo, found, 0, 4)


def test_an_answer_cut_short_is_asked_for_again(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    there.faults.add("truncate", route="lfs-get", keep=10, times=2)
    assert read_range(repo, found, 7, 5007) == BIG[7:5007]
    there.faults.clear()
    there.faults.add("truncate", route="lfs-get", keep=10)
    with pytest.raises(HubUnreachableError):
        read_range(repo, found, 7, 5007)


def test_a_storm_passes_or_is_named(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    storm = there.faults.add("status", code=503, times=2)
    assert read_range(repo, found, 0, 10) == BIG[:10]
    assert storm.hits == 2
    for code in (429, 500, 502, 504):
        there.faults.clear()
        endless = there.faults.add("status", code=code, headers={"Retry-After": "3600"})
        before = time.monotonic()
        with pytest.raises(HubUnreachableError, match=f"HTTP {code}"):
            read_range(repo, found, 0, 10)
        assert endless.hits == QUICK.attempts
        assert time.monotonic() - before < 2  # an hour is not waited for


def test_a_stall_has_an_end(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    there.faults.add("stall", route="resolve", times=1, seconds=3)
    assert read_range(repo, found, 0, 10) == BIG[:10]
    there.faults.add("stop", route="lfs-get", keep=3, seconds=3)
    before = time.monotonic()
    with pytest.raises(HubUnreachableError, match="does not answer"):
        read_range(repo, found, 0, 10)
    assert time.monotonic() - before < 3


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachableError, match="check the network and HF_ENDPOINT"):
        at_hub()


def test_a_service_that_drips_has_an_end() -> None:
    class Drips(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b"x")
                time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    web = plain_web()
    with serving(Drips) as url:
        before = time.monotonic()
        with pytest.raises(HubUnreachableError):
            web.patiently(lambda: web.read(url, lambda _: 10**7))
        with pytest.raises(PassingError, match=r"\d+ bytes in"), web.stream(url) as (_, pieces):
            for _ in pieces:
                pass
        assert time.monotonic() - before < 4


def plain_web() -> Web:
    import httpx2

    quick = Patience(attempts=1, stall=0.3, answer=0.5)
    return Web(httpx2.Client, {"authorization": "Bearer t"}, (httpx2.HTTPError, OSError), quick)


# Redirects


def test_the_token_stays_where_it_belongs(there: LocalHub) -> None:
    seen: list[str | None] = []

    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("authorization"))
            self.send_response(206)
            self.send_header("Content-Length", "10")
            self.send_header("Content-Range", f"bytes 0-9/{len(BIG)}")
            self.end_headers()
            self.wfile.write(BIG[:10])

        def log_message(self, *_: Any) -> None:
            pass

    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    assert all(asked.authorized for asked in there.log.requests)
    with serving(Store) as url:
        there.faults.add("redirect", route="resolve", to=f"{url}/x")
        assert read_range(repo, found, 0, 10) == BIG[:10]
    assert seen == [None]


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://x/y", "gopher://x/y"])
def test_redirects_to_nowhere(there: LocalHub, to: str) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    there.faults.add("redirect", route="resolve", to=to)
    with pytest.raises(HubAnswerError, match="redirects to where nothing is read"):
        read_range(repo, found, 0, 10)


def test_redirects_in_circles_and_down(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    there.faults.add("redirect", to=f"{there.url}/{REPO}/resolve/main/model.safetensors")
    with pytest.raises(HubAnswerError, match="in circles"):
        read_range(repo, found, 0, 10)
    with pytest.raises(HubAnswerError, match="redirects to where"):
        redirected("https://hub/x", "http://hub/x")


@pytest.mark.parametrize(
    "to", ["http://[bad", "http://x:99999999/", "gopher:x", "http://\x00/", "//"]
)
def test_redirects_that_are_no_addresses(there: LocalHub, to: str) -> None:
    repo = at_hub()
    found = listing(repo)["model.safetensors"]
    there.faults.add("redirect", route="resolve", to=to)
    with pytest.raises((HubAnswerError, HubUnreachableError)):
        read_range(repo, found, 0, 10)


# Contents


def test_a_file_that_changed_after_it_was_listed(there: LocalHub) -> None:
    repo = at_hub()
    found = listing(repo)
    changed = Listed("model.safetensors", len(BIG), "1" * 64, "0" * 40)
    with pytest.raises(HubContentError, match="changed between listing and reading"):
        read_range(repo, changed, 0, 10)
    there.faults.add("replace", route="resolve", data=b'{"a": 2}')
    with pytest.raises(HubContentError, match="other bytes than it lists"):
        read_whole(repo, found["config.json"])


def test_a_commit_that_is_gone(there: LocalHub) -> None:
    repo = at_hub()
    listing(repo)
    there.put(REPO, {"config.json": b"{}"})
    del there.hub.repo(REPO).commits[repo.commit]  # as after a squash, once it was collected
    with pytest.raises(HubNotFoundError):
        listing(at_hub(repo.commit))


# Fetching


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


def test_what_was_asked_for_plain_comes_plain() -> None:
    class Gzips(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["accept-encoding"] == "identity"
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Gzips) as url, pytest.raises(HubAnswerError, match="compressed"):
        plain_web().read(url, lambda _: 100)


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


_VALUES = st.none() | st.integers() | st.text(max_size=5)
_ENTRY = st.dictionaries(
    st.sampled_from(["type", "path", "oid", "size", "lfs"]),
    _VALUES | st.sampled_from(["file", "a/b", "0" * 40, {"oid": "0" * 64, "size": 3}]),
)


@given(_VALUES | st.lists(_ENTRY | _VALUES, max_size=3))
@settings(max_examples=60)
def test_any_page_is_read_or_refused(document: object) -> None:
    try:
        found = entries(document, "x")
    except HubAnswerError:
        return
    assert isinstance(document, list)
    assert len(found) <= len(document)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'parentage\[hub\]'"):
        at_hub()


def test_the_client_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys, parentage.cli.verify, parentage.verify.remote, parentage.verify.sources.spool;"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


def test_counts_are_exact_from_many_threads() -> None:
    traffic = Traffic()

    def count() -> None:
        for _ in range(1000):
            traffic.asked()
            traffic.came(2)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (traffic.requests, traffic.bytes) == (8000, 16000)
