"""Real sd-mecha output, imported from its header or its `.mecha` file and recomputed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import sd_world
from absent import absent

from parentage.manifest.errors import RecipeError
from parentage.manifest.mecha import load_mecha

pytestmark = pytest.mark.peer

CASES = {
    "weighted-sum": "ab",
    "weighted-sum-beyond-half": "ac",
    "add-difference": "abc",
    "chain": "abc",
    "operators": "abc",
    "average": "abc",
    "bf16": "ab",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("PARENTAGE_MECHA", ".peers/sd-mecha/bin/python")
    python = Path(given).absolute()
    if not python.exists():
        absent("sd-mecha", "make peers")
    root = tmp_path_factory.mktemp("mecha")
    script = Path(__file__).parents[1] / "support" / "mecha_batch.py"
    done = subprocess.run(
        [python, script, root],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("from_header", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_sd_mecha_reaches_rung_a(world: Path, case: str, from_header: bool) -> None:
    parents = {name: world / f"{name}.safetensors" for name in CASES[case]}
    path = None if from_header else world / f"{case}.mecha"
    recipe = load_mecha(path, release=world / case, parents=parents)

    results = sd_world.recomputed(world, world / case, CASES[case], recipe)

    assert {str(result.rung) for result in results} == {"A"}


def test_a_false_alpha_is_refuted(world: Path, tmp_path: Path) -> None:
    text = (world / "weighted-sum.mecha").read_text()
    edited = tmp_path / "edited.mecha"
    edited.write_text(text.replace("key=0.3", "key=0.31"))
    parents = {name: world / f"{name}.safetensors" for name in "ab"}
    recipe = load_mecha(edited, release=world / "weighted-sum", parents=parents)

    results = sd_world.recomputed(world, world / "weighted-sum", "ab", recipe)

    assert "refuted" in {str(result.rung) for result in results}


def test_a_method_that_is_not_imported_is_named(world: Path) -> None:
    parents = {name: world / f"{name}.safetensors" for name in "ab"}

    with pytest.raises(RecipeError, match="not imported") as caught:
        load_mecha(None, release=world / "slerp", parents=parents)
    assert caught.value.found == "slerp"
