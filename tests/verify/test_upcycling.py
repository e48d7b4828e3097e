"""MoE upcycling: what the real mergekit-moe writes, recomputed from dense models and a shipped router."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
import torch
from absent import absent
from mergekit_world import executable
from safetensors.torch import load_file, save_file
from worlds import World

import parentage

MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
LAYERS, HIDDEN, WIDE = 2, 32, 48

#: Run by mergekit's own Python: a tokenizer of one word, and `mergekit-moe` as a user calls it.
SCRIPT = """
import sys
from pathlib import Path
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from mergekit.scripts.moe import main

where = Path(sys.argv[1])
words = Tokenizer(WordLevel({"<s>": 0, "word": 1}, unk_token="<s>"))
PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="<s>").save_pretrained(where / "base")
for kind in ("mixtral", "qwen"):
    config = {"base_model": str(where / "base"), "gate_mode": "random", "dtype": "bfloat16", "architecture": kind,
              "experts": [{"source_model": str(where / name)} for name in ("base", "left", "right")]}
    if kind == "qwen":
        config["shared_experts"] = [{"source_model": str(where / "left")}]
    (where / f"{kind}.yml").write_text(yaml.safe_dump(config))
    main([str(where / f"{kind}.yml"), str(where / f"made-{kind}"), "--device", "cpu"], standalone_mode=False)
"""


def dense(world: World) -> None:
    """Three models without attention biases, which mergekit-moe takes for both layouts."""
    generator = torch.Generator().manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (64, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (64, HIDDEN),
    }
    for n in range(LAYERS):
        at = f"model.layers.{n}"
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
        shapes |= {f"{at}.mlp.{p}_proj.weight": (WIDE, HIDDEN) for p in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (HIDDEN, WIDE)}
        shapes |= {f"{at}.{p}_layernorm.weight": (HIDDEN,) for p in ("input", "post_attention")}
    for name in ("base", "left", "right"):
        made = {k: torch.randn(s, generator=generator).bfloat16() for k, s in shapes.items()}
        (world.root / name).mkdir(exist_ok=True)
        save_file(made, world.root / name / "model.safetensors", metadata={"format": "pt"})


def taken(name: str, number: str, words: dict[str, str]) -> list[dict[str, str]]:
    """The MLP of a dense model as an expert."""
    return [
        {
            "input": name,
            "from": f"model.layers.{{n}}.mlp.{dense_}.weight",
            "to": f"model.layers.{{n}}.mlp.{number}.{word}.weight",
        }
        for dense_, word in words.items()
    ]


def upcycled(words: dict[str, str], *, shared: bool) -> list[dict[str, Any]]:
    experts = [
        entry
        for number, name in enumerate(("base", "left", "right"))
        for entry in taken(name, f"experts.{number}", words)
    ]
    if shared:
        experts += taken("left", "shared_expert", words)
    return [
        {"id": "body", "op": "copy/v1", "inputs": ["base"], "params": {"exclude": ["*.mlp.*"]}},
        {
            "id": "moe",
            "op": "assemble/v1",
            "inputs": ["body", "router", "base", "left", "right"],
            "params": {"tensors": [{"input": "body"}, {"input": "router"}, *experts]},
        },
    ]


FUSED = [
    {
        "id": "pairs",
        "op": "layout/v1",
        "inputs": ["moe"],
        "params": {
            "rules": [
                {
                    "do": "concatenate",
                    "from": [
                        f"model.layers.{{n}}.mlp.experts.{{e}}.{w}.weight" for w in ("w1", "w3")
                    ],
                    "to": "model.layers.{n}.mlp.experts.{e}.w13",
                }
            ]
        },
    },
    {
        "id": "fused",
        "op": "layout/v1",
        "inputs": ["pairs"],
        "params": {
            "rules": [
                {
                    "do": "stack",
                    "from": f"model.layers.{{n}}.mlp.experts.{{e}}.{old}",
                    "to": f"model.layers.{{n}}.mlp.experts.{new}",
                }
                for old, new in (("w13", "gate_up_proj"), ("w2.weight", "down_proj"))
            ]
        },
    },
]
PARENTS = ["base", "left", "right", "router"]


def test_experts_in_both_layouts(world: World) -> None:
    """By numpy's words: attention of the base, MLPs of the experts, the router as shipped."""
    dense(world)
    router = {
        f"model.layers.{n}.mlp.gate.weight": torch.randn(
            3, HIDDEN, generator=torch.Generator().manual_seed(n)
        ).bfloat16()
        for n in range(LAYERS)
    }
    world.save("router", router)
    paths = {i: world.root / i for i in PARENTS}
    steps = upcycled(MIXTRAL, shared=False)
    parentage.merge(world.recipe(PARENTS, steps), world.root / "split", parents=paths)
    parentage.merge(world.recipe(PARENTS, steps + FUSED), world.root / "fused", parents=paths)
    split, fused = world.weights("split"), world.weights("fused")
    models = [world.weights(name) for name in ("base", "left", "right")]

    for n in range(LAYERS):
        at = f"model.layers.{n}.mlp"
        for e, model in enumerate(models):
            for old, new in MIXTRAL.items():
                assert torch.equal(
                    split[f"{at}.experts.{e}.{new}.weight"], model[f"{at}.{old}.weight"]
                )
        both = [torch.cat([m[f"{at}.gate_proj.weight"], m[f"{at}.up_proj.weight"]]) for m in models]
        assert torch.equal(fused[f"{at}.experts.gate_up_proj"], torch.stack(both))
        down = torch.stack([m[f"{at}.down_proj.weight"] for m in models])
        assert torch.equal(fused[f"{at}.experts.down_proj"], down)
        for weights in (split, fused):
            assert torch.equal(weights[f"{at}.gate.weight"], router[f"{at}.gate.weight"])
            name = f"model.layers.{n}.self_attn.q_proj.weight"
            assert torch.equal(weights[name], models[0][name])
    for name in ("split", "fused"):
        world.sign(name)
        assert world.verify(name, PARENTS).verified

    spoilt = fused | {"model.layers.1.mlp.experts.down_proj": down.flip(0).contiguous()}
    world.save("false", spoilt)
    world.declare("false", PARENTS, steps + FUSED)
    report = world.verify("false", PARENTS)
    assert report.verdict == "refuted"
    assert {f.where.partition("[")[0] for f in report.findings if f.refutes} == {
        "model.layers.1.mlp.experts.down_proj"
    }


