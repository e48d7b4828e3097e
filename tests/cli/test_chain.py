"""A chain of steps as a user runs it: fuse, merge, take a direction out; made, declared, verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from worlds import World, command

CHAIN = """
version: "0.1"
parents: [{id: a}, {id: b}, {id: directions}]
steps:
  - id: fused
    op: layout/v1
    inputs: [a]
    params:
      rules:
        - do: concatenate
          from: ["layers.{n}.q.weight", "layers.{n}.k.weight", "layers.{n}.v.weight"]
          to: "layers.{n}.qkv.weight"
  - id: merge
    op: weighted_sum/v1
    inputs: [fused, b]
    params: {weights: ["0.75", "0.25"], normalize: true}
    arithmetic: {profile: parentage-1, store: F32}
  - id: abliterated
    op: abliterate/v1
    inputs: [merge, directions]
    params: {rules: [{tensors: ["*.o.weight"], direction: refusal, side: left}]}
    arithmetic: {profile: parentage-1, store: BF16}
"""


def attention(seed: int, *, fused: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for n in range(2):
        parts = [torch.randn(size, 32, generator=generator) for size in (32, 16, 16)]
        if fused:
            found[f"layers.{n}.qkv.weight"] = torch.cat(parts)
        else:
            found |= {f"layers.{n}.{p}.weight": t for p, t in zip("qkv", parts, strict=True)}
        found[f"layers.{n}.o.weight"] = torch.randn(32, 32, generator=generator)
    return found


def expected(folder: Path) -> dict[str, torch.Tensor]:
    """The chain in numpy's float64, rounded where the recipe stores."""
    a, b = (load_file(folder / name / "model.safetensors") for name in "ab")
    r = load_file(folder / "directions" / "model.safetensors")["refusal"].double().numpy()
    r /= np.linalg.norm(r)
    out: dict[str, torch.Tensor] = {}
    for n in range(2):
        at = f"layers.{n}"
        qkv = torch.cat([a[f"{at}.{p}.weight"] for p in "qkv"]).double()
        out[f"{at}.qkv.weight"] = (qkv * 0.75 + b[f"{at}.qkv.weight"].double() * 0.25).float()
        o = (a[f"{at}.o.weight"].double() * 0.75 + b[f"{at}.o.weight"].double() * 0.25).float()
        wide = o.double().numpy()
        out[f"{at}.o.weight"] = torch.from_numpy(wide - np.outer(r, r @ wide)).bfloat16()
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    world = World(tmp_path)
    world.save("a", attention(1, fused=False))
    world.save("b", attention(2, fused=True))
    world.save(
        "directions", {"refusal": torch.randn(32, generator=torch.Generator().manual_seed(3))}
    )
    (tmp_path / "recipe.yaml").write_text(CHAIN)
    assert command("keygen", "-o", "release.key", "--no-passphrase", cwd=tmp_path).returncode == 0
    return tmp_path


NAMED = [f"--parent={name}={name}" for name in ("a", "b", "directions")]
GIVEN = [f"--parent={name}" for name in ("a", "b", "directions")]


def test_a_chain_is_merged_and_verified(folder: Path) -> None:
    made = command("merge", "recipe.yaml", "-o", "out", *NAMED, "--key", "release.key", cwd=folder)
    assert made.returncode == 0, made.stderr

    weights = load_file(folder / "out" / "model.safetensors")
    for name, tensor in expected(folder).items():
        assert torch.equal(weights[name], tensor), name
    shown = command("show", "out", cwd=folder).stdout
    assert "abliterate/v1" in shown
    verified = command("verify", "out", "--key", "release.pub", *GIVEN, cwd=folder)
    assert verified.returncode == 0, verified.stdout
    assert "A (exact)" in verified.stdout


def test_a_chain_is_declared_and_a_false_one_refuted(folder: Path) -> None:
    """Weights made by numpy, not by us."""
    for name, spoilt in (("honest", False), ("false", True)):
        weights = expected(folder)
        if spoilt:
            weights["layers.1.o.weight"][0, 0] += 1
        (folder / name).mkdir()
        save_file(weights, folder / name / "model.safetensors")
        declared = command("declare", name, "--recipe", "recipe.yaml", *NAMED, cwd=folder)
        assert declared.returncode == 0, declared.stderr
        assert command("sign", name, "--key", "release.key", cwd=folder).returncode == 0
        verified = command("verify", name, "--key", "release.pub", *GIVEN, cwd=folder)
        assert verified.returncode == (1 if spoilt else 0), verified.stdout
        assert ("layers.1.o.weight[0]" in verified.stdout) == spoilt


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("do: concatenate", "do: glue", "not a recipe"),
        ('"layers.{n}.qkv.weight"', '"qkv"', "different placeholders"),
        ("inputs: [merge, directions]", "inputs: [merge]", "wrong number of inputs"),
        ('"layers.{n}.v.weight"', '"layers.{n}.absent"', "no such tensor"),
        ("side: left", "side: top", "not a recipe"),
        ("direction: refusal", "direction: other", "direction does not fit"),
    ],
)
def test_recipes_that_can_not_be_say_why(folder: Path, old: str, new: str, problem: str) -> None:
    (folder / "recipe.yaml").write_text(CHAIN.replace(old, new))

    done = command("merge", "recipe.yaml", "-o", "out", *NAMED, cwd=folder)

    assert done.returncode == 1
    assert problem in done.stderr
    assert not (folder / "out").exists()
