"""A BERT encoder in 60 lines, enough to really fine-tune all-MiniLM-L6-v2 on a CPU.

Weights are a plain dictionary in the checkpoint's own names, so what is trained is what is saved.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

LAYERS, HEADS, LENGTH = 6, 12, 32
TRAINABLE = ("embeddings.*_embeddings.weight", "embeddings.LayerNorm.*", "encoder.*")


class Tokenizer:
    """Greedy WordPiece over the checkpoint's vocabulary."""

    def __init__(self, vocabulary: Path) -> None:
        words = vocabulary.read_text(encoding="utf-8").splitlines()
        self._ids = {word: number for number, word in enumerate(words)}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return ids, shape (texts, LENGTH), padded with 0."""
        rows = [[self._ids["[CLS]"], *self._pieces(text)][: LENGTH - 1] for text in texts]
        padded = [[*row, self._ids["[SEP]"], *[0] * (LENGTH - 1 - len(row))] for row in rows]
        return torch.tensor(padded)

    def _pieces(self, text: str) -> list[int]:
        found: list[int] = []
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            start = 0
            while start < len(word):
                prefix = "##" if start else ""
                end = next(
                    (e for e in range(len(word), start, -1) if prefix + word[start:e] in self._ids),
                    0,
                )
                if not end:
                    found.append(self._ids["[UNK]"])
                    break
                found.append(self._ids[prefix + word[start:end]])
                start = end
        return found


def embed(weights: dict[str, Tensor], ids: Tensor, dropout: float) -> Tensor:
    """Return one unit vector for each row of `ids`: mean of the last layer over real tokens."""

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    batch, length = ids.shape
    mask = ids != 0
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][:length]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{part}").view(batch, length, HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        seen = linear(
            seen.transpose(1, 2).reshape(batch, length, -1), f"{at}.attention.output.dense"
        )
        x = norm(x + functional.dropout(seen, dropout), f"{at}.attention.output.LayerNorm")
        inner = linear(functional.gelu(linear(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
        x = norm(x + functional.dropout(inner, dropout), f"{at}.output.LayerNorm")
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return functional.normalize(pooled, dim=1)


def fine_tune(
    weights: dict[str, Tensor],
    texts: Sequence[str],
    tokenizer: Tokenizer,
    *,
    steps: int,
    seed: int,
    rate: float,
    decay: float,
) -> tuple[dict[str, Tensor], float, float]:
    """Train with the contrastive loss of SimCSE (Gao et al. 2021) and AdamW.

    Returns:
        the trained weights, the loss of the first step and that of the last.
    """
    torch.manual_seed(seed)
    names = [
        n
        for n in weights
        if n.startswith("encoder.")
        or (n.startswith("embeddings.") and weights[n].is_floating_point())
    ]
    trained = {n: w.clone().requires_grad_(n in names) for n, w in weights.items()}
    optimizer = torch.optim.AdamW(
        [trained[n] for n in names], lr=rate, betas=(0.9, 0.999), weight_decay=decay
    )
    losses: list[float] = []
    for step in range(steps):
        picked = [texts[(step * 16 + i) % len(texts)] for i in range(16)]
        ids = tokenizer(picked)
        left, right = embed(trained, ids, 0.1), embed(trained, ids, 0.1)
        loss = functional.cross_entropy(left @ right.T / 0.05, torch.arange(16))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return {n: w.detach() for n, w in trained.items()}, losses[0], losses[-1]


def corpus() -> list[str]:
    """Return real English sentences that every Python carries: its own language reference."""
    from pydoc_data import topics

    text = " ".join(str(topics.topics[name]) for name in sorted(topics.topics))
    sentences = re.split(r"(?<=[.:])\s+", re.sub(r"\s+", " ", text))
    return [sentence for sentence in sentences if 40 < len(sentence) < 200]


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()
