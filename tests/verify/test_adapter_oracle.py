"""Adapter folders that the real peft saves, imported as they are and recomputed."""

from __future__ import annotations

import json
from pathlib import Path

import peft_world
import pytest

from parentage.manifest.adapter import load_adapter
from parentage.manifest.errors import RecipeError

pytestmark = pytest.mark.peer

SCRIPT = """
torch.manual_seed(1)
for name, options in json.loads(sys.argv[2]).items():
    model = Model(120, 80).to(torch.bfloat16)
    save(model, out / name / "base")
    config = LoraConfig(**{"r": 8, "lora_alpha": 20, "target_modules": ["q", "k"], "init_lora_weights": False, **options})
    tuned = get_peft_model(model, config)
    tuned.save_pretrained(out / name / "adapter")
    save(tuned.merge_and_unload(), out / name / "merged")
"""

CASES = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"k": 4}, "alpha_pattern": {"q": 3}},
    "dora": {"use_dora": True},
    "saved": {"modules_to_save": ["o"]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return peft_world.run(SCRIPT, tmp_path_factory.mktemp("adapters"), json.dumps(CASES))


def rungs(where: Path) -> set[str]:
    recipe = load_adapter(where / "adapter", parents={"base": where / "base"})
    return set(peft_world.rungs(where, recipe.steps).values())


@pytest.mark.parametrize("case", [case for case in CASES if case != "saved"])
def test_what_peft_saved_gives_what_peft_merged(world: Path, case: str) -> None:
    assert rungs(world / case) <= {"A", "C"}


def test_modules_to_save_are_refused_by_name(world: Path) -> None:
    with pytest.raises(RecipeError, match="modules_to_save"):
        rungs(world / "saved")
