"""Small checkpoints with the names of Stable Diffusion 1, and their mergers' own formulas in torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from parentage.manifest.model import open_model
from parentage.manifest.recipe import Recipe
from parentage.manifest.sd_merge import POSITIONS
from parentage.manifest.sd_recipe import load_sd_recipe
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
from parentage.verify.verdict import TensorResult

State = dict[str, torch.Tensor]
DTYPES = {"a": torch.float16, "b": torch.float16, "c": torch.float32, "d": torch.float32}
NAMES = [
    "model.diffusion_model.time_embed.0.weight",
    *(f"model.diffusion_model.input_blocks.{n}.0.weight" for n in range(12)),
    *(f"model.diffusion_model.middle_block.{n}.bias" for n in range(2)),
    *(f"model.diffusion_model.output_blocks.{n}.1.norm.weight" for n in range(12)),
    "model.diffusion_model.out.0.weight",
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    "first_stage_model.decoder.conv_in.weight",
    "model_ema.decay",
]


def make(root: Path) -> Path:
    """Write checkpoints a to d; only `a` has a tensor that the others lack, only `b` another."""
    generator = torch.Generator().manual_seed(8)
    for number, (name, dtype) in enumerate(DTYPES.items()):
        state: State = {
            key: (0.1 + 0.02 * number) * torch.randn((24, 33), generator=generator) for key in NAMES
        }
        state = {key: value.to(dtype) for key, value in state.items()}
        state[POSITIONS] = torch.arange(77).reshape(1, 77) + number
        state["model_ema.num_updates"] = torch.tensor(5 + number, dtype=torch.int32)
        state["alphas_cumprod"] = torch.randn(10, generator=generator)
        if name in "ab":
            state[f"model.diffusion_model.only_{name}.weight"] = torch.ones(4, dtype=dtype)
        save(root / f"{name}.safetensors", state, {"format": "pt"})
    return root


def save(path: Path, state: State, metadata: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata=metadata)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def webui(a: State, b: State, c: State | None, multiplier: float, *, half: bool) -> State:
    """The loops of run_modelmerger as its documentation words them: A(1-M) + BM, A + (B-C)M."""
    b = dict(b)
    if c is not None:
        for key in b:
            if key != POSITIONS and "model" in key:
                b[key] = b[key] - c[key] if key in c else torch.zeros_like(b[key])
    out = dict(a)
    for key in a:
        if "model" not in key or key not in b or key == POSITIONS:
            continue
        if c is None:
            out[key] = ((1 - multiplier) * a[key]) + (multiplier * b[key])
        else:
            out[key] = a[key] + (multiplier * b[key])
        if half and out[key].dtype == torch.float32:
            out[key] = out[key].half()
    return out


def supermerger(
    a: State, b: State, c: State | None, alpha: float, blocks: dict[str, float], *, lerp: bool
) -> State:
    """Weight sum and add difference with calcmode normal; `blocks` are alphas by a part of the name."""
    b = dict(b)
    kept = [k for k in b if "model" in k and ("weight" in k or "bias" in k)]
    if c is not None:
        for key in kept:
            b[key] = (
                (b[key].float() - c[key].float()).to(b[key].dtype)
                if key in c
                else torch.zeros_like(b[key])
            )
    out = dict(a)
    for key in kept:
        if key not in a:
            continue
        weight = next((v for part, v in blocks.items() if part in key), alpha)
        if c is not None:
            out[key] = a[key] + weight * b[key]
        elif weight == 1:
            out[key] = b[key]
        elif weight != 0 and lerp:
            out[key] = torch.lerp(a[key].float(), b[key].float(), weight).to(a[key].dtype)
        elif weight != 0:
            out[key] = (1 - weight) * a[key] + weight * b[key]
    return out | {key: b[key] for key in b if "model" in key and key not in a and key in kept}


def webui_recipe(
    root: Path, names: str, method: str, multiplier: float, **other: Any
) -> dict[str, Any]:
    keys = ("primary_model_hash", "secondary_model_hash", "tertiary_model_hash")
    hashes = {
        key: sha256(root / f"{name}.safetensors") for key, name in zip(keys, names, strict=False)
    }
    return {
        "type": "webui",
        **dict.fromkeys(keys),
        **hashes,
        "interp_method": method,
        "multiplier": multiplier,
        "save_as_half": False,
        "custom_name": "",
        "config_source": 0,
        "bake_in_vae": "None",
        "discard_weights": "",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
        **other,
    }


def supermerger_recipe(
    root: Path, names: str, mode: str, alpha: float, **other: Any
) -> dict[str, Any]:
    keys = ("model_a", "model_b", "model_c")
    hashes = {
        key: sha256(root / f"{name}.safetensors") for key, name in zip(keys, names, strict=False)
    }
    return {
        "type": "sd-webui-supermerger",
        "weights_alpha": None,
        "weights_beta": None,
        "weights_alpha_orig": None,
        "weights_beta_orig": None,
        **hashes,
        "base_alpha": alpha,
        "base_beta": 0.25,
        "mode": mode,
        "mbw": False,
        "elemental_merge": "",
        "calcmode": "normal",
        "Off": [],
        **other,
    }


def release(
    root: Path,
    name: str,
    state: State,
    recipe: dict[str, Any] | str,
    models: dict[str, Any] | None = None,
) -> Path:
    text = recipe if isinstance(recipe, str) else json.dumps(recipe)
    metadata = {
        "format": "pt",
        "sd_merge_recipe": text,
        "sd_merge_models": json.dumps(models or {}),
    }
    save(root / name / "model.safetensors", state, metadata)
    return root / name


def load(root: Path, name: str) -> State:
    return load_file(root / f"{name}.safetensors")


def recomputed(
    root: Path, folder: Path, names: str, recipe: Recipe | None = None
) -> list[TensorResult]:
    """Import what a release's header says, and compare the release with it."""
    parents = {name: root / f"{name}.safetensors" for name in names}
    recipe = recipe or load_sd_recipe(folder, parents=parents)
    opened = {hint.id: open_model(parents[hint.id]) for hint in recipe.parents}
    with open_model(folder) as made:
        try:
            sources = {name: FileSource(model) for name, model in opened.items()}
            step = bind(recipe.steps, sources)["merge"]
            found = FileSource(made)
            assert dict(step.specs) == dict(found.specs), "other tensors, dtypes or shapes"
            return compare(Engine(torch.device("cpu"), 2), found, step)
        finally:
            for model in opened.values():
                model.files.close()
