"""What a test needs and does not find: skipped on somebody's machine, a failure in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str, how: str) -> NoReturn:
    """End a test that can't run here; `how` installs what is missing."""
    say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    say(f"{what} is not installed: {how}")
