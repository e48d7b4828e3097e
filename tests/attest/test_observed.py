"""Signing weights alone, in one pass: the same release as declaring and signing apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from worlds import World, command

import parentage
from parentage import KeySigner
from parentage.manifest.errors import FileSetError, UsageError
from parentage.manifest.lineage import DRAFT

TABLES = (".parentage/tensors.jsonl", ".parentage/leaves.bin")


def observe(world: World, name: str) -> Path:
    release = world.root / name
    parentage.sign_release(release, KeySigner(world.key), world.trust, observed=True)
    return release


def test_one_pass_gives_what_two_give(world: World) -> None:
    (world.root / "a" / "config.json").write_text("{}")
    release = observe(world, "a")
    one = {name: (release / name).read_bytes() for name in TABLES}
    lineage = world.lineage("a")
    assert not (release / DRAFT).exists()

    parentage.declare(release, world.recipe([], []), parents={})
    world.sign("a")
    assert {name: (release / name).read_bytes() for name in TABLES} == one
    assert world.lineage("a").weights == lineage.weights
    assert world.lineage("a").recipe.steps == lineage.recipe.steps == ()


def test_it_verifies_and_notices(world: World) -> None:
    release = observe(world, "a")
    assert world.verify("a", [], level="integrity", whole_files=True).verified

    weights = bytearray((release / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (release / "model.safetensors").write_bytes(weights)
    assert not world.verify("a", [], level="integrity").verified
    observe(world, "a")
    assert world.verify("a", [], level="integrity").verified


def test_signing_again_replaces_the_lineage(world: World) -> None:
    for _ in range(2):
        release = observe(world, "a")

    assert len((release / ".parentage" / "claims.jsonl").read_bytes().splitlines()) == 1


def test_a_draft_is_not_lost(world: World) -> None:
    parentage.declare(world.root / "a", world.recipe([], []), parents={})

    with pytest.raises(UsageError, match="would lose"):
        observe(world, "a")


def test_links_are_refused_before_anything_is_written(world: World) -> None:
    (world.root / "a" / "link.json").symlink_to("model.safetensors")

    with pytest.raises(FileSetError, match="no links"):
        observe(world, "a")
    assert not (world.root / "a" / ".parentage").exists()


def test_the_command(world: World) -> None:
    (world.root / "k.key").write_bytes(world.key.to_pem(None))
    done = command("sign", world.root / "a", "--key", world.root / "k.key")
    assert done.returncode == 2
    assert "--observed" in done.stderr

    done = command("sign", world.root / "a", "--key", world.root / "k.key", "--observed")
    assert done.returncode == 0, done.stderr
    assert world.verify("a", [], level="integrity").verified
