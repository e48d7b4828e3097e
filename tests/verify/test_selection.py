"""Where the largest end, against a sort: by all keys, by a sample that is right, and by one that is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from parentage.verify import selection
from parentage.verify.selection import Cut, cuts, keys_of

SIZE = (1 << 20) + 777


def values(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    found = torch.randn(SIZE, generator=generator)
    if kind == "half untouched":
        found *= torch.rand(SIZE, generator=generator) < 0.5
    elif kind == "few numbers":
        found = torch.randint(0, 3, (SIZE,), generator=generator).float()
    elif kind == "one number":
        found = torch.full((SIZE,), -0.25)
    elif kind == "sorted":
        found = found.sort().values
    elif kind == "with NaN":
        found[:5] = torch.nan
    return found.to(torch.bfloat16)


def by_sort(keys: np.ndarray, rank: int) -> Cut:
    if rank == 0:
        return Cut(0, -1, 0, 0)
    key = int(np.sort(keys)[::-1][rank - 1])
    return Cut(rank, key, int((keys > key).sum()), int((keys == key).sum()))


def in_pieces(streams: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    for start in range(0, SIZE, 300_000):
        yield [stream[start : start + 300_000] for stream in streams]


def spread(stream: Tensor) -> Tensor:
    return stream[:: SIZE // 200_000].contiguous()


def first(stream: Tensor) -> Tensor:
    return stream[:4096]


@pytest.mark.parametrize(
    "kind", ["normal", "half untouched", "few numbers", "one number", "sorted", "with NaN"]
)
@pytest.mark.parametrize("sample", [spread, first, None])
def test_cuts_are_where_a_sort_has_them(kind: str, sample: object) -> None:
    streams = [keys_of(values(kind)), keys_of(values("normal")).flip(0)]
    wanted = [[1, SIZE // 2, SIZE], [0, SIZE // 3]]

    found = cuts(
        lambda: in_pieces(streams),
        15,
        wanted,
        elements=SIZE,
        sample=(lambda: [sample(stream) for stream in streams]) if callable(sample) else None,
    )

    for stream, ranks, row in zip(streams, wanted, found, strict=True):
        assert row == [by_sort(stream.numpy(), rank) for rank in ranks]


def test_a_sample_saves_counting_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = keys_of(values("normal"))
    counted: list[int] = []
    count = selection._count

    def counting(keys: Tensor, *rest: object) -> None:
        counted.append(keys.numel())
        count(keys, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(selection, "_count", counting)
    cuts(
        lambda: in_pieces([stream]),
        15,
        [[SIZE // 3]],
        elements=SIZE,
        sample=lambda: [spread(stream)],
    )

    assert sum(counted) == spread(stream).numel()
