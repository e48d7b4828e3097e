"""Models, the real mergekit that merges them, and its output recomputed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from mergekit_cases import CASES, NOT_IN_014, SEED
from safetensors.torch import save_file

from parentage.manifest.mergekit import load_config
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
from parentage.verify.verdict import TensorResult

#: The embeddings have more elements than mergekit's slerp takes in one piece (2^20).
MODELS = ("base", "left", "right", "wide", "far")
LAYERS, HIDDEN, VOCABULARY = 3, 64, 20_000


def executable(version: str) -> Path | None:
    """Return the mergekit-yaml of a version, where it is installed (`make peers`)."""
    given = os.environ.get(f"PARENTAGE_MERGEKIT_{version.replace('.', '')}")
    path = Path(given) if given else Path(f".peers/mergekit-{version}/bin/mergekit-yaml").absolute()
    return path if path.exists() else None


def shapes(head: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (head, HIDDEN),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for part in "qkvo":
            found[f"{at}.self_attn.{part}_proj.weight"] = (HIDDEN, HIDDEN)
        for part in ("gate", "up"):
            found[f"{at}.mlp.{part}_proj.weight"] = (2 * HIDDEN, HIDDEN)
        found[f"{at}.mlp.down_proj.weight"] = (HIDDEN, 2 * HIDDEN)
        for part in ("input", "post_attention"):
            found[f"{at}.{part}_layernorm.weight"] = (HIDDEN,)
    return found


def make_models(root: Path, head: int = VOCABULARY) -> Path:
    """A base and siblings 1 to 60 % away, half of the elements untouched, in bf16 and fp32.

    `head` are the rows of the last tensor, the second of two large ones.
    """
    generator = torch.Generator().manual_seed(11)
    base = {
        name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes(head).items()
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    for name, far in (("base", 0.0), ("left", 0.03), ("right", 0.01), ("wide", 0.02), ("far", 0.6)):
        moved = {}
        for key, value in base.items():
            mask = torch.rand(value.shape, generator=generator) < 0.5
            noise = far * value.std() * torch.randn(value.shape, generator=generator) * mask
            moved[key] = (value + noise).to(torch.float32 if name == "wide" else torch.bfloat16)
        (root / name).mkdir()
        save_file(moved, root / name / "model.safetensors", metadata={"format": "pt"})
        (root / name / "config.json").write_text(json.dumps(config))
    return root


def merged(models: Path, version: str, case: str) -> tuple[Path, Path]:
    """Return a case's config and the real mergekit's output; the first call makes all of them."""
    if executable(version) is None:
        raise FileNotFoundError(f"mergekit {version} is not installed: make peers")
    jobs = []
    for name, text in CASES.items():
        if version == "0.1.4" and name.partition("-")[0] in NOT_IN_014:
            continue
        config, out = places(models, version, name)
        config.write_text(filled(text, models))
        seed = None if name.endswith("-unseeded") else SEED
        threads = 2 if name.endswith("-threads") else 1
        jobs.append({"config": str(config), "out": str(out), "seed": seed, "threads": threads})
    config, out = places(models, version, case)
    if not out.exists():
        run_mergekit(version, models, jobs)
    return config, out


def places(models: Path, version: str, case: str) -> tuple[Path, Path]:
    return models / f"{case}-{version}.yml", models / f"out-{case}-{version}"


def filled(text: str, models: Path) -> str:
    for name in MODELS:
        text = text.replace(f"@{name}", str(models / name))
    return text


def run_mergekit(version: str, folder: Path, jobs: list[dict[str, Any]]) -> None:
    """Run merges with a version's own Python, one thread unless a job says otherwise."""
    tool = executable(version)
    assert tool is not None
    listed = folder / f"jobs-{version}.json"
    listed.write_text(json.dumps(jobs))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [tool.parent / "python", Path(__file__).with_name("mergekit_batch.py"), listed],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def results(
    models: Path, version: str, case: str, *, profile: str = "", edit: Any = None, rung: str = "A"
) -> list[TensorResult]:
    """Import a case's config, bind it, and compare mergekit's output with it."""
    config, out = merged(models, version, case)
    if edit is not None:
        config = models / f"edited-{case}.yml"
        config.write_text(edit((models / f"{case}-{version}.yml").read_text()))
    parents = {name: models / name for name in MODELS}
    seed = None if case.endswith("-unseeded") else SEED
    recipe = load_config(config, profile=profile or f"mk-{version}", parents=parents, seed=seed)
    with open_model(out) as opened:
        stack = {hint.id: open_model(parents[hint.id]) for hint in recipe.parents}
        try:
            source = bind(recipe.steps, {name: FileSource(m) for name, m in stack.items()})["merge"]
            release = FileSource(opened)
            assert dict(source.specs) == dict(release.specs), "other tensors, dtypes or shapes"
            return compare(Engine(torch.device("cpu"), 2), release, source, rung=rung)
        finally:
            for model in stack.values():
                model.files.close()
