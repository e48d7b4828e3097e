"""What tests of several floors share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import early  # noqa: F401  (before torch)
import pytest
from hubs import hub
from hypothesis import settings
from sigstore_rig import Rig, require_node
from worlds import World

__all__ = ["hub"]  # a fixture, for all

# The same examples for everyone, however slow the machine; PARENTAGE_EXPLORE=1 looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("PARENTAGE_EXPLORE") else "same")

#: Files that take longest, longest first: taken last, one would keep a single worker busy at the end.
LONG = """test_mergekit_oracle test_soundness test_ray test_lm_eval test_guides test_mecha_oracle
    test_keyless test_oms_defects test_parentage1 test_layout_memory test_memory test_resume
    test_keyless_matrix test_mergekit_inputs_oracle test_saying test_planner test_hub_reading test_hub_fetching
    test_action test_attest test_exports""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    place = {name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A publisher in an empty folder."""
    return World(tmp_path)


@pytest.fixture(scope="session")
def running_rig() -> Iterator[Rig]:
    """The loopback Sigstore, one for all tests."""
    rig = Rig(require_node())
    yield rig
    rig.close()


@pytest.fixture
def rig(running_rig: Rig) -> Iterator[Rig]:
    """The loopback Sigstore, with every service up and every clock right."""
    yield running_rig
    running_rig.fault()
    running_rig.skew()
