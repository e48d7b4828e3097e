"""Small Qwen2 models with tied embeddings, tokenizers and adapters, and the real mergekit on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mergekit_world import executable, run_mergekit
from safetensors.torch import save_file

from parentage.manifest.mergekit import load_config
from parentage.manifest.model import open_model
from parentage.manifest.recipe import Recipe
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
from parentage.verify.verdict import TensorResult

LAYERS, HIDDEN, WORDS = 2, 64, 300
VERSIONS = ("0.1.5", "0.1.4")
#: Folders of models and adapters; the first three share one vocabulary.
MODELS = ("tied", "sibling", "untied", "shuffled", "wider")
ADAPTERS = ("lora", "rslora")

CASES: dict[str, str] = {
    "tied": """
merge_method: linear
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @sibling, parameters: {weight: 0.4}}]
""",
    "tied-and-untied": """
merge_method: linear
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @untied, parameters: {weight: 0.4}}]
""",
    "tied-base": """
merge_method: task_arithmetic
base_model: @sibling
dtype: bfloat16
models: [{model: @untied, parameters: {weight: 0.6}}, {model: @tied, parameters: {weight: 0.4}}]
""",
    "tied-layers": """
merge_method: passthrough
dtype: bfloat16
slices:
  - sources: [{model: @untied, layer_range: [0, 1]}]
  - sources: [{model: @tied, layer_range: [1, 2]}]
""",
    "lora": """
merge_method: linear
dtype: bfloat16
models:
  - {model: "@tied+@lora", parameters: {weight: 0.6}}
  - {model: @sibling, parameters: {weight: 0.4}}
""",
    "lora-twice": """
merge_method: slerp
base_model: {model: {path: @tied}, lora: {path: @rslora}}
dtype: bfloat16
models:
  - model: {model: {path: @tied}, lora: {path: @rslora}}
  - model: "@sibling+@lora"
parameters: {t: 0.4}
""",
    "lora-bf16": """
merge_method: linear
dtype: bfloat16
models:
  - {model: "@sibling+@rslora", parameters: {weight: 0.6}}
  - {model: @tied, parameters: {weight: 0.4}}
""",
    "lora-fp32": """
merge_method: linear
dtype: bfloat16
models:
  - {model: "@untied+@lora", parameters: {weight: 0.6}}
  - {model: @tied, parameters: {weight: 0.4}}
""",
    "lora-alone": """
merge_method: passthrough
models: [{model: "@untied+@rslora"}]
""",
    "modules": """
merge_method: linear
dtype: bfloat16
modules:
  default:
    models:
      - {model: @tied, parameters: {weight: 0.6}}
      - {model: @sibling}
    parameters: {weight: 0.3}
""",
    "modules-slices": """
merge_method: linear
dtype: bfloat16
modules:
  default:
    slices:
      - sources:
          - {model: @tied, layer_range: [0, 2], parameters: {weight: 0.6}}
          - {model: @sibling, layer_range: [0, 2]}
    parameters: {weight: [0.3, 0.5]}
""",
    "slice-base": """
merge_method: task_arithmetic
dtype: bfloat16
slices:
  - base_model: @sibling
    sources:
      - {model: @tied, layer_range: [0, 2], parameters: {weight: 0.6}}
      - {model: @sibling, layer_range: [0, 2]}
""",
    "vocabulary-base": """
merge_method: linear
base_model: @tied
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @shuffled, parameters: {weight: 0.4}}]
tokenizer_source: base
""",
    "vocabulary-model": """
merge_method: linear
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @shuffled, parameters: {weight: 0.4}}]
tokenizer_source: @shuffled
""",
    "vocabulary-same": """
merge_method: linear
dtype: bfloat16
base_model: @tied
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @untied, parameters: {weight: 0.4}}]
tokenizer: {source: base}
""",
    "vocabulary-union": """
merge_method: linear
base_model: @tied
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @shuffled, parameters: {weight: 0.4}}]
tokenizer_source: union
""",
    "vocabulary-three": """
merge_method: linear
base_model: @tied
dtype: float32
out_dtype: bfloat16
models:
  - {model: @tied, parameters: {weight: 0.6}}
  - {model: @shuffled, parameters: {weight: 0.4}}
  - {model: @wider, parameters: {weight: 0.4}}
tokenizer: {source: union}
""",
    "vocabulary-tokens": """
merge_method: task_arithmetic
base_model: @tied
dtype: bfloat16
models: [{model: @shuffled, parameters: {weight: 0.4}}]
tokenizer:
  source: @tied
  tokens:
    "<new>": {source: {kind: model_token, model: @shuffled, token: w3}}
    "w5": {source: @shuffled, force: true}
    "w220": {source: {kind: model_token, model: @tied, token_id: 7}, force: true}
""",
    "vocabulary-zero": """
merge_method: linear
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @shuffled, parameters: {weight: 0.4}}]
tokenizer:
  source: @tied
  tokens: {"<nil>": {source: {kind: zero}}}
""",
    "vocabulary-padded": """
