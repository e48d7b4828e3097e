"""assemble/v1: tensors of several inputs under new names; what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from worlds import World

from parentage.manifest.errors import RecipeError
from parentage.verify.engine import bind


def fields(tensors: list[dict[str, str]], inputs: list[str]) -> dict[str, Any]:
    return {"id": "s", "op": "assemble/v1", "inputs": inputs, "params": {"tensors": tensors}}


def test_everything_is_known_to_be_a_copy(source: Any, step: Any) -> None:
    text = source({"model.l.0.w": torch.ones(2), "model.norm": torch.ones(3)})
    eyes = source({"tower.w": torch.zeros(4)})
    tensors = [
        {"input": "text", "from": "model.{rest*}", "to": "language_model.{rest*}"},
        {"input": "eyes"},
    ]
    bound = bind([step(**fields(tensors, ["text", "eyes"]))], {"text": text, "eyes": eyes})["s"]

    assert set(bound.specs) == {"language_model.l.0.w", "language_model.norm", "tower.w"}
    assert bound.alias("language_model.l.0.w") == (text, "model.l.0.w")
    assert bound.alias("tower.w") == (eyes, "tower.w")


@pytest.mark.parametrize(
    ("tensors", "inputs", "problem"),
    [
        ([{"input": "a"}, {"input": "b"}], ["a", "b"], "two tensors get one name"),
        ([{"input": "a", "from": "{n}.x", "to": "y.{n}"}], ["a"], "finds no tensor"),
        ([{"input": "a"}], ["a", "b"], "nothing uses an input"),
        ([{"input": "c"}], ["a"], "not an input"),
        ([{"input": "a", "from": "{n}"}], ["a"], "different placeholders"),
    ],
)
def test_what_can_not_be_assembled(
    source: Any, step: Any, tensors: Any, inputs: list[str], problem: str
) -> None:
    sources = {name: source({"w": torch.zeros(1)}) for name in inputs}
    with pytest.raises(RecipeError, match=problem):
        bind([step(**fields(tensors, inputs))], sources)


def test_a_tensor_of_the_wrong_input_is_refuted(world: World) -> None:
    entry = {"from": "layers.0.w", "to": "one"}
    tensors = [{"input": "a", **entry}, {"input": "b", **entry, "to": "two"}]
    a, b = world.weights("a")["layers.0.w"], world.weights("b")["layers.0.w"]
    for name, second in (("honest", b), ("false", a)):
        world.save(name, {"one": a, "two": second.clone()})
        world.declare(name, ["a", "b"], [fields(tensors, ["a", "b"])])
    assert world.verify("honest", ["a", "b"]).verified
    report = world.verify("false", ["a", "b"])
    assert [f.where for f in report.findings if f.code == "recipe-mismatch"] == ["two[0]"]
