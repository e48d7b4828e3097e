"""One honest signed release, copied for each attack."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from worlds import World


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A publisher whose release `merged` is a true merge of `a` and `b`."""
    world = World(tmp_path_factory.mktemp("honest"))
    world.merge()
    (world.root / "release.pub").write_bytes(world.key.public.pem)
    (world.root / "release.key").write_bytes(world.key.to_pem(None))
    return world


@pytest.fixture
def attacked(honest: World, tmp_path: Path) -> Callable[[], World]:
    """Return a copy of everything, to be spoilt."""

    def copy() -> World:
        shutil.copytree(honest.root, tmp_path / "copy", symlinks=True)
        world = World.__new__(World)
        world.root, world.key, world.trust = tmp_path / "copy", honest.key, honest.trust
        return world

    return copy
