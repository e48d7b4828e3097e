"""Chains of elementwise operations over blocks that stay in a core's cache, without the interpreter's lock.

torch gives the lock back and takes it again at each operation: two threads that work on small blocks
spend more on that than on arithmetic, and large blocks leave the cache between two operations. So each
chain is one function of plain Python and torch, compiled by TorchScript: the same operations on the same
elements, hence the same bits, run from the first block to the last without the interpreter. Where there
is no TorchScript (it ends with Python 3.14), or it might fuse what must be rounded twice, the function
itself runs. For bf16, which nearly all weights are in, native.c has some of them in one pass over memory.
No result depends on which (tests/verify/test_kernels.py).
"""

import sys
import threading
import warnings
from collections.abc import Callable
from functools import cache
from typing import Final, cast

import torch
from torch import Tensor

from parentage.verify import native

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
    if device.type != "cpu":
        return function
    fast = _NATIVE.get(function)
    if fast is None or native.library() is None:
        return by_torch(function)

    def run(*arguments: object) -> Tensor:
        *given, out, _ = arguments
        done = fast(*given, out) == cast("Tensor", out).numel()
        return cast("Tensor", out) if done else by_torch(function)(*arguments)

    return run


def can_compare(found: Tensor) -> bool:
    """Say whether `known` has a chance: otherwise its arguments need not be read."""
    return native.takes(found) and native.library() is not None


def known(function: Kernel, found: Tensor, *arguments: object) -> int:
    """Return how many elements of `found`, from the first, a kernel is known to give; nothing is made.

    Args:
        function: one of native.c, whose arguments end with what it writes to, and a block.
        found: a tensor that `can_compare`.
        arguments: those before.
    """
    return _NATIVE[function](*arguments, found, compare=True)


def by_torch(function: Kernel) -> Kernel:
    """Return a kernel of torch operations as it is best run on a CPU."""
    return _scripted(function) if _can_script() else function


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
    first: float,
    weights: list[Tensor],
    divisor: list[Tensor],
    scale: list[Tensor],
    out: Tensor,
    block: int,
) -> Tensor:
    """Give `out` base + scale * (sum of weights times task vectors) / divisor, each step rounded.

    Numbers are tensors of no dimension in fp32 (fp64): TorchScript would round a float to the dtype of
    what it multiplies, where torch itself keeps it in fp32. No divisor and no scale is none at all.
    `first` is the first weight, which its dtype holds exactly: products with it are rounded once.

    The sum is torch's over rows: in fp32 where the dtype is narrower, and from +0, so that a sum of
    nothing but -0 is +0. Two narrow summands are rounded once either way.
    """
    elements = out.numel()
    size = min(block, elements)
    narrow = base.element_size() < 4 and len(others) > 2
    delta = torch.empty([size], dtype=base.dtype, device=base.device)
    summed = torch.empty([size if narrow else 0], dtype=torch.float32, device=base.device)
    term = torch.empty_like(summed)
    nothing = torch.zeros([1], dtype=base.dtype, device=base.device)
    for start in range(0, elements, block):
        stop = min(start + block, elements)
        here = base[start:stop]
        mixed = out[start:stop]
        torch.sub(others[0][start:stop], here, out=mixed)
        torch.add(nothing, mixed, alpha=first, out=mixed)
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


_NATIVE: Final[dict[Kernel, Callable[..., int]]] = {
    linear: native.linear,
    task_vectors: native.task_vectors,
    interpolated: native.interpolated,
}
