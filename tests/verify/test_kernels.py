"""Compiled kernels give what torch gives operation by operation on whole tensors, and what numpy gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parentage.verify import kernels, sum_kernels

CPU = torch.device("cpu")
WAYS = ("plain", "torch", "native")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
#: Around a block, and smaller than a vector.
SIZES = (1, 7, 67, (1 << 16) - 1, (1 << 16) + 3, (1 << 17) + 67)


def run(way: str, function: kernels.Kernel, *args: object) -> Tensor:
    ways = {"torch": kernels.by_torch, "native": lambda it: kernels.compiled(it, CPU)}
    found = ways[way](function) if way in ways else function
    with torch.inference_mode():
        return found(*args, kernels.block_of(CPU))


def bits(values: Tensor) -> bytes:
    return bytes(values.contiguous().view(torch.uint8).numpy().tobytes())


def numbers(size: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return numbers of any size, with both zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(size, generator=generator)
    found *= 2.0 ** torch.randint(-9, 4, (size,), generator=generator)
    found[torch.rand(size, generator=generator) < 0.1] = 0.0
    found[torch.rand(size, generator=generator) < 0.1] = -0.0
    return found.to(dtype)


def held(values: Sequence[float]) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float32) for value in values]


def rounding(dtype: torch.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """Return a rounding of fp32 to a dtype and back: bf16 by bits, to nearest, ties to even."""

    def to_bf16(values: np.ndarray) -> np.ndarray:
        pattern = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        pattern += 0x7FFF + ((pattern >> 16) & 1)
        return (pattern & 0xFFFF0000).astype(np.uint32).view(np.float32)

    if dtype == torch.bfloat16:
        return to_bf16
    narrow = np.float16 if dtype == torch.float16 else np.float32
    return lambda values: values.astype(narrow).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_a_linear_merge_is_fused_in_fp32_and_rounded_once(
    size: int, dtype: torch.dtype, way: str
) -> None:
    parts = [numbers(size, dtype, seed) for seed in range(3)]
    weights = [0.3, -0.7, 1.1]
    # The product of two fp32 numbers is exact in float64, and so is fma's sum but for one rounding
    # that float64's cannot hide: 2 * 24 + 2 bits are less than 53.
    total = np.zeros(size, np.float32)
    for part, weight in zip(parts, weights, strict=True):
        wide = part.float().numpy().astype(np.float64)
        exact = total.astype(np.longdouble) + wide * np.float64(np.float32(weight))
        total = exact.astype(np.float32)
    divisor = np.float32(0.7)
    expected = rounding(dtype)((total / divisor).astype(np.float32))

    assert kernels.add_is_fused()
    got = run(way, kernels.linear, parts, weights, held([0.7]), torch.empty(size, dtype=dtype))

    assert got.dtype == dtype
    assert got.float().numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_task_vectors_are_added_as_mergekit_adds_them(
    count: int, size: int, dtype: torch.dtype, sign: int, way: str
) -> None:
    base = numbers(size, dtype, 99)
    others = [numbers(size, dtype, seed) for seed in range(count)]
    others[0][::2] = base[::2]
    weights = [float(torch.tensor(sign * w, dtype=dtype)) for w in (0.6, 0.3, 0.8, 1.2)[:count]]
    # merge_methods/generalized_task_arithmetic.py of mergekit, whole tensors at a time.
    deltas = torch.stack([other - base for other in others])
    weighed = deltas * torch.tensor(weights, dtype=dtype).unsqueeze(-1)
    mixed = weighed.sum(dim=0)
    divisor = torch.tensor(weights, dtype=dtype).sum()
    mixed /= divisor
    mixed *= 0.85
    expected = base + mixed

    scalars = held(weights), held([float(divisor)]), held([0.85])
    got = run(way, kernels.task_vectors, base, others, weights[0], *scalars, torch.empty_like(base))

    assert bits(got) == bits(expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_sum_of_nothing_but_minus_zero_is_zero(way: str) -> None:
    """A negative weight makes -0 of an element that did not move; torch's sum makes +0 of those."""
    base = torch.tensor([-0.0, 0.0, 1.0], dtype=torch.bfloat16)
    got = run(
        way,
        kernels.task_vectors,
        base,
        [base, base],
        -0.5,
        held([-0.5, -0.5]),
        [],
        [],
        base.clone(),
    )

    assert got.signbit().tolist() == [False, False, False]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_interpolation_rounds_products_and_sum(size: int, dtype: torch.dtype, way: str) -> None:
    left, right = numbers(size, dtype, 1), numbers(size, dtype, 2)
    a, b = (np.float32(0.7310585975646973), np.float32(0.2718281745910645))
    total = left.float().numpy() * a + right.float().numpy() * b
    out = torch.empty(size, dtype=dtype)

    got = run(way, kernels.interpolated, left, right, *held([float(a), float(b)]), out)

    assert got.float().numpy().tobytes() == rounding(dtype)(total).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 300),
    block=st.integers(1, 300),
    seed=st.integers(0, 1 << 30),
    dtype=st.sampled_from(DTYPES),
)
def test_blocks_of_any_size_give_the_same(
    size: int, block: int, seed: int, dtype: torch.dtype
) -> None:
    parts = [numbers(size, dtype, seed + k) for k in range(3)]
    weights = [0.25, 0.5, -0.2]
    first = weights[0]
    with torch.inference_mode():
        compiled = kernels.compiled(kernels.task_vectors, CPU)
        whole, cut = (
            compiled(
                parts[0], parts[1:], first, held(weights[:2]), [], [], torch.empty_like(parts[0]), n
            )
            for n in (1 << 62, block)
        )
        assert bits(whole) == bits(cut)
        compiled = kernels.compiled(kernels.linear, CPU)
        whole, cut = (
            compiled(parts, weights, [], torch.empty_like(parts[0]), n) for n in (1 << 62, block)
        )
        assert bits(whole) == bits(cut)


