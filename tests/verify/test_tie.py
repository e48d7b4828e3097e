"""Tied weights: a second name for one tensor, so that models with and without `lm_head` merge."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from worlds import World

from parentage.manifest.errors import RecipeError
from parentage.verify.engine import bind

TIE = {
    "id": "untied",
    "op": "tie/v1",
    "inputs": ["b"],
    "params": {"names": {"lm_head.weight": "embed.weight"}},
}


def test_embeddings_stand_in_for_the_head_that_only_one_parent_has(world: World) -> None:
    generator = torch.Generator().manual_seed(1)
    embed, head, other = (torch.randn(40, 8, generator=generator) for _ in range(3))
    world.save("a", {"embed.weight": embed, "lm_head.weight": head})
    world.save("b", {"embed.weight": other})
    merge = {
        "id": "merge",
        "op": "weighted_sum/v1",
        "inputs": ["a", "untied"],
        "params": {"weights": ["0.75", "0.25"], "normalize": True},
        "arithmetic": {"profile": "parentage-1"},
    }
    exact = head.double() * 0.75 + other.double() * 0.25
    made = {
        "embed.weight": (embed.double() * 0.75 + other.double() * 0.25).float(),
        "lm_head.weight": exact.float(),
    }
    world.save("release", made)
    world.declare("release", ["a", "b"], [TIE, merge])
    assert world.verify("release", ["a", "b"]).verified

    world.save("release", made | {"lm_head.weight": head})
    world.declare("release", ["a", "b"], [TIE, merge])
    assert world.verify("release", ["a", "b"]).verdict == "refuted"


def test_a_head_that_is_not_the_embeddings_is_refuted(world: World) -> None:
    embed = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    world.save("b", {"embed.weight": embed})
    head = embed.clone()
    head[3, 3] = -head[3, 3]
    world.save("release", {"embed.weight": embed, "lm_head.weight": head})
    world.declare("release", ["b"], [TIE])

    report = world.verify("release", ["b"])

    assert [f.where for f in report.findings if f.refutes] == ["lm_head.weight[27]"]


def test_a_tied_tensor_is_known_to_be_the_other(source: Any, step: Any) -> None:
    b = source({"embed.weight": torch.zeros(3, 2), "norm": torch.ones(2)})
    bound = bind([step(**TIE | {"id": "s"})], {"b": b})["s"]

    assert set(bound.specs) == {"embed.weight", "norm", "lm_head.weight"}
    assert bound.alias("lm_head.weight") == (b, "embed.weight")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"lm_head.weight": "absent"}, "no such tensor"),
        ({"norm": "embed.weight"}, "two tensors get one name"),
    ],
)
def test_ties_that_can_not_be(source: Any, step: Any, names: Any, problem: str) -> None:
    b = source({"embed.weight": torch.zeros(3, 2), "norm": torch.ones(2)})

    with pytest.raises(RecipeError, match=problem):
        bind([step(op="tie/v1", inputs=["b"], params={"names": names})], {"b": b})
