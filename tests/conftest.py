"""What tests of several floors share."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A publisher in an empty folder."""
    return World(tmp_path)
