"""Models at any distance from one another, merged by the real mergekit, their merges recomputed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from mergekit_cases import CASES, NOT_IN_014, SEED
from mergekit_world import MODELS, filled, run_mergekit
from safetensors.torch import save_file

from parentage.manifest.mergekit import load_config
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
from parentage.verify.verdict import TensorResult

LAYERS = 2


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Four siblings.

    Attributes:
        seed: of their weights.
        far: distance of siblings from the base, in its standard deviations; 1: nothing in common.
        touched: share of elements in which siblings differ.
        dtype: of base, left and right; "wide" is fp32.
        hidden, vocabulary: sizes.
        threads: that mergekit runs with.
    """

    seed: int = 1
    far: float = 0.01
    touched: float = 0.5
    dtype: str = "bfloat16"
    hidden: int = 48
    vocabulary: int = 1500
    threads: int = 1


FAMILIES: dict[str, Family] = {
    "0.1 %": Family(seed=1, far=0.001, touched=1.0, threads=2),
    "1 %": Family(seed=2, far=0.01, hidden=40, vocabulary=997),
    "10 %": Family(seed=3, far=0.1, dtype="float16", threads=2),
    "strangers": Family(seed=4, far=1.0, touched=1.0, dtype="float32", hidden=32, threads=2),
}


def make_family(root: Path, family: Family) -> Path:
    """Write the four models as mergekit reads them."""
    root.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(family.seed)
    base = {
        name: 0.05 * torch.randn(shape, generator=generator)
        for name, shape in _shapes(family).items()
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": family.hidden,
        "intermediate_size": 2 * family.hidden,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": family.vocabulary,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": family.dtype,
    }
    for name in MODELS:
        moved = {}
        for key, value in base.items():
            mask = torch.rand(value.shape, generator=generator) < family.touched
            noise = 0.05 * torch.randn(value.shape, generator=generator)
            if name == "base":
                found = value
            elif family.far >= 1:
                found = noise
            else:
                found = value + family.far * noise * mask
            moved[key] = found.to(torch.float32 if name == "wide" else getattr(torch, family.dtype))
        (root / name).mkdir()
        save_file(moved, root / name / "model.safetensors", metadata={"format": "pt"})
        (root / name / "config.json").write_text(json.dumps(config))
    return root


def _shapes(family: Family) -> dict[str, tuple[int, ...]]:
    hidden, vocabulary = family.hidden, family.vocabulary
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for part in "qkvo":
            found[f"{at}.self_attn.{part}_proj.weight"] = (hidden, hidden)
        for part in ("gate", "up"):
            found[f"{at}.mlp.{part}_proj.weight"] = (2 * hidden, hidden)
        found[f"{at}.mlp.down_proj.weight"] = (hidden, 2 * hidden)
        for part in ("input", "post_attention"):
            found[f"{at}.{part}_layernorm.weight"] = (hidden,)
    return found


def usable(version: str) -> list[str]:
    """Return the cases that a version can run on these models: two layers, no third slice."""
    return [
        name
        for name in CASES
        if not (version == "0.1.4" and name.partition("-")[0] in NOT_IN_014)
        and name not in {"passthrough", "passthrough-scale", "linear-moved", "slerp-gradient"}
    ]


def jobs_of(version: str, models: Path, names: list[str], threads: int) -> list[dict[str, Any]]:
    """Write the configs of cases, and return what the real mergekit is to do with them."""
    jobs = []
    for name in names:
        config = models / f"{name}-{version}.yml"
        config.write_text(filled(CASES[name], models))
        seed = None if name.endswith("-unseeded") else SEED
        out = models / f"out-{name}-{version}"
        jobs.append({"config": str(config), "out": str(out), "seed": seed, "threads": threads})
    return jobs


def merge_all(version: str, models: Path, names: list[str], threads: int) -> None:
    """Run the real mergekit on cases, in one interpreter."""
    run_mergekit(version, models, jobs_of(version, models, names, threads))


@contextmanager
def opened(paths: Mapping[str, Path]) -> Iterator[dict[str, FileSource]]:
    """Open models, and close them."""
    models = {name: open_model(path) for name, path in paths.items()}
    try:
        yield {name: FileSource(model) for name, model in models.items()}
    finally:
        for model in models.values():
            model.files.close()


def recomputed(
    models: Path, config: Path, release: Path, profile: str, seed: int | None, **more: Any
) -> list[TensorResult]:
    """Compare a release with what a config says, imported and bound."""
    swapped: Mapping[str, str] = more.get("parents", {})
    parents = {name: models / swapped.get(name, name) for name in MODELS}
    recipe = load_config(
        config, profile=profile, parents={name: models / name for name in MODELS}, seed=seed
    )
    used = {hint.id: parents[hint.id] for hint in recipe.parents}
    with opened(used) as sources, opened({"release": release}) as found:
        step = bind(recipe.steps, sources)["merge"]
        return compare(Engine(torch.device("cpu"), 2), found["release"], step)
