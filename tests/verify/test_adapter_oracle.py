"""Adapter folders that the real peft saves, imported as they are and recomputed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from parentage.manifest.adapter import load_adapter
from parentage.manifest.errors import RecipeError
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.sources import FileSource

pytestmark = pytest.mark.peer

SCRIPT = """
import sys, json, torch
from pathlib import Path
from torch import nn
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

torch.manual_seed(1)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.o = nn.Linear(120, 80, bias=False), nn.Linear(120, 64), nn.Linear(64, 64)
    def forward(self, x):
        return self.q(x)

def save(model, where):
    where.mkdir(parents=True)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, where / "model.safetensors")

for name, options in json.loads(sys.argv[2]).items():
    out = Path(sys.argv[1]) / name
    model = Model().to(torch.bfloat16)
    save(model, out / "base")
    config = LoraConfig(**{"r": 8, "lora_alpha": 20, "target_modules": ["q", "k"], "init_lora_weights": False, **options})
    tuned = get_peft_model(model, config)
    tuned.save_pretrained(out / "adapter")
    save(tuned.merge_and_unload(), out / "merged")
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
    import json

    given = os.environ.get("PARENTAGE_MERGEKIT_015", ".peers/mergekit-0.1.5/bin/mergekit-yaml")
    python = Path(given).absolute().with_name("python")
    if not python.exists():
        pytest.skip("peft is not installed: make peers")
    root = tmp_path_factory.mktemp("adapters")
    script = root / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [python, script, root, json.dumps(CASES)],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def rungs(where: Path) -> set[str]:
    recipe = load_adapter(where / "adapter", parents={"base": where / "base"})
    folders = {"base": where / "base", "adapter": where / "adapter", "merged": where / "merged"}
    opened = {name: open_model(path) for name, path in folders.items()}
    try:
        sources = {name: FileSource(model) for name, model in opened.items()}
        release = sources.pop("merged")
        step = bind(recipe.steps, sources)["merge"]
        assert dict(step.specs) == dict(release.specs)
        return {str(r.rung) for r in compare(Engine(torch.device("cpu"), 2), release, step)}
    finally:
        for model in opened.values():
            model.files.close()


@pytest.mark.parametrize("case", [case for case in CASES if case != "saved"])
def test_what_peft_saved_gives_what_peft_merged(world: Path, case: str) -> None:
    assert rungs(world / case) <= {"A", "C"}


def test_modules_to_save_are_refused_by_name(world: Path) -> None:
    with pytest.raises(RecipeError, match="modules_to_save"):
        rungs(world / "saved")
