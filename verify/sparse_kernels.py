"""Kernels (kernels.py) of sparse task vectors: electing.py and selection.py say what they are for."""

import torch
from torch import Tensor


def in_order(terms: list[Tensor]) -> Tensor:
    """Add up to four terms in fp32, in order, rounded at the end; the first may be overwritten."""
    total = terms[0]
    if total.element_size() < 4 and len(terms) > 2:
        wide = total.to(torch.float32)
        for k in range(1, len(terms)):
            wide.add_(terms[k].to(torch.float32))
        total.copy_(wide)
    else:
        # Two narrow summands: their fp32 sum is rounded once either way.
        for k in range(1, len(terms)):
            total.add_(terms[k])
    return total


def elected(
    terms: list[Tensor],
    weighed: list[int],
    one: int,
    divide: bool,  # noqa: FBT001
    held: list[list[Tensor]],
    mixed: Tensor,
) -> Tensor:
    """Give `mixed` the sum of those terms of a block whose sign is that of all terms' sum (`sparse_sum`)."""
    count, size = len(terms), mixed.numel()
    total = held[1 + 2 * count][0][:size]
    sign = held[1 + 2 * count][1][:size]
    total.copy_(terms[0])
    rest = [total]
    for k in range(1, count):
        rest.append(terms[k])
    in_order(rest)
    # Patterns of floats are whole numbers of the same sign, but for -0, whose negative is itself.
    torch.gt(sign.neg_(), 0, out=sign)
    sign.mul_(-2).add_(1)  # -1 where the sum is below 0, else 1
    shares: list[Tensor] = []
    for k in range(count):
        pattern = held[1 + k][1][:size]
        agrees = held[1 + count + k][1][:size]
        torch.mul(pattern, sign, out=agrees)
        torch.gt(agrees, 0, out=agrees)
        agrees.neg_()
        pattern.bitwise_and_(agrees)
        agrees.bitwise_and_(weighed[k])
        shares.append(held[1 + count + k][0][:size])
    # What is left of the terms is +0 or has one sign: their sum is never -0.
    mixed.copy_(in_order(terms))
    if divide:
        counted = in_order(shares)
        pattern = held[1 + count][1][:size]
        torch.eq(pattern, 0, out=sign)
        pattern.bitwise_or_(sign.mul_(one))
        mixed.div_(counted)
    return mixed


def sparse_sum(
    base: Tensor,
    patterns: list[Tensor],
    masks: list[Tensor],
    scales: list[list[Tensor]],
    weights: list[Tensor],
    weighed: list[int],
    one: int,
    divisor: list[Tensor],
    scale: list[Tensor],
    held: list[list[Tensor]],
    out: Tensor,
    block: int,
) -> Tensor:
    """Give `out` base plus masked, rescaled, weighed vectors, added where their signs agree (electing.py).

    TorchScript has no view of another dtype: whatever is looked at as bits comes in both forms.

    Args:
        base: flat.
        patterns: vectors of its shape, as whole numbers of their width.
        masks: for each vector 1 where an element stays and 0 where not, as int8.
        scales: for each vector a number of no dimension, or none.
        weights: numbers of no dimension, in the dtype of `base`.
        weighed: their patterns, of +0 instead of -0; none where signs need not agree.
        one: the pattern of 1 in that dtype.
        divisor: what the sum is divided by: where signs must agree, anything for the weights that count.
        scale: of the sum, or none.
        held: storage for a block, each as values and as whole numbers: of the vectors' dtype, then
            twice in the dtype of `base` for each vector (terms, weights), then once for the sum.
        out: like `base`.
        block: elements at a time.
    """
    count = len(patterns)
    nothing = torch.zeros([1], dtype=base.dtype, device=base.device)
    first = float(weights[0])
    for start in range(0, out.numel(), block):
        stop = min(start + block, out.numel())
        size = stop - start
        mixed = out[start:stop]
        terms: list[Tensor] = []
        for k in range(count):
            left = held[0][0][:size]
            pattern = held[0][1][:size]
            pattern.copy_(masks[k][start:stop])
            pattern.neg_().bitwise_and_(patterns[k][start:stop])
            for number in scales[k]:
                left.mul_(number)
            term = held[1 + k][0][:size]
            if k == 0 and len(weighed) == 0:
                # torch's sum begins at +0, so that its sum of nothing but -0 is +0.
                mixed.copy_(left)
                terms.append(torch.add(nothing, mixed, alpha=first, out=mixed))
            else:
                term.copy_(left)
                terms.append(term.mul_(weights[k]))
        if len(weighed) == 0:
            in_order(terms)
            for number in divisor:
                mixed.div_(number)
        else:
            elected(terms, weighed, one, len(divisor) > 0, held, mixed)
        for number in scale:
            mixed.mul_(number)
        mixed.add_(base[start:stop])
    return out


def largest_pattern(patterns: list[Tensor], top: int, block: int) -> Tensor:
    """Return the largest magnitude among several tensors, all given as bits and returned so."""
    largest = torch.zeros([1], dtype=patterns[0].dtype, device=patterns[0].device)
    for part in patterns:
        for start in range(0, part.numel(), block):
            stop = min(start + block, part.numel())
            found = part[start:stop].bitwise_and(top).amax()
            largest = torch.maximum(largest, found)
    return largest


def counted_above(
    keys: Tensor, limits: list[int], flags: Tensor, words: Tensor, found: Tensor
) -> Tensor:
    """Add to `found`, for each limit, how many keys are larger: four 16-bit sums in each of its words.

    Args:
        keys: 16-bit whole numbers; at most 32767 / 64 blocks are counted before `found` is taken apart.
        limits: what they are compared with.
        flags: storage for a block of keys, a multiple of 256 of them.
        words: the same storage as 64-bit whole numbers.
        found: 64-bit, a row of 1/64 of `words` for each limit.
    """
    block = flags.numel()
    rows = words.reshape(64, -1)
    for start in range(0, keys.numel(), block):
        stop = min(start + block, keys.numel())
        size = stop - start
        flags[size:].zero_()
        for k in range(len(limits)):
            torch.gt(keys[start:stop], limits[k], out=flags[:size])
            found[k].add_(rows.sum(dim=0))
    return found
