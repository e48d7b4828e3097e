"""The local Hub is driven by the Hub's own client, and each of its faults does what it says."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hub_rig import LocalHub

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import HfApi, HfFileSystem  # noqa: E402
from huggingface_hub import errors as hf_errors  # noqa: E402

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
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\nHello")
    api.upload_folder(folder_path=folder, repo_id=REPO)
    head = hub.head(REPO)

    told = api.model_info(REPO, files_metadata=True)
    assert (told.sha, told.card_data.license) == (head, "mit")
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
