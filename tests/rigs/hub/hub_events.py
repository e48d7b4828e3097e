"""What the Hub tells a webhook when a branch moves (huggingface.co/docs/hub/webhooks, version 3)."""

from __future__ import annotations

import hashlib
from typing import Any

from hub_repos import Repo


def update(base: str, repo: Repo, ref: str, old: str | None, new: str | None) -> dict[str, Any]:
    """Return the event of one moved ref."""
    return {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {
            "type": "model",
            "name": repo.id,
            "id": _id(repo.id),
            "private": repo.private,
            "url": {"web": f"{base}/{repo.id}", "api": f"{base}/api/models/{repo.id}"},
            "headSha": repo.refs["refs/heads/main"],
            "owner": {"id": _id(repo.id.split("/", maxsplit=1)[0])},
        },
        "webhook": {"id": _id("webhook"), "version": 3},
        "updatedRefs": [{"ref": ref, "oldSha": old, "newSha": new}],
    }


def _id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]