CONFIG = {
    "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 64, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def made(world: World) -> World:
    """Both architectures that mergekit-moe knows, as `made-mixtral` and `made-qwen`."""
    tool = executable("0.1.5")
    if tool is None:
        absent("mergekit 0.1.5", "make peers")
    dense(world)
    text = CONFIG | {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    for name in ("base", "left", "right"):
        (world.root / name / "config.json").write_text(json.dumps(text))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [tool.parent / "python", "-c", SCRIPT, world.root],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return world


@pytest.mark.peer
def test_what_mergekit_moe_writes(made: World) -> None:
    """Its random routers, and the zero biases that it gives Qwen MoE, are data."""
    for kind, steps in (
        ("mixtral", upcycled(MIXTRAL, shared=False) + FUSED),
        ("qwen", upcycled({name: name for name in MIXTRAL}, shared=True)),
    ):
        release = made.root / f"made-{kind}"
        weights: dict[str, torch.Tensor] = {}
        for path in release.glob("*.safetensors"):
            weights |= load_file(path)
        shipped = ("gate.weight", "shared_expert_gate.weight", ".bias")
        made.save("router", {name: t for name, t in weights.items() if name.endswith(shipped)})

        made.declare(release.name, PARENTS, steps)
        report = made.verify(release.name, PARENTS)
        assert (report.verdict, report.reached) == ("verified", "A (exact)")

        swapped = json.loads(json.dumps(steps).replace('"left"', '"other"'))
        swapped = json.loads(json.dumps(swapped).replace('"right"', '"left"'))
        swapped = json.loads(json.dumps(swapped).replace('"other"', '"right"'))
        made.declare(release.name, PARENTS, swapped)
        codes = {f.code for f in made.verify(release.name, PARENTS).findings if f.refutes}
        assert codes == {"recipe-mismatch"}
