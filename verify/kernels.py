"""Chains of elementwise operations over blocks that stay in a core's cache, without the interpreter's lock.

torch gives the lock back and takes it again at each operation: two threads that work on small blocks
spend more on that than on arithmetic, and large blocks leave the cache between two operations. So each
chain is one function of plain Python and torch, compiled by TorchScript: the same operations on the same
elements, hence the same bits, run from the first block to the last without the interpreter. Where there
is no TorchScript (it ends with Python 3.14), or it might fuse what must be rounded twice, the function
itself runs. No result depends on which (tests/verify/test_kernels.py).
"""

import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor

#: Elements of a block: with a few fp32 buffers of them well within a second-level cache.
_BLOCK: Final = 1 << 16
#: A GPU has no such cache to keep, and each operation there is a launch.
_WHOLE: Final = 1 << 62

Kernel = Callable[..., Tensor]

_compiled: Final[dict[Kernel, Kernel]] = {}
_compiling: Final = threading.Lock()


def block_of(device: torch.device) -> int:
    """Return how many elements kernels take at a time on a device."""
    return _BLOCK if device.type == "cpu" else _WHOLE


def compiled(function: Kernel, device: torch.device) -> Kernel:
    """Return a kernel as it is best run on a device."""
    return _scripted(function) if device.type == "cpu" and _can_script() else function


@cache
def _can_script() -> bool:
    # On a GPU TorchScript fuses; on a CPU only where torch was built with LLVM.
    fuses: Callable[[], bool] = getattr(torch._C, "_jit_can_fuse_on_cpu", lambda: True)  # noqa: SLF001
    return sys.version_info < (3, 14) and not fuses()


def _scripted(function: Kernel) -> Kernel:
    found = _compiled.get(function)
    if found is None:
        # Filters of warnings are those of all threads.
        with _compiling, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            if function not in _compiled:
                _compiled[function] = cast("Kernel", torch.jit.script(function))
            found = _compiled[function]
    return found


@cache
def add_is_fused() -> bool:
    """Say whether `add_(x, alpha=w)` on this CPU rounds once, in whole vectors and behind the last."""
    fused = torch.full((67,), -(1.0 + 2.0**-11), dtype=torch.float32)
    fused.add_(torch.full((67,), 1.0 + 2.0**-12, dtype=torch.float32), alpha=1.0 + 2.0**-12)
    return bool((fused == 2.0**-24).all())


def linear(
    parts: list[Tensor],
    weights: list[float],
    divisor: list[Tensor],
    out: Tensor,
    block: int,
) -> Tensor:
    """Give `out` the sum of weights times parts: fused in fp32, in order, from +0; then divided, rounded."""
    elements = out.numel()
    size = min(block, elements)
    total = torch.empty([size], dtype=torch.float32, device=out.device)
    wide = torch.empty([size], dtype=torch.float32, device=out.device)
    nothing = torch.zeros([1], dtype=torch.float32, device=out.device)
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        acc = total[: stop - start]
        values = wide[: stop - start]
        values.copy_(parts[0][start:stop])
        torch.add(nothing, values, alpha=weights[0], out=acc)
        for k in range(1, len(parts)):
            values.copy_(parts[k][start:stop])
            acc.add_(values, alpha=weights[k])
        for number in divisor:
            acc.div_(number)
        out[start:stop].copy_(acc)
    return out


def less(parts: list[Tensor], base: Tensor, out: Tensor, block: int) -> Tensor:
    """Give each row of `out` the difference of a part and `base`, all flat."""
    for start in range(0, base.numel(), block):
        stop = min(start + block, base.numel())
        for k in range(len(parts)):
            torch.sub(parts[k][start:stop], base[start:stop], out=out[k][start:stop])
    return out


def task_vectors(
    base: Tensor,
    others: list[Tensor],
    weights: list[Tensor],
    divisor: list[Tensor],
    scale: list[Tensor],
    out: Tensor,
    block: int,
) -> Tensor:
    """Give `out` base + scale * (sum of weights times task vectors) / divisor, each step rounded.

    Numbers are tensors of no dimension in fp32 (fp64): TorchScript would round a float to the dtype of
    what it multiplies, where torch itself keeps it in fp32. No divisor and no scale is none at all.

    The sum is torch's over rows: in fp32 where the dtype is narrower, and from +0, so that a sum of
    nothing but -0 is +0. Two narrow summands are rounded once either way.
    """
    elements = out.numel()
    size = min(block, elements)
    narrow = base.element_size() < 4 and len(others) > 2
    delta = torch.empty([size], dtype=base.dtype, device=base.device)
    summed = torch.empty([size if narrow else 0], dtype=torch.float32, device=base.device)
    term = torch.empty_like(summed)
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        here = base[start:stop]
        mixed = out[start:stop]
        torch.sub(others[0][start:stop], here, out=mixed)
        mixed.mul_(weights[0])
        if narrow:
            summed[: stop - start].copy_(mixed)
        for k in range(1, len(others)):
            vector = delta[: stop - start]
            torch.sub(others[k][start:stop], here, out=vector)
            vector.mul_(weights[k])
            if narrow:
                term[: stop - start].copy_(vector)
                summed[: stop - start].add_(term[: stop - start])
            else:
                mixed.add_(vector)
        if narrow:
            mixed.copy_(summed[: stop - start])
        mixed.add_(0.0)
        for number in divisor:
            mixed.div_(number)
        for number in scale:
            mixed.mul_(number)
        mixed.add_(here)
    return out


def interpolated(
    left: Tensor,
    right: Tensor,
    by_left: Tensor,
    by_right: Tensor,
    out: Tensor,
    block: int,
) -> Tensor:
    """Give `out` by_left * left + by_right * right: products and sum in the dtype of the factors."""
    elements = out.numel()
    size = min(block, elements)
    total = torch.empty([size], dtype=by_left.dtype, device=out.device)
    values = torch.empty_like(total)
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        acc = total[: stop - start]
        acc.copy_(left[start:stop])
        acc.mul_(by_left)
        other = values[: stop - start]
        other.copy_(right[start:stop])
        other.mul_(by_right)
        acc.add_(other)
        out[start:stop].copy_(acc)
    return out


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
    for start in range(0, out.numel(), block):
        stop = min(start + block, out.numel())
        size = stop - start
        terms: list[Tensor] = []
        for k in range(count):
            left = held[0][0][:size]
            pattern = held[0][1][:size]
            pattern.copy_(masks[k][start:stop])
            pattern.neg_().bitwise_and_(patterns[k][start:stop])
            for number in scales[k]:
                left.mul_(number)
            term = held[1 + k][0][:size]
            term.copy_(left)
            terms.append(term.mul_(weights[k]))
        mixed = out[start:stop]
        if len(weighed) == 0:
            # torch's sum begins at +0, so that its sum of nothing but -0 is +0.
            mixed.copy_(in_order(terms)).add_(0.0)
            for number in divisor:
                mixed.div_(number)
        else:
            # Patterns of floats are whole numbers of the same sign, but for -0, whose negative is itself.
            total = held[1 + 2 * count][0][:size]
            total.copy_(terms[0])
            rest = [total]
            for k in range(1, count):
                rest.append(terms[k])
            total.copy_(in_order(rest))
            sign = held[1 + 2 * count][1][:size]
            sign.neg_()
            torch.gt(sign, 0, out=sign)
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
            if len(divisor) > 0:
                counted = in_order(shares)
                pattern = held[1 + count][1][:size]
                torch.eq(pattern, 0, out=sign)
                pattern.bitwise_or_(sign.mul_(one))
                mixed.div_(counted)
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
