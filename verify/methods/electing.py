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

from parentage.verify.masking import kept
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
    if _tame(mix, vectors, scales):
        return by_bits(mix, base, vectors, masks, scales)
    return by_kernels(mix, base, vectors, masks, scales)


def _tame(mix: Mix, vectors: Sequence[Tensor], scales: Sequence[float]) -> bool:
    """Say whether no step can overflow or meet NaN, so that multiplying by 0 is clearing."""
    if len(vectors) > _IN_ORDER or not vectors[0].numel() or vectors[0].dtype == torch.float64:
        return False
    limit = torch.finfo(vectors[0].dtype).max * _ROOM / len(vectors)
    factor = (
        max(1.0, *map(abs, mix.weights)) * max(1.0, *map(abs, scales)) * max(1.0, abs(mix.scale))
    )
    top = (1 << (8 * vectors[0].element_size() - 1)) - 1
    for vector in vectors:
        largest = (bits(vector) & top).amax().view(vector.dtype)
        if not float(largest) * factor < limit:
            return False
    return True


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
    weights = _weights(mix, base)
    terms: list[Tensor] = []
    for vector, mask, scale, weight in zip(vectors, masks, scales, weights, strict=True):
        left = kept(vector.to(mix.work), mask)
        if scale != 1.0:
            left.mul_(torch.tensor(scale, dtype=mix.work))
        terms.append(left.to(vector.dtype).mul_(weight))
    if not mix.elect:
        return _finished(mix, base, _in_order(terms).add_(0.0), _divisor(weights.reshape(-1, 1)))
    # Patterns of floats are whole numbers of the same sign, but for -0, whose negative is itself.
    pattern = bits(_in_order(terms)).neg_()
    sign = torch.gt(pattern, 0, out=pattern).mul_(-2).add_(1)  # -1 where the sum is below 0, else 1
    # A sum of shares that is -0 would not be found to be nothing.
    whole = weights + 0.0
    shares: list[Tensor] = []
    for term, weight in zip(terms, whole, strict=True):
        agrees = bits(term) * sign
        torch.gt(agrees, 0, out=agrees).neg_()
        bits(term).bitwise_and_(agrees)
        shares.append(agrees.bitwise_and_(bits(weight)).view(term.dtype))
    # What is left of the terms is +0 or has one sign: their sum is never -0.
    total, divisor = _in_order(terms), _in_order(shares)
    pattern = bits(divisor)
    nothing = torch.eq(pattern, 0, out=torch.empty_like(pattern))
    pattern.bitwise_or_(nothing.mul_(int(bits(torch.ones_like(weights[0])))))
    return _finished(mix, base, total, divisor)


def _in_order(terms: Sequence[Tensor]) -> Tensor:
    """Add in fp32, in order; torch's sum begins at +0, so that its sum of nothing but -0 is +0."""
    first = terms[0]
    if first.dtype == torch.float32 or len(terms) <= 2:
        # Two summands of a narrow dtype: their fp32 sum is rounded once either way.
        total = first + terms[1] if len(terms) > 1 else first.clone()
        for term in terms[2:]:
            total.add_(term)
        return total
    wide = first.to(torch.float32)
    for term in terms[1:]:
        wide.add_(term.to(torch.float32))
    return wide.to(first.dtype)


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
