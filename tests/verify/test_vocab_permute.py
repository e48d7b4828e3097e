"""vocab_permute/v1: rows against numpy, whatever the chunks; false maps refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parentage.manifest import recipe
from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.tensor import TensorSpec
from parentage.verify.engine import bind
from parentage.verify.values import Scratch

EMBED = "model.embed_tokens.weight"


class Held:
    """A source in memory."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn((rows, columns), generator=generator).to(torch.bfloat16)
        self.tensors = {EMBED: values, "other": torch.ones(3, dtype=torch.bfloat16)}
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, "BF16", tuple(value.shape))
            for name, value in self.tensors.items()
        }

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> torch.Tensor:
        return self.tensors[name].reshape(-1)[start:stop]

    def alias(self, name: str) -> tuple[Any, str]:
        return self, name


def step(profile: str = "mk-0.1.5", inputs: str = "ab", **params: Any) -> recipe.Recipe:
    document = {
        "version": "0.1",
        "parents": [{"id": name} for name in inputs],
        "steps": [
            {
                "id": "merge",
                "op": "vocab_permute/v1",
                "inputs": list(inputs),
                "params": {"tensors": [EMBED], "rows": 5, "copied": {}} | params,
                "arithmetic": {"profile": profile, "compute": "BF16"},
            }
        ],
    }
    return recipe.parse(document, where="test")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_range_of_elements_is_that_of_the_whole(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 7))
    a, b = Held(9, columns, 1), Held(6, columns, 2)
    expected = np.zeros((rows, columns), dtype=np.float32)
    copied: dict[str, list[list[int]]] = {"a": [], "b": []}
    averaged = []
    for to in range(rows):
        kind = data.draw(st.sampled_from(["a", "b", "mean", "zero"]))
        if kind in "ab":
            source = {"a": a, "b": b}[kind].tensors[EMBED]
            row = data.draw(st.integers(0, source.shape[0] - 1))
            copied[kind].append([to, row, 1])
            expected[to] = source[row].float().numpy()
        elif kind == "mean":
            averaged.append({"to": to, "of": {"a": 2, "b": 3}})
            exact = a.tensors[EMBED][2].double() + b.tensors[EMBED][3].double()
            # One rounding of the sum; halving is exact.
            expected[to] = (exact.to(torch.bfloat16).double() / 2).float().numpy()
    found = bind(step(rows=rows, copied=copied, averaged=averaged).steps, {"a": a, "b": b})["merge"]
    start = data.draw(st.integers(0, rows * columns - 1))
    stop = data.draw(st.integers(start + 1, rows * columns))

    got = found.read(EMBED, start, stop, Scratch(torch.device("cpu")))

    assert found.specs[EMBED].shape == (rows, columns)
    assert np.array_equal(got.float().numpy(), expected.reshape(-1)[start:stop])


def test_what_is_no_vocabulary_is_copied() -> None:
    a, b = Held(5, 2, 1), Held(5, 2, 2)
    found = bind(step(copied={"b": [[0, 0, 5]]}).steps, {"a": a, "b": b})["merge"]

    assert found.alias("other") == (a, "other")
    assert found.alias(EMBED) == (found, EMBED)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"copied": {"a": [[0, 0, 2], [1, 0, 1]]}}, "filled twice"),
        ({"copied": {"a": [[0, 0, 1]]}, "averaged": [{"to": 0, "of": {"b": 1}}]}, "filled twice"),
        ({"copied": {"a": [[4, 0, 2]]}}, "beyond the last"),
        ({"copied": {"a": [[0, 0, 0]]}}, "filled twice"),
        ({"copied": {"c": [[0, 0, 1]]}}, "not an input"),
        ({"averaged": [{"to": 0, "of": {"c": 1}}]}, "not an input"),
        ({"averaged": [{"to": 0, "of": {}}]}, "not a recipe"),
        ({"rows": 1 << 40}, "not a recipe"),
        ({"copied": {"a": [[0, -1, 1]]}}, "not a recipe"),
    ],
)
def test_a_map_that_can_not_be_one_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        step(**params)


def test_rows_that_a_parent_does_not_have_are_refused() -> None:
    with pytest.raises(ShapeMismatchError, match="no such row"):
        bind(step(copied={"b": [[0, 4, 2]]}).steps, {"a": Held(5, 2, 1), "b": Held(5, 2, 2)})
    with pytest.raises(ShapeMismatchError, match="do not fit"):
        bind(step(copied={"b": [[0, 0, 2]]}).steps, {"a": Held(5, 2, 1), "b": Held(5, 3, 2)})


@pytest.mark.parametrize(("profile", "settled"), [("mk-0.1.5", True), ("mk-0.1.4", False)])
def test_a_mean_of_three_has_no_fixed_order_in_014(profile: str, settled: bool) -> None:
    averaged = [{"to": 0, "of": {"a": 0, "b": 0, "c": 0}}]
    parents = {name: Held(5, 2, seed) for seed, name in enumerate("abc")}
    found = bind(step(profile, "abc", averaged=averaged).steps, parents)["merge"]

    assert found.method.deterministic is settled