def test_threads_that_compile_at_once_get_one_kernel_and_no_warning() -> None:
    def kernel(values: Tensor, block: int) -> Tensor:
        return values + block

    start = threading.Barrier(8)

    def compile_it(_: int) -> kernels.Kernel:
        start.wait()
        return kernels.compiled(kernel, CPU)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(compile_it, range(8)))

    assert len(found) == 1
    assert found.pop()(torch.ones(2), 2).tolist() == [3.0, 3.0]


def tree(values: np.ndarray) -> np.ndarray:
    """Add the second half of each row to the first until one is left (docs/parentage-1.md, section 3)."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("width", [1, 64, 4096])
@pytest.mark.parametrize("count", [1, 2])
def test_tree_sums_are_those_of_numpy(width: int, count: int, dtype: torch.dtype, way: str) -> None:
    factors = [numbers(10 * 4096, dtype, seed) for seed in range(count)]
    product = np.ones(10 * 4096)
    for factor in factors:
        product = product * factor.double().numpy()
    function = (
        kernels.compiled(sum_kernels.tree_sums, CPU) if way != "plain" else sum_kernels.tree_sums
    )

    got = function(factors, width, 4 * 4096)

    assert got.numpy().tobytes() == tree(product.reshape(-1, width)).tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_norms_are_of_all_and_of_what_stays(dtype: torch.dtype, way: str) -> None:
    size = 3 * 4096
    base, parts = numbers(size, dtype, 9), [numbers(size, dtype, seed) for seed in range(2)]
    masks = [torch.arange(size) % (3 + k) == 0 for k in range(2)]
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[base.element_size()]
    values = torch.empty(2 * 4096, dtype=dtype)
    held = [values, values.view(whole), torch.empty(2 * 4096, dtype=whole)]
    top = (1 << (8 * base.element_size() - 1)) - 1
    function = kernels.compiled(sum_kernels.norms, CPU) if way != "plain" else sum_kernels.norms

    got = function(parts, base, [m.view(torch.int8) for m in masks], top, held, 4096, 2 * 4096)

    expected = []
    for part, mask in zip(parts, masks, strict=True):
        sizes = (part - base).abs().double().numpy()
        expected += [tree(each.reshape(-1, 4096)) for each in (sizes, sizes * mask.numpy())]
    assert got.numpy().tobytes() == np.stack(expected).tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_products_of_directions_are_divided_and_multiplied_in_fp32(size: int, way: str) -> None:
    left, right = (numbers(size, torch.bfloat16, seed) for seed in range(2))
    lengths = held([0.3, 7.7])
    out = torch.empty(size)

    got = run(way, sum_kernels.products_of_directions, left, right, *lengths, out)

    a, b = (
        part.float().numpy() / length.numpy()
        for part, length in zip((left, right), lengths, strict=True)
    )
    assert got.numpy().tobytes() == (a * b).tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", SIZES)
def test_differences_are_those_of_torch(size: int, way: str) -> None:
    base, *parts = (numbers(size, torch.bfloat16, seed) for seed in range(3))

    got = run(way, kernels.less, parts, base, torch.empty((2, size), dtype=base.dtype))

    assert [bits(row) for row in got] == [bits(part - base) for part in parts]
