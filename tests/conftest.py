"""What tests of several floors share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from worlds import World

# The same examples for everyone, however slow the machine; PARENTAGE_EXPLORE=1 looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("PARENTAGE_EXPLORE") else "same")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A publisher in an empty folder."""
    return World(tmp_path)
