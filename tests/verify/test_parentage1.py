"""parentage-1: published bits, another implementation's, and what they must not depend on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import parentage1_vectors as vectors
import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest.model import open_model
from parentage.verify import engine
from parentage.verify.methods import METHODS
from parentage.verify.sums import BLOCK
from parentage.verify.values import FileSource

CASES = dict(vectors.cases())
#: One case of each op, of dtypes in which every rounding shows.
PICKED = {name: case for name, case in CASES.items() if name.endswith(("F64-F64", "F32-F32"))}


@pytest.fixture
def sources(tmp_path: Path) -> Any:
    def make(case: Any) -> dict[str, FileSource]:
        used = {m: t for m, t in vectors.models(case).items() if m in case["step"]["inputs"]}
        return vectors.sources(used, tmp_path)

    return make


#: Ops whose bits are held to other oracles instead: numpy, fractions, the original programs, gguf.
ELSEWHERE = {
    *("abliterate/v1", "assemble/v1", "checkpoint_merge/v1", "dora_merge/v1"),
    *("layout/v1", "quantise_gguf/v1", "quantise_nf4/v1", "quantise_rtn/v1", "running_mean/v1"),
    *("tie/v1", "vocab_permute/v1", "vocab_resize/v1"),
}


def test_every_op_has_vectors() -> None:
    seen = {case["step"]["op"] for case in CASES.values()}

    assert seen | ELSEWHERE == {kind.__struct_config__.tag for kind in METHODS}
    assert not seen & ELSEWHERE


@pytest.mark.parametrize("name", CASES)
def test_the_engine_gives_the_published_bits(name: str, sources: Any) -> None:
    case = CASES[name]

    assert vectors.by_engine(case, sources(case)) == case["output"]


@pytest.mark.parametrize("name", CASES)
def test_another_implementation_gives_the_published_bits(name: str) -> None:
    """tests/oracle/parentage1.py, from the document alone: no torch, no import from verify/."""
    case = CASES[name]

    assert vectors.by_oracle(case) == case["output"]


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("name", PICKED)
def test_threads_chunks_and_pieces_do_not_change_a_bit(
    name: str, threads: int, sources: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CHUNK_BYTES", {2: 8 * 1009, 5: 8 * 77}[threads])
    for module, key in (("merging", "PIECE"), ("nuslerp", "PIECE")):
        found = import_module(f"parentage.verify.methods.{module}")
        monkeypatch.setattr(found, key, {2: BLOCK, 5: 2 * BLOCK}[threads])
    case = CASES[name]

    assert vectors.by_engine(case, sources(case), threads=threads) == case["output"]


@pytest.mark.parametrize("name", PICKED)
def test_shards_and_their_order_do_not_change_a_bit(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    opened = {}
    for model, tensors in vectors.models(case).items():
        folder = tmp_path / model
        folder.mkdir()
        index = {}
        for at, (tensor, value) in enumerate(reversed(tensors.items())):
            file = f"model-{at + 1:05}-of-{len(tensors):05}.safetensors"
            save_file({tensor: vectors.tensor_of(value)}, folder / file)
            index[tensor] = file
        document = {"metadata": {}, "weight_map": index}
        (folder / "model.safetensors.index.json").write_text(json.dumps(document))
        opened[model] = FileSource(open_model(folder))
    used = {name: opened[name] for name in case["step"]["inputs"]}

    assert vectors.by_engine(case, used) == case["output"]


@pytest.mark.parametrize(
    ("kernels", "library"), [("default", "SSE4_2"), ("avx2", "AVX2"), ("avx512", "AVX512")]
)
def test_kinds_of_cpu_do_not_change_a_bit(kernels: str, library: str) -> None:
    """torch's kernels without FMA, with FMA, and 512 bits wide; MKL's likewise."""
    if kernels == "avx512" and "avx512vl" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AVX-512 here")
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": kernels,
        "MKL_ENABLE_INSTRUCTIONS": library,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", vectors.__file__],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 1, done.stdout
    assert done.stdout.startswith(f"{len(CASES)} cases under {kernels.upper()}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_cuda_gives_the_published_bits(name: str, sources: Any) -> None:
    case = CASES[name]

    assert vectors.by_engine(case, sources(case), device="cuda") == case["output"]
