"""How a recompute is to be run. Nothing of it changes what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from parentage.manifest.errors import UsageError


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """The choices.

    Attributes:
        engine: "threads" of this process, or "ray" workers.
        ray_address: of a Ray cluster that sees the same files; "" starts one on this machine.
        resume: journal of finished tasks, read and continued.
        shard: (i, n): only the i-th of n shares of the tensors, i from 1.
        every_engine: with `shard`, try every engine of a profile on every tensor.
        sample: compare only so many chunks.
        sample_seed: hex, to repeat a sample; "" draws one, once the release's digest is known.
    """

    engine: Literal["threads", "ray"] = "threads"
    ray_address: str = ""
    resume: Path | None = None
    shard: tuple[int, int] | None = None
    every_engine: bool = False
    sample: int | None = None
    sample_seed: str = ""

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: a shard that is none, a sample of nothing, both, or a seed that is not hex.
        """
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1] <= MAX_SHARDS:
            raise UsageError(
                "no such shard",
                expected=f"1/n to n/n, n at most {MAX_SHARDS}",
                found=f"{self.shard[0]}/{self.shard[1]}",
            )
        if self.sample is not None and (self.sample < 1 or self.shard is not None):
            raise UsageError("a sample is of one chunk at least, and of the whole release")
        if self.sample_seed:
            try:
                bytes.fromhex(self.sample_seed)
            except ValueError as error:
                raise UsageError(
                    "not a seed", expected="hex digits", found=self.sample_seed
                ) from error


MAX_SHARDS = 100_000
