"""Real `merge_and_unload` output, recomputed: LoRA and rsLoRA, adapters in fp32 and bf16.

PEFT comes with mergekit's environment (`make peers`).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.sources import FileSource

pytestmark = pytest.mark.peer

SCRIPT = """
import sys, torch
from pathlib import Path
from torch import nn
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

out, dtype, rs, keep, safe = Path(sys.argv[1]), getattr(torch, sys.argv[2]), *(a == "1" for a in sys.argv[3:])
torch.manual_seed(1)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.o = nn.Linear(300, 200, bias=False), nn.Linear(300, 64), nn.Linear(64, 64)
    def forward(self, x):
        return self.q(x)

def save(model, name):
    (out / name).mkdir(parents=True)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, out / name / "model.safetensors")

model = Model().to(dtype)
save(model, "base")
config = LoraConfig(r=8, lora_alpha=20, target_modules=["q", "k"], use_rslora=rs, init_lora_weights=False)
tuned = get_peft_model(model, config, autocast_adapter_dtype=not keep)
tuned.save_pretrained(out / "adapter")
save(tuned.merge_and_unload(safe_merge=safe), "merged")
"""


def merged(where: Path, dtype: str, *flags: bool) -> Path:
    given = os.environ.get("PARENTAGE_MERGEKIT_015", ".peers/mergekit-0.1.5/bin/mergekit-yaml")
    python = Path(given).absolute().with_name("python")
    if not python.exists():
        pytest.skip("peft is not installed: make peers")
    script = where / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [python, script, where / "out", dtype, *(str(int(flag)) for flag in flags)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return where / "out"


def rungs(out: Path, alpha: str, *, rs: bool) -> dict[str, str]:
    document = {
        "version": "0.1",
        "parents": [{"id": "base"}, {"id": "adapter"}],
        "steps": [
            {
                "id": "fold",
                "op": "lora_merge/v1",
                "inputs": ["base", "adapter"],
                "params": {"alpha": alpha, "rsLora": rs},
                "arithmetic": {"profile": "peft"},
            }
        ],
    }
    paths = [out / "base", out / "adapter" / "adapter_model.safetensors", out / "merged"]
    models = [open_model(path) for path in paths]
    try:
        base, adapter, release = map(FileSource, models)
        step = bind(recipe.parse(document, where="t").steps, {"base": base, "adapter": adapter})[
            "fold"
        ]
        found = compare(Engine(torch.device("cpu"), 2), release, step)
        return {result.name: result.rung.value for result in found}
    finally:
        for model in models:
            model.files.close()


@pytest.mark.parametrize(
    ("dtype", "rs", "keep", "safe"),
    [
        ("float32", False, False, False),
        ("bfloat16", True, False, False),
        ("float16", False, False, True),
        ("bfloat16", False, True, False),
        ("bfloat16", True, True, True),
    ],
)
def test_merge_and_unload(tmp_path: Path, dtype: str, rs: bool, keep: bool, safe: bool) -> None:
    out = merged(tmp_path, dtype, rs, keep, safe)

    # A where our BLAS sums in peft's order, as here; another build may need C, never a refusal.
    assert set(rungs(out, "20", rs=rs).values()) <= {"A", "C"}
    for alpha in ("20.01", "19"):
        false = rungs(out, alpha, rs=rs)
        assert {false["q.weight"], false["k.weight"]} == {"refuted"}
    assert rungs(out, "20", rs=not rs)["q.weight"] == "refuted"
