"""Parents given by id are digested while they are computed with; what is reported is the same."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from worlds import MERGE, World

import parentage
from parentage import Demands, Report
from parentage.manifest.files import OpenFile
from parentage.verify import check
from parentage.verify import parents as parenthood

MK = {"profile": "mk-0.1.5", "compute": "F32"}
STEPS: dict[str, Any] = {
    "parentage-1": MERGE,
    "linear": {**MERGE, "arithmetic": MK},
    "slerp": {**MERGE, "op": "slerp/v1", "params": {"t": "0.35"}, "arithmetic": MK},
    "ties": {
        "id": "merge",
        "op": "task_arithmetic/v1",
        "inputs": ["a", "b", "base"],
        "params": {
            "base": "base",
            "weights": ["0.6", "0.5"],
            "sparsify": "magnitude",
            "densities": ["0.5", "0.3"],
            "elect": True,
            "normalize": True,
        },
        "arithmetic": MK,
    },
}


def report(world: World, given: dict[str, str], **demands: Any) -> dict[str, Any]:
    found: Report = parentage.verify_release(
        world.root / "merged",
        trust=world.trust,
        parents=[(name, world.root / place) for name, place in given.items()],
        demands=Demands(device="cpu", **demands),
    )
    document: dict[str, Any] = msgspec.to_builtins(found)
    return document


def nothing(world: World) -> None:
    pass


def another(world: World) -> None:
    tensors = world.weights("b")
    tensors["norm"] = tensors["norm"] + 1
    world.save("b", tensors)


def another_bit(world: World) -> None:
    tensors = world.weights("b")
    tensors["layers.3.w"].view(torch.int32)[0, 0] ^= 1
    world.save("b", tensors)


def another_shape(world: World) -> None:
    world.save("b", world.weights("b") | {"norm": torch.ones(65)})


def another_architecture(world: World) -> None:
    world.save("b", {"h.0.attn.weight": torch.ones(4, 4)})


def cut_off(world: World) -> None:
    path = world.root / "b" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def gone(world: World) -> None:
    (world.root / "b" / "model.safetensors").unlink()


SPOILT = [nothing, another, another_bit, another_shape, another_architecture, cut_off, gone]


@pytest.fixture
def merged(world: World) -> Callable[[str], World]:
    def make(step: str) -> World:
        world.merge(step=STEPS[step])
        return world

    return make


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("spoil", SPOILT, ids=lambda f: f.__name__)
@pytest.mark.parametrize("rung", ["A", "C"])
def test_the_report_is_that_of_parents_digested_first(
    merged: Callable[[str], World],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[World], None],
    step: str,
    rung: str,
) -> None:
    world = merged(step)
    given = {name: name for name in STEPS[step]["inputs"]}
    spoil(world)
    assumed = report(world, given, rung=rung)

    with monkeypatch.context() as patch:
        patch.setattr(check, "_assumed", lambda *_: None)
        assert assumed == report(world, given, rung=rung)
    assert (assumed["verdict"] == "verified") == (spoil is nothing)


@pytest.mark.parametrize("step", STEPS)
def test_parents_given_for_one_another_are_found(
    merged: Callable[[str], World], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world = merged(step)
    given = {name: name for name in STEPS[step]["inputs"]} | {"a": "b", "b": "a"}
    assumed = report(world, given)

    with monkeypatch.context() as patch:
        patch.setattr(check, "_assumed", lambda *_: None)
        assert assumed == report(world, given)


def test_nothing_but_a_differing_parent_is_looked_at_twice(
    merged: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes read of each parent: once the tensors; all of them again only to say that they differ."""
    world = merged("linear")
    sizes = {name: _tensors(world.root / name / "model.safetensors") for name in "ab"}
    read: Counter[str] = Counter()
    original = OpenFile.read_into

    def counting(self: OpenFile, view: memoryview, offset: int) -> None:
        read[Path(f"/proc/self/fd/{self.descriptor}").readlink().parent.name] += len(view)
        original(self, view, offset)

    monkeypatch.setattr(OpenFile, "read_into", counting)
    assert report(world, {"a": "a", "b": "b"})["verdict"] == "verified"
    by_id = Counter(read)
    read.clear()
    with monkeypatch.context() as patch:
        patch.setattr(check, "_assumed", lambda *_: None)
        report(world, {"a": "a", "b": "b"})

    for name, size in sizes.items():
        assert size <= by_id[name] < 1.5 * size
        assert read[name] == by_id[name] + size


def _tensors(path: Path) -> int:
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    return path.stat().st_size - 8 - header


def test_a_parent_changed_after_it_was_opened_does_not_verify_what_was_made_of_it(
    merged: Callable[[str], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release is a merge with another model, which takes the parent's place during the check."""
    world = merged("linear")
    honest = (world.root / "b" / "model.safetensors").read_bytes()
    another(world)
    changed = (world.root / "b" / "model.safetensors").read_bytes()
    world.save("swapped", world.weights("b"))
    parents = {"a": world.root / "a", "b": world.root / "swapped"}
    recipe = world.recipe(["a", "b"], [STEPS["linear"]])
    parentage.merge(recipe, world.root / "false", parents=parents)
    (world.root / "b" / "model.safetensors").write_bytes(honest)
    shutil.copy(world.root / "false" / "model.safetensors", world.root / "merged")
    world.declare("merged", ["a", "b"], [STEPS["linear"]])
    load = parenthood.load

    def then_swap(*args: Any, **options: Any) -> Any:
        found = load(*args, **options)
        with (world.root / "b" / "model.safetensors").open("r+b") as file:
            file.write(changed)
        return found

    monkeypatch.setattr(check.parenthood, "load", then_swap)
    found = report(world, {"a": "a", "b": "b"})

    assert found["verdict"] != "verified"
    assert "parent-is-another" in {each["code"] for each in found["findings"]}
