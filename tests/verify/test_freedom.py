"""A merge of a peft result: undecided where the product may differ, refuted where it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, StepSource, bind
from parentage.verify.freedom import inherited
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource

NAMES = ("q.weight", "k.weight")


@pytest.fixture
def step(tmp_path: Path) -> StepSource:
    generator = torch.Generator().manual_seed(4)
    for name in ("base", "other"):
        state = {key: torch.randn((6, 5), generator=generator).bfloat16() for key in NAMES}
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "model.safetensors")
    pair = {
        "lora_A": torch.randn((2, 5), generator=generator),
        "lora_B": torch.randn((6, 2), generator=generator),
    }
    (tmp_path / "adapter").mkdir()
    save_file(
        {f"base_model.model.q.{key}.weight": value for key, value in pair.items()},
        tmp_path / "adapter" / "model.safetensors",
    )
    document = {
        "version": "0.1",
        "parents": [{"id": name} for name in ("base", "adapter", "other")],
        "steps": [
            {"id": "lora", "op": "lora_merge/v1", "inputs": ["base", "adapter"], "params": {"alpha": "4"},
             "arithmetic": {"profile": "peft"}},
            {"id": "merge", "op": "weighted_sum/v1", "inputs": ["lora", "other"],
             "params": {"weights": ["0.5", "0.25"], "normalize": False},
             "arithmetic": {"profile": "parentage-1"}},
        ],
    }  # fmt: skip
    parents = {
        name: FileSource(open_model(tmp_path / name)) for name in ("base", "adapter", "other")
    }
    return bind(recipe.parse(document, where="test").steps, parents)["merge"]


def rungs(step: StepSource, tmp_path: Path, changed: str) -> dict[str, str]:
    from parentage.verify.values import Scratch

    state = {}
    for name, spec in step.specs.items():
        values = step.read(name, 0, spec.elements, Scratch(torch.device("cpu"))).clone()
        if name == changed:
            values.view(torch.int16)[7] ^= 1
        state[name] = values.reshape(spec.shape)
    (tmp_path / "made").mkdir()
    save_file(state, tmp_path / "made" / "model.safetensors")
    with open_model(tmp_path / "made") as opened:
        found = compare(Engine(torch.device("cpu"), 1), FileSource(opened), step)
    return {result.name: str(result.rung) for result in found}


def test_a_bit_of_the_adapters_tensor_is_undecided(step: StepSource, tmp_path: Path) -> None:
    assert rungs(step, tmp_path, "q.weight") == {"q.weight": "?", "k.weight": "A"}


def test_a_bit_of_a_tensor_that_no_adapter_touches_refutes(
    step: StepSource, tmp_path: Path
) -> None:
    assert rungs(step, tmp_path, "k.weight") == {"q.weight": "A", "k.weight": "refuted"}


def test_a_bit_refutes_once_the_intermediate_is_confirmed(step: StepSource, tmp_path: Path) -> None:
    earlier = step.inputs["lora"]
    assert isinstance(earlier, StepSource)
    earlier.confirmed = True

    assert not inherited(step, "q.weight")
    assert rungs(step, tmp_path, "q.weight") == {"q.weight": "refuted", "k.weight": "A"}
