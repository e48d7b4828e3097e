"""mergekit's sum of sparse task vectors, to the bit: weigh, elect signs, add, normalise.

The oracle is mergekit's own chain of torch kernels on stacked vectors (`by_kernels`). `by_bits` gives
the same bits faster where no number overflows: what is dropped, or does not agree with
the elected sign, is cleared by AND instead of multiplied by 0, and sums run over inputs in order, in
fp32 from +0, as torch's sum over up to four rows does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.verify import kernels, native, sparse_kernels
from parentage.verify.rounding import bits

#: Inputs up to which torch adds in order: its sum over rows keeps four running sums.
_IN_ORDER: Final = 4
#: Share of a dtype's largest number that no product or sum may reach.
_ROOM: Final = 2.0**-8


class Mix(msgspec.Struct, frozen=True):
    """How sparse task vectors of a tensor are added.

    Attributes:
        weights: one for each.
        elect: count an element only where its sign is that of the sum.
        normalize: divide by the weights that count.
        scale: mergekit's `lambda`.
        work: dtype of masks and rescaling.
    """

    weights: tuple[float, ...]
    elect: bool
    normalize: bool
    scale: float
    work: torch.dtype


def mixed(
    mix: Mix,
    base: Tensor,
    vectors: Sequence[Tensor],
    masks: Sequence[Tensor],
    scales: Sequence[float],
) -> Tensor:
    """Return base plus the sum of masked, rescaled and weighed vectors, in their dtype.

    Args:
        mix: how.
        base: flat, bf16, fp16, fp32 or fp64.
        vectors: of the same shape and dtype.
        masks: booleans.
        scales: what each vector is multiplied by after masking.
    """
    out = torch.empty_like(base)
    if base.numel() and added(mix, base, vectors, masks, scales, out) == base.numel():
        return out
    if _tame(mix, vectors, scales):
        return by_bits(mix, base, vectors, masks, scales)
    return by_kernels(mix, base, vectors, masks, scales)


def added(
    mix: Mix,
    base: Tensor,
    parts: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    scales: Sequence[float],
    out: Tensor,
    *,
    subtract: bool = False,
    compare: bool = False,
) -> int:
    """Do so by native.c where it can, and return how many elements from the first are done."""
    if mix.work != torch.bfloat16 or base.dtype != torch.bfloat16:
        return 0
    weights = _weights(mix, base)
    divisor = float(_divisor(weights.reshape(-1, 1))) if mix.normalize else 0.0
    rescale = torch.tensor(scales, dtype=mix.work).tolist()
    how = native.Sparse(rescale, weights.tolist(), mix.elect, divisor, mix.scale)
    return native.sparse(how, base, parts, masks, out, subtract=subtract, compare=compare)


def _tame(mix: Mix, vectors: Sequence[Tensor], scales: Sequence[float]) -> bool:
    """Say whether no step can overflow or meet NaN, so that multiplying by 0 is clearing."""
    if len(vectors) > _IN_ORDER or not vectors[0].numel() or vectors[0].dtype == torch.float64:
        return False
    limit = torch.finfo(vectors[0].dtype).max * _ROOM / len(vectors)
    factor = (
        max(1.0, *map(abs, mix.weights)) * max(1.0, *map(abs, scales)) * max(1.0, abs(mix.scale))
    )
    top = (1 << (8 * vectors[0].element_size() - 1)) - 1
    look = kernels.compiled(sparse_kernels.largest_pattern, vectors[0].device)
    block = kernels.block_of(vectors[0].device)
    largest = look([bits(vector) for vector in vectors], top, block).view(vectors[0].dtype)
    return float(largest) * factor < limit


def by_kernels(
    mix: Mix,
    base: Tensor,
    vectors: Sequence[Tensor],
    masks: Sequence[Tensor],
    scales: Sequence[float],
) -> Tensor:
    """Do as generalized_task_arithmetic.py of mergekit does, kernel by kernel."""
    each = zip(vectors, masks, scales, strict=True)
    sparse = torch.stack([_sparse(mix, vector, mask, scale) for vector, mask, scale in each])
    weights = _weights(mix, sparse).reshape(-1, *([1] * (sparse.dim() - 1)))
    sparse.mul_(weights)
    if mix.elect:
        positive = sparse.sum(dim=0) >= 0
        agrees = torch.where(positive, sparse > 0, sparse < 0)
        total = (sparse * agrees).sum(dim=0)
        divisor = (weights * agrees).sum(dim=0)
        divisor.masked_fill_(divisor == 0, 1)
    else:
        total, divisor = sparse.sum(dim=0), _divisor(weights)
    return _finished(mix, base, total, divisor)


def by_bits(
    mix: Mix,
    base: Tensor,
    vectors: Sequence[Tensor],
    masks: Sequence[Tensor],
    scales: Sequence[float],
) -> Tensor:
    """Return the same for numbers that are tame."""
    weights, block = _weights(mix, base), kernels.block_of(base.device)
    size = min(block, base.numel())
    held = [
        torch.empty(size, dtype=dtype, device=base.device)
        for dtype in (mix.work, *([base.dtype] * (2 * len(vectors) + 1)))
    ]
    # A sum of shares that is -0 would not be found to be nothing.
    weighed = bits(weights + 0.0).tolist() if mix.elect else []
    divisor = _divisor(weights.reshape(-1, 1)) if mix.normalize else weights[:0]
    run = kernels.compiled(sparse_kernels.sparse_sum, base.device)
    return run(
        base,
        [bits(vector.to(mix.work)) for vector in vectors],
        [mask.view(torch.int8) for mask in masks],
        [[torch.tensor(number, dtype=mix.work)] if number != 1.0 else [] for number in scales],
        list(weights),
        weighed,
        int(bits(torch.ones(1, dtype=base.dtype))),
        list(divisor),
        [torch.tensor(mix.scale, dtype=torch.float32)] if mix.scale != 1 else [],
        [[values, bits(values)] for values in held],
        torch.empty_like(base),
        block,
    )


def _finished(mix: Mix, base: Tensor, total: Tensor, divisor: Tensor) -> Tensor:
    if mix.normalize:
        total.div_(divisor)
    if mix.scale != 1:
        total.mul_(mix.scale)
    return base + total


def _weights(mix: Mix, like: Tensor) -> Tensor:
    return torch.tensor(mix.weights, dtype=like.dtype, device=like.device)


def _divisor(weights: Tensor) -> Tensor:
    divisor = weights.sum(dim=0)
    divisor[divisor.abs() < 1e-8] = 1
    return divisor


def _sparse(mix: Mix, vector: Tensor, mask: Tensor, scale: float) -> Tensor:
    left = vector.to(mix.work) * mask.to(mix.work)
    if scale != 1.0:
        left = left * torch.tensor(scale, dtype=mix.work)
    return left.to(vector.dtype)
