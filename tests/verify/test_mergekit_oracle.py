"""Real mergekit output, imported from its YAML and recomputed: the rung that each method reaches."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from parentage.manifest.mergekit import load_config
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind
from parentage.verify.recompute import compare
from parentage.verify.sources import FileSource
from parentage.verify.verdict import TensorResult

pytestmark = pytest.mark.peer

#: The embeddings have more elements than mergekit's slerp takes in one piece (2^20).
MODELS = ("base", "left", "right", "wide")
LAYERS, HIDDEN, VOCABULARY = 3, 64, 20_000


def executable(version: str) -> Path:
    given = os.environ.get(f"PARENTAGE_MERGEKIT_{version.replace('.', '')}")
    path = Path(given) if given else Path(f".peers/mergekit-{version}/bin/mergekit-yaml").absolute()
    if not path.exists():
        pytest.skip(f"mergekit {version} is not installed: make peers")
    return path


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two siblings 3 % and 1 % away, half of the elements untouched, in bf16."""
    root = tmp_path_factory.mktemp("models")
    generator = torch.Generator().manual_seed(11)
    base = {
        name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes().items()
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
    for name, far in (("base", 0.0), ("left", 0.03), ("right", 0.01), ("wide", 0.02)):
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
    """Run the real mergekit and return its config and output."""
    tool = executable(version)
    config, out = models / f"{case}-{version}.yml", models / f"out-{case}-{version}"
    text = CASES[case]
    for name in MODELS:
        text = text.replace(f"@{name}", str(models / name))
    config.write_text(text)
    if not out.exists():
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "PYTHONPATH": "",
        }
        done = subprocess.run(
            [tool, config, out, "--no-copy-tokenizer", "--no-write-model-card"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return config, out


def results(
    models: Path, version: str, case: str, *, profile: str = "", edit: Any = None
) -> list[TensorResult]:
    config, out = merged(models, version, case)
    if edit is not None:
        config = models / f"edited-{case}.yml"
        config.write_text(edit((models / f"{case}-{version}.yml").read_text()))
    parents = {name: models / name for name in MODELS}
    recipe = load_config(config, profile=profile or f"mk-{version}", parents=parents)
    with open_model(out) as opened:
        stack = {hint.id: open_model(parents[hint.id]) for hint in recipe.parents}
        try:
            source = bind(recipe.steps, {name: FileSource(m) for name, m in stack.items()})["merge"]
            release = FileSource(opened)
            assert dict(source.specs) == dict(release.specs)
            return compare(Engine(torch.device("cpu"), 2), release, source)
        finally:
            for model in stack.values():
                model.files.close()


CASES = {
    "linear": """
merge_method: linear
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.4}}
""",
    "linear-three": """
merge_method: linear
dtype: bfloat16
models:
  - {model: @base, parameters: {weight: 0.5}}
  - {model: @left, parameters: {weight: 0.3}}
  - {model: @right, parameters: {weight: 0.4}}
""",
    "linear-fp32": """
merge_method: linear
dtype: float32
out_dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.7}}
  - {model: @right, parameters: {weight: 0.5}}
parameters: {normalize: false}
""",
    "linear-gradient": """
merge_method: linear
dtype: bfloat16
models:
  - model: @left
    parameters:
      weight: [{filter: mlp, value: [0.1, 0.35, 0.9]}, {value: 0.35}]
  - {model: @right, parameters: {weight: 0.65}}
""",
    "task": """
merge_method: task_arithmetic
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.5}}
""",
    "task-lambda": """
merge_method: task_arithmetic
base_model: @base
dtype: bfloat16
models:
  - {model: @left, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: 0.5}}
parameters: {normalize: true, lambda: 0.8}
""",
    "slerp": """
merge_method: slerp
base_model: @left
dtype: bfloat16
models: [{model: @left}, {model: @right}]
parameters: {t: 0.35}
""",
    "slerp-gradient": """
merge_method: slerp
base_model: @left
dtype: bfloat16
slices:
  - sources: [{model: @left, layer_range: [0, 3]}, {model: @right, layer_range: [0, 3]}]
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 0.3, 1]}, {filter: mlp, value: [1, 0.5, 0]}, {value: 0.5}]
""",
    "linear-fp16": """
merge_method: linear
dtype: float16
models:
  - {model: @left, parameters: {weight: 1.3}}
  - {model: @wide, parameters: {weight: -0.4}}
""",
    "linear-no-dtype": """
merge_method: linear
models:
  - {model: @left, parameters: {weight: 0.35}}
  - {model: @right, parameters: {weight: 0.45}}
""",
    "linear-mixed": """
merge_method: linear
models:
  - {model: @wide, parameters: {weight: 0.35}}
  - {model: @right, parameters: {weight: 0.65}}
out_dtype: bfloat16
""",
    "task-fp32": """
merge_method: task_arithmetic
base_model: @base
dtype: float32
out_dtype: float16
models:
  - {model: @wide, parameters: {weight: 0.6}}
  - {model: @right, parameters: {weight: -0.3}}
""",
    "slerp-fp32": """
merge_method: slerp
base_model: @wide
dtype: float32
models: [{model: @wide}, {model: @right}]
parameters: {t: 0.62}
""",
    "passthrough": """
merge_method: passthrough
dtype: bfloat16
slices:
  - sources: [{model: @left, layer_range: [0, 2]}]
  - sources: [{model: @right, layer_range: [1, 3]}]
""",
}


@pytest.mark.parametrize("version", ["0.1.5", "0.1.4"])
@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("slerp")])
def test_elementwise_methods_reach_rung_a(models: Path, version: str, case: str) -> None:
    found = results(models, version, case)

    assert {result.rung for result in found} == {"A"}, [r for r in found if r.rung != "A"][:3]


@pytest.mark.parametrize("version", ["0.1.5", "0.1.4"])
@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("slerp")])
def test_slerp_is_never_refuted(models: Path, version: str, case: str) -> None:
    found = results(models, version, case)

    rungs = [result.rung for result in found]
    print(f"{version} {case}: {rungs.count('A')} of {len(rungs)} tensors on rung A")  # noqa: T201
    assert "refuted" not in rungs
    if version == "0.1.5":
        assert set(rungs) == {"A"}


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("linear", "0.6", "0.61"),
        ("linear", "0.4", "0.401"),
        ("task", "0.5", "0.51"),
        ("slerp", "0.35", "0.4"),
    ],
)
def test_a_false_ratio_is_refuted(models: Path, case: str, old: str, new: str) -> None:
    found = results(models, "0.1.5", case, edit=lambda text: text.replace(old, new))

    assert "refuted" in {result.rung for result in found}


def test_the_other_version_is_refuted(models: Path) -> None:
    found = results(models, "0.1.4", "linear", profile="mk-0.1.5")

    assert "refuted" in {result.rung for result in found}
