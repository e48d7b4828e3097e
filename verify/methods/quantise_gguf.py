"""quantise_gguf/v1: blocks of 32 as ggml's reference quantisers make them (ggml-quants.c).

All in fp32. A quotient that is NaN or infinite counts as 0 (C leaves that open; x86 does so).

Q8_0          d = max|x| / 127; id = 1 / d, 0 where d is 0; q = round(x id), ties away from zero.
              Stored: RN_fp16(d), then 32 x I8.
Q4_0          v = the first x of largest magnitude; d = v / -8; id likewise; q = min(15, trunc(x id + 8.5)).
              Stored: RN_fp16(d), then 16 bytes: q of element j below, of element 16 + j above.
ggml/unfused  x id is rounded before 8.5 is added (as the source has it, and gguf-py).
ggml/fma      one rounding: compilers that contract (gcc by default, with FMA).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.quantise_steps import QuantiseGguf
from parentage.manifest.tensor import BLOCKS, TensorSpec
from parentage.verify.methods.base import check_profile
from parentage.verify.methods.quantising import Quantising, halves_away, largest, whole
from parentage.verify.rounding import fma
from parentage.verify.values import Scratch, Source


class QuantiseGgufMethod(Quantising):
    """A bound quantise_gguf/v1."""

    def __init__(self, step: QuantiseGguf, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, ("ggml",))
        self._id, self._dtype = step.id, step.params.dtype
        self.variants = ("ggml/unfused", "ggml/fma") if self._dtype == "Q4_0" else ("ggml/unfused",)
        super().__init__(step.id, inputs[step.inputs[0]], step.params, self._become)

    def _become(self, spec: TensorSpec) -> Iterable[tuple[str, TensorSpec]]:
        per, _ = BLOCKS[self._dtype]
        if not spec.shape or spec.shape[-1] % per:
            raise ShapeMismatchError(
                "tensor has no whole blocks",
                where=f"step {self._id}: {spec.name}",
                expected=f"a last dimension in blocks of {per}",
                found=str(spec.shape),
            )
        yield "blocks", TensorSpec(spec.name, self._dtype, spec.shape)

    def compute(
        self, origin: str, part: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Tensor:
        """Return bytes [start, stop) of a tensor's blocks."""
        per, size = BLOCKS[self._dtype]
        first, last = start // size, -(-stop // size)
        values = self.source.read(origin, first * per, last * per, scratch)
        blocks = values.to(torch.float32).reshape(-1, per)
        d, q = _q8_0(blocks) if self._dtype == "Q8_0" else _q4_0(blocks, variant)
        found = torch.cat([d.to(torch.float16).view(torch.uint8), q.view(torch.uint8)], dim=1)
        return found.reshape(-1)[start - first * size : stop - first * size]


def _inverse(d: Tensor) -> Tensor:
    return torch.where(d == 0, torch.zeros_like(d), torch.ones_like(d) / d)


def _q8_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    d = largest(blocks)[:, None] / torch.full((1,), 127.0, device=blocks.device)
    scaled = blocks * _inverse(d)
    scaled = torch.where(scaled.isfinite(), scaled, torch.zeros_like(scaled))
    return d, whole(halves_away(scaled), torch.int8)


def _q4_0(blocks: Tensor, variant: str) -> tuple[Tensor, Tensor]:
    at = blocks.abs().argmax(dim=1, keepdim=True)
    d = blocks.gather(1, at) / torch.full((1,), -8.0, device=blocks.device)
    inverse = _inverse(d).expand_as(blocks)
    if variant == "ggml/fma":
        moved = fma(torch.full_like(blocks, 8.5), blocks, inverse)
    else:
        moved = blocks * inverse + 8.5
    moved = torch.where(moved.isfinite(), moved, torch.zeros_like(moved))
    low, high = whole(moved.trunc().clamp(0, 15), torch.uint8).chunk(2, dim=1)
    return d, low | (high << 4)


def quantise_gguf(step: QuantiseGguf, inputs: Mapping[str, Source]) -> QuantiseGgufMethod:
    """Bind quantise_gguf/v1."""
    return QuantiseGgufMethod(step, inputs)
