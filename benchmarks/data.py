"""Synthetic checkpoints of real size, made fast and removed afterwards."""

from __future__ import annotations

import json
import random
from pathlib import Path

from parentage.manifest.tensor import TensorSpec
from parentage.manifest.writer import plan_shards, write_file, write_index


def block(seed: int) -> bytes:
    """Return 1 MiB of random bf16 numbers around 0.02: exponents of real weights."""
    generator = random.Random(seed)
    low = generator.randbytes(1 << 19)
    high = bytes(0x3C if byte & 1 else 0xBC for byte in generator.randbytes(1 << 19))
    return bytes(value for pair in zip(low, high, strict=True) for value in pair)


def checkpoint(
    folder: Path, layers: int, hidden: int, *, seed: int, shard_bytes: int
) -> list[Path]:
    """Write a Llama-shaped bf16 checkpoint; blocks differ by a stamp, so no two are equal."""
    folder.mkdir(parents=True)
    specs = [TensorSpec("model.embed_tokens.weight", "BF16", (32000, hidden))]
    for i in range(layers):
        at = f"model.layers.{i}"
        specs += [
            TensorSpec(f"{at}.self_attn.{p}_proj.weight", "BF16", (hidden, hidden)) for p in "qkvo"
        ]
        specs += [
            TensorSpec(f"{at}.mlp.{p}_proj.weight", "BF16", (4 * hidden, hidden))
            for p in ("gate", "up")
        ]
        specs.append(TensorSpec(f"{at}.mlp.down_proj.weight", "BF16", (hidden, 4 * hidden)))
        specs += [
            TensorSpec(f"{at}.{p}_layernorm.weight", "BF16", (hidden,))
            for p in ("input", "post_attention")
        ]
    specs += [
        TensorSpec("model.norm.weight", "BF16", (hidden,)),
        TensorSpec("lm_head.weight", "BF16", (32000, hidden)),
    ]
    base = block(seed)
    shards = plan_shards(specs, shard_bytes)
    for name, part in shards.items():
        write_file(folder / name, part, _pieces(part, base), {"format": "pt"})
    write_index(folder, shards)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 64,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return sorted(folder.glob("*.safetensors"))


def _pieces(specs: list[TensorSpec], base: bytes):
    number = 0
    for spec in specs:
        left = spec.nbytes
        while left:
            number += 1
            stamp = number.to_bytes(3, "little")
            piece = (bytes((stamp[0], 0x3C, stamp[1], 0x3C, stamp[2], 0x3C)) + base[6:])[
                : min(left, len(base))
            ]
            left -= len(piece)
            yield piece


def many_files(folder: Path, files: int, megabytes: int) -> int:
    """Write a checkpoint of that many shards of that size, four tensors each; return its bytes."""
    folder.mkdir(parents=True)
    shape = (megabytes << 18 >> 10, 512)  # a quarter of a shard
    specs = [
        TensorSpec(f"layers.{number}.{part}.weight", "BF16", shape)
        for number in range(files)
        for part in ("q", "k", "v", "o")
    ]
    base = block(7)
    shards = plan_shards(specs, megabytes << 20)
    for name, part in shards.items():
        write_file(folder / name, part, _pieces(part, base), {"format": "pt"})
    write_index(folder, shards)
    (folder / "config.json").write_text("{}")
    return sum(path.stat().st_size for path in folder.iterdir())