merge_method: linear
base_model: @tied
dtype: bfloat16
models: [{model: @tied, parameters: {weight: 0.6}}, {model: @shuffled, parameters: {weight: 0.4}}]
tokenizer: {source: union, pad_to_multiple_of: 64}
""",
}
#: What mergekit 0.1.4 fails on.
NOT_IN_014 = frozenset({"vocabulary-zero"})
#: Options of a run that are not in its YAML.
OPTIONS: dict[str, dict[str, Any]] = {
    "lora-bf16": {"lora_merge_dtype": "bfloat16"},
    "lora-fp32": {"lora_merge_dtype": "float32"},
}


def make(root: Path) -> Path:
    """Write the models and adapters."""
    generator = torch.Generator().manual_seed(5)
    common = [f"w{i}" for i in range(WORDS)]
    vocabularies = {
        "tied": common,
        "sibling": common,
        "untied": common,
        "shuffled": ["only-here", *reversed(common[:200]), *common[230:], "also-here"],
        "wider": [*common[100:], *(f"x{i}" for i in range(40)), "also-here"],
    }
    start = _weights(len(common), generator)
    for number, (name, words) in enumerate(vocabularies.items()):
        folder = root / name
        folder.mkdir()
        weights = {
            k: v + 0.002 * number * torch.randn(v.shape, generator=generator)
            for k, v in start.items()
        }
        weights["model.embed_tokens.weight"] = 0.05 * torch.randn(
            (len(words) + 1, HIDDEN), generator=generator
        )
        if name == "untied":
            weights["lm_head.weight"] = 0.05 * torch.randn(
                (len(words) + 1, HIDDEN), generator=generator
            )
        save_file(
            {k: v.to(torch.bfloat16) for k, v in weights.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
        _companions(folder, words, tied=name != "untied")
    for name in ADAPTERS:
        _adapter(root / name, rs_lora=name == "rslora", generator=generator)
    return root


def _weights(words: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words + 1, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        for part in "qkv":
            shapes[f"{at}.self_attn.{part}_proj.bias"] = (HIDDEN,)
        for part in "qkvo":
            shapes[f"{at}.self_attn.{part}_proj.weight"] = (HIDDEN, HIDDEN)
        for part in ("gate", "up"):
            shapes[f"{at}.mlp.{part}_proj.weight"] = (2 * HIDDEN, HIDDEN)
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, 2 * HIDDEN)
        for part in ("input", "post_attention"):
            shapes[f"{at}.{part}_layernorm.weight"] = (HIDDEN,)
    return {k: 0.05 * torch.randn(v, generator=generator) for k, v in shapes.items()}


def _companions(folder: Path, words: list[str], *, tied: bool) -> None:
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": len(words) + 1,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    end = {"id": len(words), "content": "<|endoftext|>", "special": True} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {word: i for i, word in enumerate(words)},
            "merges": [],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )


def _adapter(folder: Path, *, rs_lora: bool, generator: torch.Generator) -> None:
    folder.mkdir()
    targets = ["q_proj", "v_proj", "down_proj"]
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tied",
        "r": 8,
        "lora_alpha": 12,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "use_rslora": rs_lora,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    if rs_lora:
        config |= {
            "rank_pattern": {"v_proj": 4},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 20},
        }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for i in range(LAYERS):
        for part in targets:
            where = "mlp" if part == "down_proj" else "self_attn"
            rank = 4 if rs_lora and part == "v_proj" else 8
            inner = 2 * HIDDEN if part == "down_proj" else HIDDEN
            at = f"base_model.model.model.layers.{i}.{where}.{part}"
            tensors[f"{at}.lora_A.weight"] = 0.1 * torch.randn((rank, inner), generator=generator)
            tensors[f"{at}.lora_B.weight"] = 0.1 * torch.randn((HIDDEN, rank), generator=generator)
    dtype = torch.bfloat16 if rs_lora else torch.float32
    save_file(
        {k: v.to(dtype) for k, v in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )


def filled(text: str, root: Path) -> str:
    for name in (*MODELS, *ADAPTERS):
        text = text.replace(f"@{name}", str(root / name))
    return text


def merged(root: Path, version: str, case: str) -> tuple[Path, Path]:
    """Return a case's config and the real mergekit's output; the first call makes all of them."""
    if executable(version) is None:
        raise FileNotFoundError(f"mergekit {version} is not installed: make peers")
    jobs = []
    for name, text in CASES.items():
        if version == "0.1.4" and name in NOT_IN_014:
            continue
        config, out = root / f"{name}-{version}.yml", root / f"out-{name}-{version}"
        config.write_text(filled(text, root))
        options = {
            "lora_merge_cache": str(root / f"cache-{name}-{version}"),
            **OPTIONS.get(name, {}),
        }
        jobs.append({"config": str(config), "out": str(out), "seed": 3, "options": options})
    config, out = root / f"{case}-{version}.yml", root / f"out-{case}-{version}"
    if not out.exists():
        run_mergekit(version, root, jobs)
    return config, out


def imported(
    root: Path, version: str, case: str, edit: tuple[str, str] | None = None
) -> tuple[Recipe, Path]:
    config, out = merged(root, version, case)
    if edit is not None:
        text = config.read_text()
        config = root / f"edited-{case}.yml"
        config.write_text(text.replace(*edit))
    parents = {name: root / name for name in (*MODELS, *ADAPTERS)}
    lora_dtype = OPTIONS.get(case, {}).get("lora_merge_dtype")
    recipe = load_config(
        config, profile=f"mk-{version}", parents=parents, release=out, lora_dtype=lora_dtype
    )
    return recipe, out


def results(
    root: Path, version: str, case: str, edit: tuple[str, str] | None = None
) -> list[TensorResult]:
    """Import a case's config, bind it, and compare mergekit's output with it."""
    recipe, out = imported(root, version, case, edit)
    with open_model(out) as opened:
        stack = {hint.id: open_model(root / hint.id) for hint in recipe.parents}
        try:
            bound = bind(recipe.steps, {name: FileSource(m) for name, m in stack.items()})
            source = bound[recipe.steps[-1].id]
            release = FileSource(opened)
            assert dict(source.specs) == dict(release.specs), "other tensors, dtypes or shapes"
            return compare(Engine(torch.device("cpu"), 2), release, source)
        finally:
            for model in stack.values():
                model.files.close()
