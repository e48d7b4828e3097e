"""The local Hub is driven by the Hub's own client, and each of its faults does what it says."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hub_rig import READ_TOKEN, STRANGER_TOKEN, LocalHub
from hubs import outside
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub import errors as hf_errors

WEIGHTS = bytes(range(256)) * 40
OTHER = bytes(reversed(range(256))) * 40
REPO = "acme/model"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url)


def test_a_release_is_made_changed_and_read_by_the_real_client(
    api: HfApi, hub: LocalHub, tmp_path: Path
) -> None:
    api.create_repo(REPO)
    with pytest.raises(hf_errors.HfHubHTTPError, match="409"):
        api.create_repo(REPO)
    api.create_repo(REPO, exist_ok=True)
    api.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="model.safetensors", repo_id=REPO)
    folder = tmp_path / "more"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [a]\nday: 2026-06-14\n---\nHello")
    api.upload_folder(folder_path=folder, repo_id=REPO)
    head = hub.head(REPO)

    told = api.model_info(REPO, files_metadata=True)
    assert (told.sha, told.card_data.license) == (head, "mit")
    assert told.card_data.day == "2026-06-14T00:00:00.000Z"
    assert api.model_info(REPO, revision=head[:10]).sha == head
    entries = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True)}
    assert set(entries) == {"model.safetensors", "README.md", "sub", "sub/config.json"}
    assert entries["model.safetensors"].lfs.sha256 == sha256(WEIGHTS)
    (only,) = api.get_paths_info(REPO, ["README.md", "absent"])
    blob = subprocess.run(
        ["git", "hash-object", folder / "README.md"], capture_output=True, text=True, check=True
    )
    assert only.blob_id == blob.stdout.strip()
    listed = api.list_repo_commits(REPO)
    assert (len(listed), listed[0].commit_id) == (3, head)

    path = api.hf_hub_download(REPO, "model.safetensors", revision=head)
    assert Path(path).read_bytes() == WEIGHTS
    assert Path(path).resolve().name == sha256(WEIGHTS)
    snapshot = Path(api.snapshot_download(REPO))
    assert (snapshot / "sub" / "config.json").read_text() == "{}"
    files = HfFileSystem(endpoint=hub.url)
    with files.open(f"{REPO}/model.safetensors", block_size=64) as file:
        file.seek(1000)
        assert file.read(16) == WEIGHTS[1000:1016]
    api.delete_file("README.md", REPO)
    assert not api.file_exists(REPO, "README.md")
    assert hub.log.counts()["unknown"] == 0


def test_branches_tags_and_history(api: HfApi, hub: LocalHub) -> None:
    first = hub.put(REPO, {"a.txt": b"1"})
    hub.put(REPO, {"a.txt": b"2"})
    api.create_branch(REPO, branch="side", revision=first)
    api.create_tag(REPO, tag="v1", revision="side")
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches}["side"] == first
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", first)]
    assert Path(api.hf_hub_download(REPO, "a.txt", revision="v1")).read_bytes() == b"1"
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="side")
    assert not api.revision_exists(REPO, "v1")
    api.super_squash_history(REPO)
    assert len(api.list_repo_commits(REPO)) == 1


def test_a_pull_request_carries_a_change_and_merging_it_keeps_what_main_gained(
    api: HfApi, hub: LocalHub
) -> None:
    head = hub.put(REPO, {"model.safetensors": WEIGHTS, "README.md": b"one", "old.txt": b"x"})
    made = api.create_commit(
        REPO,
        [
            CommitOperationAdd("model.safetensors", OTHER),
            CommitOperationAdd("new.txt", b"new"),
            CommitOperationDelete("old.txt"),
        ],
        commit_message="better",
        create_pr=True,
        parent_commit=head,
    )
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert hub.hub.content(REPO, "model.safetensors") == WEIGHTS
    hub.put(REPO, {"README.md": b"two"})
    details = api.get_discussion_details(REPO, 1)
    assert (details.is_pull_request, details.status) == (True, "open")
    api.create_commit(
        REPO,
        [CommitOperationAdd("later.txt", b"l")],
        commit_message="more",
        revision="refs/pr/1",
    )
    api.merge_pull_request(REPO, 1)
    merged = hub.hub.repo(REPO).find("main").files
    assert set(merged) == {"model.safetensors", "README.md", "new.txt", "later.txt"}
    assert hub.hub.content(REPO, "README.md") == b"two"
    assert hub.hub.content(REPO, "model.safetensors") == OTHER
    assert api.get_discussion_details(REPO, 1).merge_commit_oid == hub.head(REPO)
    with pytest.raises(hf_errors.HfHubHTTPError, match="409"):
        api.merge_pull_request(REPO, 1)


def test_a_conflict_is_not_merged(api: HfApi, hub: LocalHub) -> None:
    hub.put(REPO, {"a.txt": b"1"})
    change = [CommitOperationAdd("a.txt", b"2")]
    api.create_commit(REPO, change, commit_message="mine", create_pr=True)
    head = hub.put(REPO, {"a.txt": b"3"})
    with pytest.raises(hf_errors.HfHubHTTPError, match="409"):
        api.merge_pull_request(REPO, 1)
    assert hub.head(REPO) == head


def test_an_empty_pull_request_is_opened_then_filled(api: HfApi, hub: LocalHub) -> None:
    hub.put(REPO, {"a.txt": b"1"})
    opened = api.create_pull_request(REPO, "a change")
    assert opened.status == "draft"
    api.upload_file(
        path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=REPO, revision=opened.git_reference
    )
    api.change_discussion_status(REPO, opened.num, "open")
    api.comment_discussion(REPO, opened.num, "looks right")
    api.merge_pull_request(REPO, opened.num)
    assert hub.hub.content(REPO, "a.txt") == b"2"


def test_a_stale_parent_is_refused(api: HfApi, hub: LocalHub) -> None:
    old = hub.put(REPO, {"a.txt": b"1"})
    new = hub.put(REPO, {"a.txt": b"2"})
    with pytest.raises(hf_errors.HfHubHTTPError, match="412"):
        api.create_commit(
            REPO,
            [CommitOperationAdd("a.txt", b"3")],
            commit_message="late",
            parent_commit=old,
        )
    assert hub.head(REPO) == new


def test_xet_uploads_and_downloads_through_a_folder(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(os.urandom(300_000))
    script = (
        "import sys, huggingface_hub as h\n"
        "a = h.HfApi()\n"
        f"a.create_repo('{REPO}')\n"
        f"a.upload_file(path_or_fileobj=sys.argv[1], path_in_repo='model.safetensors', repo_id='{REPO}')\n"
        f"entry, = a.get_paths_info('{REPO}', ['model.safetensors'])\n"
        f"print(entry.xet_hash, entry.lfs.sha256, a.hf_hub_download('{REPO}', 'model.safetensors'))\n"
    )
    import hf_xet

    with LocalHub(tmp_path / "hub", xet=True) as hub:
        done = subprocess.run(
            [sys.executable, "-c", script, weights],
            env=outside(hub),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        xet_hash, sha, path = done.stdout.split()
        assert xet_hash == hf_xet.hash_files([str(weights)])[0].hash
        assert sha == sha256(weights.read_bytes())
        assert Path(path).read_bytes() == weights.read_bytes()
        assert hub.log.counts()["lfs-put"] == hub.log.counts()["lfs-get"] == 0
        assert hub.log.counts()["xet-token"] > 0
        assert hub.hub.objects.xorbs()
        # A client without Xet gets the same bytes over HTTP.
        assert get(hub, f"/{REPO}/resolve/main/model.safetensors").body == weights.read_bytes()


def test_who_may_see_what(hub: LocalHub) -> None:
    hub.put(REPO, {"a.txt": b"1"})
    repo = hub.hub.repo(REPO)
    anyone, ours, stranger, expired = (
        HfApi(endpoint=hub.url, token=token)
        for token in (False, READ_TOKEN, STRANGER_TOKEN, "hf_expired")
    )
    assert anyone.model_info(REPO).sha == hub.head(REPO)
    with pytest.raises(hf_errors.HfHubHTTPError, match="Invalid credentials"):
        expired.model_info(REPO)
    for refused, reason in ((anyone, "401"), (ours, "403")):
        with pytest.raises(hf_errors.HfHubHTTPError, match=reason):
            refused.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=REPO)
    repo.private = True
    assert ours.model_info(REPO).private
    for outsider in (anyone, stranger):
        with pytest.raises(hf_errors.RepositoryNotFoundError):
            outsider.model_info(REPO)
    repo.private, repo.gated = False, "manual"
    assert stranger.model_info(REPO).gated == "manual"
    for outsider in (anyone, stranger):
        with pytest.raises(hf_errors.GatedRepoError):
            outsider.hf_hub_download(REPO, "a.txt")
    repo.readers.add("stranger")
    assert Path(stranger.hf_hub_download(REPO, "a.txt")).read_bytes() == b"1"


def test_a_stranger_may_propose_and_not_merge(api: HfApi, hub: LocalHub) -> None:
    head = hub.put(REPO, {"a.txt": b"1"})
    stranger = HfApi(endpoint=hub.url, token=STRANGER_TOKEN)

    def commit(message: str, **options: bool) -> None:
        change = [CommitOperationAdd("a.txt", b"2")]
        stranger.create_commit(REPO, change, commit_message=message, **options)

    commit("proposed", create_pr=True)
    for act in (
        lambda: commit("pushed"),
        lambda: stranger.create_branch(REPO, branch="side"),
        lambda: stranger.update_repo_settings(REPO, private=True),
        lambda: stranger.merge_pull_request(REPO, 1),
    ):
        with pytest.raises(hf_errors.HfHubHTTPError, match="403"):
            act()
    assert hub.head(REPO) == head
    api.merge_pull_request(REPO, 1)
    assert hub.hub.content(REPO, "a.txt") == b"2"


def test_a_renamed_repository_is_found_until_its_name_is_taken(api: HfApi, hub: LocalHub) -> None:
    hub.put(REPO, {"a.txt": b"1"})
    api.move_repo(REPO, "acme/renamed")
    assert api.model_info(REPO).id == "acme/renamed"
    hub.put(REPO, {"a.txt": b"thief"})
    assert api.model_info(REPO).id == REPO


def test_long_listings_come_in_pages(api: HfApi, hub: LocalHub) -> None:
    hub.put(REPO, {f"{i:04}.txt": b"" for i in range(2500)})
    assert len(list(api.list_repo_tree(REPO))) == 2500
    assert hub.log.counts()["tree"] == 3


@dataclass
class Got:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def get(hub: LocalHub, path: str, *, follow: bool = True, **headers: str) -> Got:
    """Ask without huggingface_hub, so that what comes is seen as it is."""
    split = urlsplit(path if path.startswith("http") else hub.url + path)
    assert split.hostname is not None
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=5)
    try:
        connection.request("GET", f"{split.path}?{split.query}", headers=headers)
        answer = connection.getresponse()
        got = Got(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
    if follow and got.status == 302:
        return get(hub, got.headers["Location"], **headers)
    return got


FILE = f"/{REPO}/resolve/main/model.safetensors"


@pytest.fixture
def faulty(hub: LocalHub) -> LocalHub:
    hub.put(REPO, {"model.safetensors": WEIGHTS, "a.txt": b"0123456789"})
    return hub


@pytest.mark.parametrize("path", [FILE, f"/{REPO}/resolve/main/a.txt"])
@pytest.mark.parametrize("asked", ["2-5", "3-", "-4", "0-0", "5-99999"])
def test_ranges_are_served(faulty: LocalHub, path: str, asked: str) -> None:
    whole = get(faulty, path).body
    got = get(faulty, path, Range=f"bytes={asked}")
    first, last = asked.split("-")
    start = int(first) if first else len(whole) - int(last)
    stop = min(int(last) + 1, len(whole)) if first and last else len(whole)
    assert (got.status, got.body) == (206, whole[start:stop])
    assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"


def test_a_range_behind_the_end_is_416(faulty: LocalHub) -> None:
    got = get(faulty, FILE, Range=f"bytes={len(WEIGHTS)}-")
    assert (got.status, got.headers["Content-Range"]) == (416, f"bytes */{len(WEIGHTS)}")


def test_fault_ignores_range(faulty: LocalHub) -> None:
    faulty.faults.add("ignore-range", path="*.safetensors")
    got = get(faulty, FILE, Range="bytes=2-5")
    assert (got.status, got.body) == (200, WEIGHTS)
    assert get(faulty, f"/{REPO}/resolve/main/a.txt", Range="bytes=2-5").body == b"2345"


def test_fault_corrupts_one_byte(faulty: LocalHub) -> None:
    fault = faulty.faults.add("corrupt", path="*.safetensors", at=300)
    differs = [
        i for i, (a, b) in enumerate(zip(WEIGHTS, get(faulty, FILE).body, strict=True)) if a != b
    ]
    assert differs == [300]
    assert get(faulty, FILE, Range="bytes=0-299").body == WEIGHTS[:300]
    assert get(faulty, FILE, Range="bytes=299-301").body != WEIGHTS[299:302]
    assert fault.hits == 3


def test_fault_names_another_range(faulty: LocalHub) -> None:
    faulty.faults.add("wrong-range")
    got = get(faulty, FILE, Range="bytes=2-5")
    assert (got.status, got.body) == (206, WEIGHTS[2:6])
    assert got.headers["Content-Range"] == f"bytes 3-6/{len(WEIGHTS) + 1}"


def test_fault_sends_fewer_bytes_than_asked_for(faulty: LocalHub) -> None:
    faulty.faults.add("fewer")
    got = get(faulty, FILE, Range="bytes=10-19")
    assert (got.body, got.headers["Content-Range"]) == (
        WEIGHTS[10:15],
        f"bytes 10-14/{len(WEIGHTS)}",
    )


def test_fault_truncates(faulty: LocalHub) -> None:
    faulty.faults.add("truncate", keep=100, times=1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(faulty, FILE)
    assert caught.value.partial == WEIGHTS[:100]
    assert get(faulty, FILE).body == WEIGHTS


def test_fault_stops_in_the_middle(faulty: LocalHub) -> None:
    faulty.faults.add("stop", keep=100)
    split = urlsplit(faulty.url)
    assert split.hostname is not None
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=0.3)
    sha = sha256(WEIGHTS)
    connection.request("GET", f"/_lfs/{sha}")
    answer = connection.getresponse()
    assert answer.read(100) == WEIGHTS[:100]
    with pytest.raises(TimeoutError):
        answer.read(1)
    answer.close()
    connection.close()


def test_fault_stalls(faulty: LocalHub) -> None:
    faulty.faults.add("stall", route="info")
    split = urlsplit(faulty.url)
    assert split.hostname is not None
    connection = http.client.HTTPConnection(split.hostname, split.port, timeout=0.3)
    connection.request("GET", f"/api/models/{REPO}")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


def test_fault_replaces_a_content(faulty: LocalHub) -> None:
    faulty.faults.add("replace", path="a.txt", data=b"abc")
    assert get(faulty, f"/{REPO}/resolve/main/a.txt", Range="bytes=1-").body == b"bc"
    assert get(faulty, FILE).body == WEIGHTS


def test_fault_answers_a_status_so_many_times(faulty: LocalHub) -> None:
    faulty.faults.add("status", route="info", code=503, times=2, headers={"Retry-After": "7"})
    answers = [get(faulty, f"/api/models/{REPO}") for _ in range(3)]
    assert [got.status for got in answers] == [503, 503, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert get(faulty, f"/api/models/{REPO}/tree/main").status == 200


def test_fault_answers_garbage(faulty: LocalHub) -> None:
    faulty.faults.add("garbage", route="tree")
    got = get(faulty, f"/api/models/{REPO}/tree/main")
    assert got.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(got.body)


def test_fault_leads_to_a_foreign_host(faulty: LocalHub) -> None:
    faulty.faults.add("redirect", route="resolve")
    assert get(faulty, FILE).body == b"elsewhere"
    # The client leaves its token at home, as the log shows.
    api = HfApi(endpoint=faulty.url)
    faulty.log.clear()
    with pytest.raises(hf_errors.LocalEntryNotFoundError, match="X-Repo-Commit"):
        api.hf_hub_download(REPO, "model.safetensors")
    assert [asked.authorized for asked in faulty.log.of("resolve")] == [True]
    assert not any(asked.authorized for asked in faulty.log.of("elsewhere"))


def test_fault_lists_without_an_end(faulty: LocalHub) -> None:
    faulty.faults.add("endless", route="tree")
    listed = HfApi(endpoint=faulty.url).list_repo_tree(REPO)
    names = {entry.path for entry in itertools.islice(listed, 3500)}
    assert len(names) == 3500


def test_a_state_changes_between_listing_and_download(faulty: LocalHub) -> None:
    first = faulty.head(REPO)
    faulty.faults.after("tree", lambda: faulty.put(REPO, {"model.safetensors": OTHER}))
    _, entry = HfApi(endpoint=faulty.url).list_repo_tree(REPO)
    assert entry.lfs.sha256 == sha256(WEIGHTS)
    assert get(faulty, FILE).body == OTHER
    assert get(faulty, FILE.replace("main", first)).body == WEIGHTS


def test_a_branch_is_force_pushed_in_between(faulty: LocalHub) -> None:
    first = faulty.head(REPO)
    faulty.faults.after("info", lambda: faulty.hub.force_push(REPO, {"model.safetensors": OTHER}))
    assert HfApi(endpoint=faulty.url).model_info(REPO).sha == first
    assert get(faulty, FILE).body == OTHER
    gone = get(faulty, FILE.replace("main", first))
    assert (gone.status, gone.headers["X-Error-Code"]) == (404, "RevisionNotFound")


def test_large_files_on_disk_are_served_and_counted(faulty: LocalHub, tmp_path: Path) -> None:
    big = tmp_path / "big.safetensors"
    with big.open("wb") as file:
        file.truncate(64 << 20)
    faulty.put(REPO, {"big.safetensors": big})
    faulty.log.clear()
    assert len(get(faulty, f"/{REPO}/resolve/main/big.safetensors").body) == 64 << 20
    assert faulty.log.sent("lfs-get") == 64 << 20
    assert get(faulty, f"/{REPO}/resolve/main/big.safetensors", Range="bytes=5-9").body == b"\0" * 5
    assert [asked.range for asked in faulty.log.of("lfs-get")] == ["", "bytes=5-9"]


def test_a_failure_of_the_hub_itself_is_not_hidden(tmp_path: Path) -> None:
    hub = LocalHub(tmp_path)
    hub.put(REPO, {"a.txt": b"1"})
    hub.faults.after("info", lambda: 1 / 0)
    with pytest.raises(http.client.RemoteDisconnected):
        get(hub, f"/api/models/{REPO}")
    with pytest.raises(ExceptionGroup, match="the local Hub failed"):
        hub.close()
