"""Memory is bounded by chunks and threads, not by tensors: measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ELEMENTS = 48 << 20
#: MB over what importing takes; such a tensor is 192 MB in fp32, 384 MB in float64.
ALLOWED = 180

SCRIPT = """
import sys, torch
from pathlib import Path
from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind, roots
from parentage.verify.values import FileSource

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

op, profile, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
params = {"t": "0.35"} if op == "slerp/v1" else {"weights": ["0.6", "0.4"], "normalize": True}
document = {"version": "0.1", "parents": [{"id": "a"}, {"id": "b"}], "steps": [
    {"id": "s", "op": op, "inputs": ["a", "b"], "params": params, "arithmetic": {"profile": profile}}]}
sources = {n: FileSource(open_model(folder / f"{n}.safetensors")) for n in "ab"}
step = bind(recipe.parse(document, where="t").steps, sources)["s"]
before = peak()
roots(Engine(torch.device("cpu"), 2), step)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    for seed, name in enumerate("ab"):
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(ELEMENTS, generator=generator, dtype=torch.float32).bfloat16()
        save_file({"w": values}, folder / f"{name}.safetensors")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("op", "profile"),
    [
        ("weighted_sum/v1", "parentage-1"),
        ("weighted_sum/v1", "mk-0.1.5"),
        ("slerp/v1", "parentage-1"),
        ("slerp/v1", "mk-0.1.5"),
    ],
)
def test_one_large_tensor(parents: Path, op: str, profile: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, op, profile, parents],
        capture_output=True,
        text=True,
        check=True,
    )

    assert float(done.stdout) < ALLOWED, done.stdout
