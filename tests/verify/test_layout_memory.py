"""Index maps and directions in bounded memory: measured in a process of its own, as test_memory.py does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

ROWS, COLUMNS = 12 << 10, 8 << 10
#: MB over what importing takes; the tensor is 192 MB in bf16, 768 MB in float64. Blocks are 32 MiB.
ALLOWED = 180

SCRIPT = """
import json, sys, torch
from pathlib import Path
from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind, roots
from parentage.verify.values import FileSource

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

step, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
document = {"version": "0.1", "parents": [{"id": i} for i in step["inputs"]], "steps": [{"id": "s", **step}]}
sources = {n: FileSource(open_model(folder / f"{n}.safetensors")) for n in step["inputs"]}
step = bind(recipe.parse(document, where="t").steps, sources)["s"]
before = peak()
roots(Engine(torch.device("cpu"), 2), step)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float32).bfloat16()
    save_file({"w": w}, folder / "m.safetensors")
    directions = {"rows": torch.randn(ROWS), "columns": torch.randn(COLUMNS)}
    save_file(directions, folder / "d.safetensors")
    return folder


def layout(**rule: Any) -> dict[str, Any]:
    return {"op": "layout/v1", "inputs": ["m"], "params": {"rules": [rule]}}


def ablation(side: str, direction: str) -> dict[str, Any]:
    rule = {"tensors": ["w"], "direction": direction, "side": side}
    return {
        "op": "abliterate/v1", "inputs": ["m", "d"], "params": {"rules": [rule]},
        "arithmetic": {"profile": "parentage-1"},
    }  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "step",
    [
        layout(do="transpose", tensors=["w"]),
        layout(do="permute_rope", tensors=["w"], heads=2),
        layout(do="interleave", tensors=["w"], dim=1),
        layout(**{"do": "unstack", "from": "w", "to": "w.{n}", "dim": 0}),
        layout(**{"do": "chunk", "from": "w", "to": ["a", "b"], "dim": 1}),
        ablation("left", "rows"),
        ablation("right", "columns"),
    ],
    ids=lambda step: str(
        step["params"]["rules"][0].get("do") or step["params"]["rules"][0]["side"]
    ),
)
def test_one_large_tensor(parents: Path, step: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(step), parents],
        capture_output=True,
        text=True,
        check=True,
    )

    assert float(done.stdout) < ALLOWED, done.stdout
