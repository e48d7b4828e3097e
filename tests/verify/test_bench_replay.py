"""Places of a replay: from the signed statement and a later nonce, and nothing else."""

from __future__ import annotations

import hashlib
from collections import Counter

from parentage.verify.benchmarks.replaying import positions

CLAIM, NONCE = "4" * 64, "6" * 64


def test_places_are_the_smallest_ranks() -> None:
    seed = hashlib.sha256(
        b"parentage benchmark replay v0.1" + bytes.fromhex(CLAIM) + bytes.fromhex(NONCE)
    ).digest()
    ranks = {at: hashlib.sha256(seed + at.to_bytes(8, "little")).hexdigest() for at in range(1000)}
    assert positions(CLAIM, NONCE, 1000, 16) == sorted(sorted(ranks, key=ranks.__getitem__)[:16])


def test_another_statement_or_nonce_draws_other_places() -> None:
    drawn = {
        tuple(positions(claim, nonce, 1000, 16))
        for claim in (CLAIM, NONCE)
        for nonce in (CLAIM, NONCE)
    }
    assert len(drawn) == 4


def test_all_places_where_there_are_few() -> None:
    assert positions(CLAIM, NONCE, 5, 16) == [0, 1, 2, 3, 4]


def test_every_place_is_as_likely() -> None:
    counts = Counter(at for n in range(2000) for at in positions(CLAIM, f"{n:064x}", 10, 3))
    # 600 each; five standard deviations of a binomial of 2000 and 0.3 are 102.
    assert all(498 < counts[at] < 702 for at in range(10))
