"""Parents that do not fit, can't be read, or are not what the lineage declares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import MERGE, World, command, raw_safetensors

Tensors = dict[str, torch.Tensor]


def missing(tensors: Tensors) -> None:
    del tensors["norm"]


def extra(tensors: Tensors) -> None:
    tensors["bias"] = torch.zeros(3)


def another_shape(tensors: Tensors) -> None:
    tensors["norm"] = torch.ones(65)


def another_architecture(tensors: Tensors) -> None:
    tensors.clear()
    tensors["h.0.attn.weight"] = torch.ones(4, 4)


def whole_numbers_differ(tensors: Tensors) -> None:
    tensors["norm"] = torch.ones(64, dtype=torch.int64)


MISFITS = [missing, extra, another_shape, another_architecture, whole_numbers_differ]


@pytest.mark.parametrize("change", MISFITS, ids=lambda f: f.__name__)
def test_declared_parents_that_do_not_fit_refute_the_recipe(
    world: World, change: Callable[[Tensors], None]
) -> None:
    """The publisher declares a merge with a model that can't be merged with the other."""
    tensors = world.weights("b")
    change(tensors)
    world.save("b", tensors)
    world.save("out", world.weights("a"))
    world.declare("out", ["a", "b"], [MERGE])

    report = world.verify("out", ["a", "b"])

    assert report.exit_code == 1
    assert {f.code for f in report.findings if f.refutes} == {"inputs-mismatch"}


@pytest.mark.parametrize("change", MISFITS, ids=lambda f: f.__name__)
def test_a_merge_of_models_that_do_not_fit_leaves_nothing(
    world: World, change: Callable[[Tensors], None]
) -> None:
    tensors = world.weights("b")
    change(tensors)
    world.save("b", tensors)
    (world.root / "r.yaml").write_text(
        "version: '0.1'\nparents: [{id: a}, {id: b}]\nsteps:\n- {id: m, op: weighted_sum/v1, inputs: [a, b],"
        " params: {weights: [0.6, 0.4], normalize: true}, arithmetic: {profile: parentage-1}}\n"
    )
    before = sorted(world.root.iterdir())
    done = command("merge", world.root / "r.yaml", "-o", world.root / "out", "--device", "cpu",
                   "--parent", f"a={world.root / 'a'}", "--parent", f"b={world.root / 'b'}")  # fmt: skip

    assert done.returncode == 1
    assert "[inputs-mismatch]" in done.stderr
    assert "expected:" in done.stderr
    assert sorted(world.root.iterdir()) == before


def test_dtypes_may_differ_between_parents(world: World) -> None:
    """What counts is the value: bf16 and fp32 parents merge exactly."""
    world.save("b", {name: tensor.bfloat16() for name, tensor in world.weights("b").items()})
    world.merge()

    assert world.verify("merged", ["a", "b"]).verified


def broken_header(path: Path) -> None:
    path.write_bytes(raw_safetensors('{"a": {}}'))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def link_out(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("spoil", [broken_header, truncated, link_out, Path.unlink])
@pytest.mark.parametrize("how", ["parent", "against"])
def test_weights_that_can_not_be_read_are_named_and_decide_nothing(
    world: World, spoil: Callable[[Path], Any], how: str
) -> None:
    world.merge()
    (world.root / "bad").mkdir()
    bad = world.root / "bad" / "model.safetensors"
    bad.write_bytes((world.root / "b" / "model.safetensors").read_bytes())
    spoil(bad)

    if how == "parent":
        report = world.verify("merged", ["a", "bad"])
        assert (report.exit_code, report.parents_missing) == (4, ["b"])
    else:
        report = world.verify("merged", ["a", "b"], against=["bad"])
        assert report.exit_code == 0
    assert "parent-unreadable" in {found.code for found in report.findings}


def test_a_parent_given_under_the_wrong_name_is_noted(world: World) -> None:
    import parentage
    from parentage import Demands

    world.merge()
    report = parentage.verify_release(
        world.root / "merged",
        trust=world.trust,
        parents=[("a", world.root / "b"), ("b", world.root / "a")],
        demands=Demands(device="cpu"),
    )

    # The roots decide; the names were the verifier's mistake, and are said.
    assert report.verified
    assert [found.code for found in report.findings] == ["parent-is-another"] * 2
