"""Masks by words and integers against torch's own booleans."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from parentage.verify import kernels, masking
from parentage.verify.methods.electing import Mix, by_bits, by_kernels, mixed
from parentage.verify.random_bits import drawn
from parentage.verify.rounding import DTYPES, bits

DTYPE = st.sampled_from(["BF16", "F16", "F32"]).map(DTYPES.__getitem__)


def flags(seed: int, count: int, share: float) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share


@given(
    st.integers(0, 99),
    st.integers(0, 300),
    st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    st.integers(0, 9),
)
def test_counts_places_and_packs_as_torch_does(
    seed: int, count: int, share: float, cut: int
) -> None:
    mask = flags(seed, count + cut, share)[cut:]

    assert masking.count(mask) == int(mask.sum())
    assert torch.equal(masking.places(mask), mask.nonzero().squeeze(1))
    packed = masking.packed(mask)
    assert [int(packed[i // 8]) >> i % 8 & 1 for i in range(count)] == mask.to(torch.uint8).tolist()
    start = min(cut, count)
    assert torch.equal(masking.unpacked(packed, start, count), mask[start:])


@given(DTYPE, st.integers(0, 99))
def test_compares_and_keeps_as_torch_does(dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(101, generator=generator).to(dtype)
    mask = torch.rand(101, generator=generator) < 0.5
    keys = bits(values)

    assert torch.equal(masking.compared(torch.gt, keys, 5), keys > 5)
    assert torch.equal(masking.compared(torch.eq, keys, keys[3]), keys == keys[3])
    assert torch.equal(
        masking.kept(values, mask), torch.where(mask, values, torch.zeros_like(values))
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.0, 1e-7, 0.1, 0.3, 0.5, 0.999, 1.0])
def test_draws_what_torch_draws_and_leaves_the_generator_where_it_does(
    dtype: torch.dtype, probability: float
) -> None:
    ours, theirs = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
    chance = torch.tensor(probability, dtype=dtype)

    for count in (1, 15, 16, 17, 4099):
        expected = torch.bernoulli(
            torch.full((count,), float(chance), dtype=dtype), generator=theirs
        )
        assert torch.equal(drawn(count, chance, ours), expected.to(torch.bool))
    assert torch.equal(ours.get_state(), theirs.get_state())


NUMBERS = st.sampled_from([0.0, -0.0, 0.5, -0.5, 0.0625, -0.0117, 1e-38, -1e-38, 3.1, 5e-8])


@settings(phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@given(
    st.integers(1, 6),
    DTYPE,
    st.booleans(),
    st.booleans(),
    st.sampled_from([1.0, 0.7, -1.3]),
    st.data(),
)
def test_bits_give_what_mergekits_kernels_give(
    count: int, dtype: torch.dtype, elect: bool, normalize: bool, scale: float, data: st.DataObject
) -> None:
    size = data.draw(st.sampled_from([1, 8, 100, 1000]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))

    def values() -> torch.Tensor:
        some = torch.tensor(data.draw(st.lists(NUMBERS, min_size=8, max_size=8)))
        noise = torch.randn(size, generator=generator) * 0.01
        return torch.where(
            torch.rand(size, generator=generator) < 0.4, some.repeat(-(-size // 8))[:size], noise
        ).to(dtype)

    base, vectors = values(), [values() for _ in range(count)]
    masks = [torch.rand(size, generator=generator) < 0.6 for _ in vectors]
    scales = [data.draw(st.sampled_from([1.0, 1.25, 2.0])) for _ in vectors]
    weights = tuple(data.draw(st.sampled_from([0.6, 0.4, 1.0, -0.4, 0.0])) for _ in vectors)
    mix = Mix(weights=weights, elect=elect, normalize=normalize, scale=scale, work=dtype)

    expected = by_kernels(mix, base, vectors, masks, scales)

    assert torch.equal(bits(mixed(mix, base, vectors, masks, scales)), bits(expected))
    if count <= 4:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "_BLOCK", data.draw(st.sampled_from([7, 64, 1 << 16])))
            patch.setattr(kernels, "_can_script", lambda: scripted)
            scripted = data.draw(st.booleans())
            assert torch.equal(bits(by_bits(mix, base, vectors, masks, scales)), bits(expected))


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
def test_numbers_that_are_not_tame_go_through_the_kernels(odd: float) -> None:
    base = torch.zeros(8, dtype=torch.float16)
    vectors = [torch.full((8,), odd, dtype=torch.float16), torch.ones(8, dtype=torch.float16)]
    masks = [torch.tensor([True, False] * 4), torch.ones(8, dtype=torch.bool)]
    mix = Mix(weights=(2.0, 0.5), elect=True, normalize=True, scale=1.0, work=torch.float16)

    found = mixed(mix, base, vectors, masks, [1.0, 1.0])

    assert torch.equal(bits(found), bits(by_kernels(mix, base, vectors, masks, [1.0, 1.0])))
    assert not torch.equal(bits(found), bits(by_bits(mix, base, vectors, masks, [1.0, 1.0])))
