"""Another people's mirror, over commits that git made, is read as the local Hub is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_rig import LocalHub
from huggingface_hub import HfApi, HfFileSystem
from olah_rig import commit_with_git, require_olah, running_olah

pytestmark = pytest.mark.peer

CONTENTS = {
    "model.safetensors": bytes(range(256)) * 40,
    "README.md": b"---\nlicense: mit\n---\nHello",
    "sub/config.json": b"{}",
}


def test_olah_and_the_local_hub_say_the_same(hub: LocalHub, tmp_path: Path) -> None:
    require_olah()
    commit = commit_with_git(tmp_path / "models" / "acme" / "model", CONTENTS)
    hub.put("acme/model", CONTENTS)
    with running_olah(tmp_path) as url:
        said = [
            {
                entry.path: (entry.size, entry.blob_id, entry.lfs)
                for entry in HfApi(endpoint=there).list_repo_tree(
                    "acme/model", recursive=True, revision=revision
                )
                if hasattr(entry, "blob_id")
            }
            for there, revision in ((url, commit), (hub.url, "main"))
        ]
        api = HfApi(endpoint=url, token=False)
        got = Path(api.snapshot_download("acme/model", revision=commit))
        assert {path: (got / path).read_bytes() for path in CONTENTS} == CONTENTS
        with HfFileSystem(endpoint=url, token=False).open(
            f"acme/model@{commit}/model.safetensors", block_size=64
        ) as file:
            file.seek(1000)
            ignored = file.read(16)
    assert said[0] == said[1]
    assert len(said[0]) == len(CONTENTS)
    # It ignores Range, and the client takes the first bytes of the file for those asked for.
    assert ignored != CONTENTS["model.safetensors"][1000:1016]
