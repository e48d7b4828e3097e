"""Index maps, DoRA, running means and directions: the same bits on CUDA."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from parentage.verify.engine import bind
from parentage.verify.rounding import bits
from parentage.verify.values import Scratch

EXACT = {"profile": "parentage-1", "store": "BF16"}
STEPS: list[dict[str, Any]] = [
    {
        "op": "layout/v1",
        "inputs": ["m"],
        "params": {"rules": [{"do": "transpose", "tensors": ["q.*"]}]},
    },
    {
        "op": "layout/v1",
        "inputs": ["m"],
        "params": {"rules": [{"do": "permute_rope", "tensors": ["q.*"], "heads": 8}]},
    },
    {
        "op": "vocab_resize/v1",
        "inputs": ["m"],
        "params": {
            "tensors": ["q.*"],
            "rows": [{"rows": "range", "input": "m"}, {"rows": "mean", "input": "m", "count": 4}],
        },
    },
    {
        "op": "dora_merge/v1",
        "inputs": ["m", "adapter"],
        "params": {"alpha": "8"},
        "arithmetic": EXACT,
    },
    {"op": "running_mean/v1", "inputs": ["m", "n"], "arithmetic": EXACT},
    {
        "op": "running_mean/v1",
        "inputs": ["m", "n"],
        "params": {"decay": "0.9"},
        "arithmetic": EXACT,
    },
    *(
        {
            "op": "abliterate/v1",
            "inputs": ["m", "d"],
            "params": {"rules": [{"tensors": ["q.*"], "direction": side, "side": side}]},
            "arithmetic": EXACT,
        }
        for side in ("left", "right")
    ),
]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fields", STEPS, ids=lambda fields: fields["op"])
def test_the_bits_are_the_same_on_cuda(source: Any, step: Any, fields: dict[str, Any]) -> None:
    stem = "base_model.model.q"
    inputs = {
        "m": source({"q.weight": random(640, 700, seed=1)}),
        "n": source({"q.weight": random(640, 700, seed=2)}),
        "d": source({"left": random(640, seed=3), "right": random(700, seed=4)}),
        "adapter": source(
            {
                f"{stem}.lora_A.weight": random(8, 700, seed=5),
                f"{stem}.lora_B.weight": random(640, 8, seed=6),
                f"{stem}.lora_magnitude_vector": random(640, seed=7),
            }
        ),
    }
    bound = bind([step(**fields)], inputs)["s"]
    count = bound.specs["q.weight"].elements

    cpu = bound.read("q.weight", 0, count, Scratch(torch.device("cpu"))).clone()
    gpu = bound.read("q.weight", 0, count, Scratch(torch.device("cuda"))).cpu()

    assert torch.equal(bits(cpu), bits(gpu))
