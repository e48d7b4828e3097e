"""Kernels of native.c beside those of torch: what they decline, where they stop, and whole verdicts.

That they round as numpy and torch do is shown in test_kernels.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from absent import absent
from held import one_step, output
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from parentage.manifest.model import open_model
from parentage.verify import kernels, native
from parentage.verify.differences import differences, first_difference
from parentage.verify.engine import Engine, bind
from parentage.verify.methods import electing
from parentage.verify.random_bits import TorchStream, limit_of
from parentage.verify.sums import RunningSum
from parentage.verify.values import FileSource

CPU = torch.device("cpu")
SIZE = 3 * 4096 + 517


@pytest.fixture(autouse=True)
def _library() -> None:
    if native.library() is None:
        absent("the compiled part of parentage", "pip install --editable . with a C compiler")


@pytest.fixture
def without() -> Iterator[None]:
    """Take the library away, as where there is no compiler."""
    native.library.cache_clear()
    os.environ["PARENTAGE_NATIVE"] = "0"
    yield
    del os.environ["PARENTAGE_NATIVE"]
    native.library.cache_clear()


def numbers(seed: int, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.02 * torch.randn(size, generator=generator)).to(torch.bfloat16)


def one(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


#: Each kernel with what it is given for some inputs.
GIVEN: dict[str, tuple[kernels.Kernel, Callable[[list[Tensor]], tuple[Any, ...]]]] = {
    "linear": (kernels.linear, lambda x: (x, [0.6, 0.3, 0.1], [one(1.25)])),
    "linear-undivided": (kernels.linear, lambda x: (x[:2], [0.6, 0.4], [])),
    "task_vectors": (
        kernels.task_vectors,
        lambda x: (x[0], x[1:], 0.5, [one(0.5), one(-0.25)], [one(0.75)], [one(0.85)]),
    ),
    "interpolated": (kernels.interpolated, lambda x: (x[0], x[1], one(0.65), one(0.36))),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_has_the_bits_that_torch_gives_it(name: str, bad: float) -> None:
    kernel, given_of = GIVEN[name]
    inputs = [numbers(seed) for seed in range(3)]
    for part, place in zip(inputs, (700, 5000, SIZE - 1), strict=True):
        part[place] = bad
    inputs[1][700] = -bad
    room = [torch.empty(SIZE, dtype=torch.bfloat16) for _ in range(2)]
    block = kernels.block_of(CPU)

    fast = kernels.compiled(kernel, CPU)(*given_of(inputs), room[0], block)
    slow = kernels.by_torch(kernel)(*given_of(inputs), room[1], block)

    assert torch.equal(fast.view(torch.int16), slow.view(torch.int16))
    assert not slow.isfinite().all()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(GIVEN)),
    place=st.integers(0, SIZE - 1),
    flipped=st.integers(0, 15),
)
def test_what_is_known_ends_before_the_first_difference(
    name: str, place: int, flipped: int
) -> None:
    kernel, given_of = GIVEN[name]
    inputs = [numbers(seed) for seed in range(3)]
    found = kernels.by_torch(kernel)(
        *given_of(inputs), torch.empty(SIZE, dtype=torch.bfloat16), kernels.block_of(CPU)
    )
    assert kernels.known(kernel, found, *given_of(inputs)) == SIZE

    found.view(torch.int16)[place] ^= 1 << flipped if flipped < 15 else -(1 << 15)
    before = found.clone()
    known = kernels.known(kernel, found, *given_of(inputs))

    assert place - 512 < known <= place
    assert torch.equal(found.view(torch.int16), before.view(torch.int16))


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda part: part.float(),
        lambda part: part.half(),
        lambda part: part.repeat(2)[::2],
        lambda part: part[:-1],
    ],
    ids=["fp32", "fp16", "strided", "shorter"],
)
def test_what_it_is_not_for_is_declined(spoiled: Callable[[Tensor], Tensor]) -> None:
    """An address says nothing of what lies there: whoever gives it must have looked."""
    good, bad = numbers(1), spoiled(numbers(1))
    room = torch.empty(SIZE, dtype=torch.bfloat16)

    assert native.linear([good, bad], [0.5, 0.5], [], room) == 0
    assert native.linear([good, good], [0.5, 0.5], [], spoiled(room)) == 0
    assert native.task_vectors(good, [bad], 1.0, [one(1)], [], [], room) == 0
    assert native.task_vectors(bad, [good], 1.0, [one(1)], [], [], room) == 0
    assert native.interpolated(good, bad, one(0.5), one(0.5), room) == 0
    assert native.gram(good, bad) is None


def test_another_number_of_weights_is_declined() -> None:
    good, room = numbers(1), torch.empty(SIZE, dtype=torch.bfloat16)

    assert native.linear([good], [0.5, 0.5], [], room) == 0
    assert native.linear([], [], [], room) == 0
    assert native.task_vectors(good, [good], 1.0, [one(1), one(1)], [], [], room) == 0
    wide = torch.tensor(0.5, dtype=torch.float64)
    assert native.interpolated(good, good, wide, wide, room) == 0


def test_scalar_products_are_trees_in_float64() -> None:
    left, right = numbers(1), numbers(2)
    rows = native.gram(left, right)
    assert rows is not None
    for (a, b), row in zip(((left, left), (right, right), (left, right)), rows, strict=True):
        assert len(row) == SIZE // 4096
        sums = RunningSum()
        sums.add(a[: 4096 * len(row)].double() * b[: 4096 * len(row)].double())
        blocks = RunningSum()
        blocks.add_blocks(row)
        assert blocks.total() == sums.total()
        terms = a.double().numpy() * b.double().numpy()
        # A tree of 4,096 rounds twelve times: Higham, section 4.2.
        for at, got in enumerate(row):
            block = terms[4096 * at : 4096 * (at + 1)]
            exact = sum(map(Fraction, block.tolist()), Fraction(0))
            assert abs(Fraction(got) - exact) <= Fraction(
                12.1 * 2.0**-53 * float(np.abs(block).sum())
            )


def step(**fields: Any) -> Any:
    arithmetic = {"profile": "mk-0.1.5", "compute": "BF16"}
    return one_step(inputs=["a", "b"], arithmetic=arithmetic, **fields)


STEPS = {
    "linear": step(op="weighted_sum/v1", params={"weights": ["0.6", "0.4"], "normalize": True}),
    "delta": step(
        op="weighted_sum/v1", params={"weights": ["0.6"], "base": "b", "normalize": False}
    ),
    "slerp": step(op="slerp/v1", params={"t": "0.35"}),
}
#: More than what is compared together, so that a difference is in the second piece.
ELEMENTS = 3_000_000


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("native")
    for seed, name in enumerate("ab"):
        save_file({"w": numbers(seed, ELEMENTS)}, root / f"{name}.safetensors")
    sources = {name: FileSource(open_model(root / f"{name}.safetensors")) for name in "ab"}
    return {"root": root, "sources": sources}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("places", [[], [0], [ELEMENTS - 1], [2_100_000, 2_100_001, 2_900_000]])
def test_differences_are_counted_alike_with_and_without(
    name: str, places: list[int], merged: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    made = output(STEPS[name], merged["sources"], "w")
    for place in places:
        made.view(torch.int16)[place] ^= 1
    path = merged["root"] / f"{name}-{len(places)}-{sum(places)}.safetensors"
    save_file({"w": made}, path)
    release = FileSource(open_model(path))

    def look() -> tuple[Any, Any]:
        bound, engine = bind([STEPS[name]], merged["sources"])["s"], Engine(CPU, 2)
        count = differences(engine, release, bound, bound.variant, ["w"])["w"]
        return count, first_difference(engine, release, bound, bound.variant, "w")

    fast = look()
    request.getfixturevalue("without")
    slow = look()

    assert fast[0].differing == slow[0].differing == len(places)
    assert fast[0].first == slow[0].first
    assert fast[1] == slow[1] == (places[0] if places else None)


@pytest.mark.parametrize("seed", [0, 11, 5489, 2**32 + 7, 2**63])
def test_masks_are_drawn_as_torch_and_numpy_draw(seed: int) -> None:
    """Cut anywhere: around a byte, around the 624 words of a state, and behind words that are skipped."""
    generator = torch.Generator().manual_seed(seed)
    words = np.random.MT19937()
    words._legacy_seeding(seed & 0xFFFFFFFF)
    library = native.library()
    assert library is not None
    twister = native.Twister(library, seed)
    for count, chance in ((7, 0.5), (624, 0.3), (617, 0.9), (1, 0.5), (5000, 1e-3), (3, 1 - 1e-7)):
        probability = torch.tensor(chance)
        expected = torch.bernoulli(probability.expand(count), generator=generator).to(torch.bool)
        limit = limit_of(probability)
        raw = (words.random_raw(count) & 0xFFFFFF) < limit
        room = torch.full((-(-count // 8) + 1,), 0xA5, dtype=torch.uint8)
        twister.below(limit, count, room[:-1])
        flags = native.unpacked(room)
        assert flags is not None
        assert torch.equal(flags[:count], expected)
        assert flags[:count].tolist() == raw.tolist()
        assert not flags[count : 8 * (len(room) - 1)].any()
        assert room[-1] == 0xA5
        torch.empty(1000, dtype=torch.int32).random_(generator=generator)
        words.random_raw(1000)
        twister.skip(1000)
    with pytest.raises(ValueError):
        twister.below(1, 9, torch.empty(1, dtype=torch.uint8))


def test_a_stream_goes_on_from_where_it_was() -> None:
    library = native.library()
    assert library is not None
    for stream in (native.Twister(library, 3), TorchStream(3)):
        stream.skip(1000)
        state = stream.state()
        stream.skip(10)
        after = stream.state()
        assert after != state
        stream.restore(state)
        assert stream.state() == state
        stream.skip(10)
        assert stream.state() == after


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_norms_are_those_of_the_kernel_of_torch(density: float) -> None:
    size = 4 * 4096
    base, *others = (numbers(seed, size) for seed in range(3))
    masks = [torch.rand(size) < density for _ in others]
    rows = native.norms(base, others, masks)
    assert rows is not None
    for k, (other, mask) in enumerate(zip(others, masks, strict=True)):
        size_of = (other - base).abs().double()
        for row, values in zip(rows[2 * k : 2 * k + 2], (size_of, size_of * mask), strict=True):
            sums = RunningSum()
            sums.add(values)
            blocks = RunningSum()
            blocks.add_blocks(row)
            assert blocks.total() == sums.total()
    assert native.norms(base, others, masks[:1]) is None
    assert native.norms(base, others, [mask[:-1] for mask in masks]) is None


SMALL = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.02, -0.02, 3e-39, 1e38, -3e38])


@settings(max_examples=200, deadline=None)
@given(data=st.data(), count=st.integers(1, 4), elect=st.booleans(), normalize=st.booleans())
def test_sparse_sums_are_those_of_mergekits_kernels(
    data: st.DataObject, count: int, elect: bool, normalize: bool
) -> None:
    size = 40
    rows = st.lists(SMALL, min_size=size, max_size=size)
    base, *vectors = (torch.tensor(data.draw(rows)).to(torch.bfloat16) for _ in range(count + 1))
    masks = [
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
        for _ in vectors
    ]
    numbers_of = st.lists(
        st.sampled_from([1.0, 0.6, -0.5, 2.0, 0.0]), min_size=count, max_size=count
    )
    weights, scales = data.draw(numbers_of), data.draw(numbers_of)
    mix = electing.Mix(
        tuple(weights), elect, normalize, data.draw(st.sampled_from([1.0, 0.7])), torch.bfloat16
    )
    out = torch.empty_like(base)

    done = electing.added(mix, base, vectors, masks, scales, out)
    expected = electing.by_kernels(mix, base, vectors, masks, scales)

    if done == size:
        assert torch.equal(out.view(torch.int16), expected.view(torch.int16))
    else:
        # Nothing is declined but what overflows, or is no number.
        terms = torch.stack([v.float() for v in vectors]).abs().max()
        assert not expected.isfinite().all() or terms > 1e37
    if expected.isfinite().all() and done == size:
        subtracted = [(vector.float() + base.float()).to(torch.bfloat16) for vector in vectors]
        again = torch.empty_like(base)
        deltas = [part - base for part in subtracted]
        assert electing.added(mix, base, subtracted, masks, scales, again, subtract=True) in {
            0,
            size,
        }
        if electing.added(mix, base, deltas, masks, scales, out) == size:
            known = electing.added(
                mix, base, subtracted, masks, scales, out, subtract=True, compare=True
            )
            assert known == size


def test_more_vectors_than_torch_adds_in_order_are_declined() -> None:
    base, out = numbers(0, 64), torch.empty(64, dtype=torch.bfloat16)
    how = native.Sparse([1.0] * 5, [1.0] * 5, False, 0.0, 1.0)

    assert native.sparse(how, base, [base] * 5, [None] * 5, out, subtract=False) == 0
    few = native.Sparse([1.0], [1.0], False, 0.0, 1.0)
    assert (
        native.sparse(few, base, [base], [torch.ones(63, dtype=torch.bool)], out, subtract=False)
        == 0
    )
    assert native.sparse(few, base, [base], [None], out, subtract=False) == 64
