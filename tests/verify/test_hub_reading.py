"""A repository of a Hub read at one commit: what a Hub or mirror can do wrong, and what we call it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hub_repo import BIG, FILES, QUICK, REPO, at_hub, serving
from hub_rig import STRANGER_TOKEN, LocalHub
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest.errors import (
    HubAnswerError,
    HubContentError,
    HubGatedError,
    HubNotFoundError,
    HubOfflineError,
    HubTokenError,
    HubUnreachableError,
    MissingExtraError,
    UsageError,
)
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


@pytest.fixture
def there(hub: LocalHub) -> LocalHub:
    hub.put(REPO, FILES)
    return hub


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
