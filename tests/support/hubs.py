"""The local Hub in tests: a fixture that points huggingface_hub at it, in this process and in others.

huggingface_hub reads HF_ENDPOINT and its fellows once, when it is imported: where that has happened
already its constants are set too, and set back. Code of ours passes `endpoint` from the environment
at the time of the call, so that it needs no such help.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hub_rig import LocalHub

_HIDDEN = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def point_at(hub: LocalHub, patch: pytest.MonkeyPatch) -> None:
    """Let this process use a Hub and no other."""
    for name in _HIDDEN:
        patch.delenv(name, raising=False)
    for name, value in hub.environment.items():
        patch.setenv(name, value)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is None:
        return
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        patch.setattr(constants, name, hub.environment[name])
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", not hub.xet)
    patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


def outside(hub: LocalHub, **changes: str) -> dict[str, str]:
    """Return the environment of a process that uses a Hub and no other."""
    kept = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
    return {**kept, **hub.environment, **changes}


@contextmanager
def running(folder: Path, *, xet: bool = False) -> Iterator[LocalHub]:
    """Run a Hub that keeps its files in a folder, and point this process at it."""
    with LocalHub(folder, xet=xet) as hub, pytest.MonkeyPatch.context() as patch:
        point_at(hub, patch)
        yield hub


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A Hub without repositories, at which this process is pointed."""
    with running(tmp_path_factory.mktemp("hub")) as started:
        yield started
