"""The real peft, run in mergekit's environment, and what it merged recomputed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from absent import absent
from mergekit_world import executable

from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource

#: What every script begins with: a model of `wide` columns, and a way to save one.
PREAMBLE = """
import json, sys, torch
from pathlib import Path
from torch import nn
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

class Model(nn.Module):
    def __init__(self, wide=300, high=200):
        super().__init__()
        self.q, self.k, self.o = nn.Linear(wide, high, bias=False), nn.Linear(wide, 64), nn.Linear(64, 64)
    def forward(self, x):
        return self.q(x)

def save(model, where):
    where.mkdir(parents=True)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, where / "model.safetensors")

out = Path(sys.argv[1])
"""


def label(dtype: str, *flags: bool) -> str:
    """Name a case."""
    return "-".join([dtype, *(str(int(flag)) for flag in flags)])


def run(script: str, root: Path, *arguments: str) -> Path:
    """Run a script with peft and return the folder that it wrote to; end the test where there is no peft."""
    mergekit = executable("0.1.5")
    if mergekit is None:
        absent("peft", "make peers")
    (root / "script.py").write_text(PREAMBLE + script)
    done = subprocess.run(
        [mergekit.with_name("python"), root / "script.py", root / "out", *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "out"


def rungs(out: Path, steps: Sequence[Any]) -> dict[str, str]:
    """Return the rung of each tensor of `merged`, recomputed from `base` and `adapter`."""
    paths = [out / "base", out / "adapter" / "adapter_model.safetensors", out / "merged"]
    models = [open_model(path) for path in paths]
    try:
        base, adapter, release = map(FileSource, models)
        step = bind(steps, {"base": base, "adapter": adapter})[steps[-1].id]
        assert dict(step.specs) == dict(release.specs)
        found = compare(Engine(torch.device("cpu"), 2), release, step)
        return {result.name: result.rung.value for result in found}
    finally:
        for model in models:
            model.files.close()
