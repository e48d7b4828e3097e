"""Kernels (kernels.py) of norms and sums."""

import torch
from torch import Tensor


def halved(rows: Tensor, width: int) -> Tensor:
    """Add the second half of each row to the first, until rows are `width` long."""
    now = rows.shape[-1]
    while now > width:
        now = now // 2
        rows = rows[..., :now] + rows[..., now:]
    return rows


def tree_sums(factors: list[Tensor], width: int, block: int) -> Tensor:
    """Return the float64 sum of each `width` products of elements, as one binary tree (sums.py).

    Args:
        factors: flat, of one length, a multiple of `width`; each is exact in float64.
        width: a power of two.
        block: elements at a time, a multiple of `width`.
    """
    elements = factors[0].numel()
    narrow = min(width, 128)
    found = torch.empty([elements // width, narrow], dtype=torch.float64, device=factors[0].device)
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        terms = factors[0][start:stop].to(torch.float64)
        for k in range(1, len(factors)):
            # Two kernels, so that nothing fuses them.
            terms = terms * factors[k][start:stop].to(torch.float64)
        rows = halved(terms.reshape(-1, width), narrow)
        found[start // width : stop // width].copy_(rows)
    # Short rows cost more than they hold, so all of them are added together.
    return halved(found, 1).reshape(-1)


def norms(
    parts: list[Tensor],
    base: Tensor,
    masks: list[Tensor],
    top: int,
    held: list[Tensor],
    width: int,
    block: int,
) -> Tensor:
    """Return `tree_sums` of the magnitudes of task vectors: two rows for each, of all and of what stays.

    Args:
        parts: flat, of one dtype and a length that is a multiple of `width`.
        base: what is subtracted.
        masks: for each part 1 where an element stays and 0 where not, as int8.
        top: the largest pattern of a magnitude.
        held: storage for a block: values, the same as whole numbers, and more whole numbers.
        width: as of `tree_sums`.
        block: elements at a time, a multiple of `width`.
    """
    elements, count = base.numel(), len(parts)
    narrow = min(width, 128)
    found = torch.empty(
        [2 * count, elements // width, narrow], dtype=torch.float64, device=base.device
    )
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        first, last = start // width, stop // width
        values = held[0][: stop - start]
        pattern = held[1][: stop - start]
        keep = held[2][: stop - start]
        for k in range(count):
            torch.sub(parts[k][start:stop], base[start:stop], out=values)
            pattern.bitwise_and_(top)
            rows = values.to(torch.float64).reshape(-1, width)
            found[2 * k, first:last].copy_(halved(rows, narrow))
            keep.copy_(masks[k][start:stop])
            pattern.bitwise_and_(keep.neg_())
            rows = values.to(torch.float64).reshape(-1, width)
            found[2 * k + 1, first:last].copy_(halved(rows, narrow))
    return halved(found, 1).reshape(2 * count, -1)


def products_of_directions(
    left: Tensor, right: Tensor, left_length: Tensor, right_length: Tensor, out: Tensor, block: int
) -> Tensor:
    """Give `out` the products of left / left_length and right / right_length, each rounded to its dtype."""
    elements = out.numel()
    values = torch.empty([min(block, elements)], dtype=out.dtype, device=out.device)
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        product = out[start:stop]
        product.copy_(left[start:stop])
        product.div_(left_length)
        other = values[: stop - start]
        other.copy_(right[start:stop])
        other.div_(right_length)
        product.mul_(other)
    return out
