"""What a caller of `verify` asks for."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from parentage.attest.lock import Entry
from parentage.manifest.hashing import Digests, Progress
from parentage.verify.way import Way

Level = Literal["remote", "integrity", "recompute"]


class Remembered(msgspec.Struct, frozen=True):
    """What a lock file remembers of the release.

    Attributes:
        name: of the release in the file.
        entry: None: it is not known there.
    """

    name: str
    entry: Entry | None = None


class Demands(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asks for.

    Attributes:
        level: "recompute"; "integrity" for signature and digests only; "remote" where weights are not read.
        rung: weakest rung that counts as verified: "A", "B" or "C".
        whole_files: compare the SHA-256 of weights files too.
        device: "auto", "cpu", "cuda", "all" CUDA devices, or a list such as "cuda:0,cuda:1".
        threads: of digest and recompute; None: all cores of this process.
        progress: told of the bytes done.
        way: threads or Ray, all of it or a shard or a sample, with a journal or without.
        now: the time that statuses are judged at; None: the clock's.
        remembered: what the release is compared with; None: nothing.
        ancestors: releases further up than the parents, whose claims may be followed.
        fetch_parents: bring parents that were not given by id from where the lineage says they are.
        named: what the report calls the release; empty: its folder.
        known: digests that were computed from these very bytes on their way to the disk.
    """

    level: Level = "recompute"
    rung: Literal["A", "B", "C"] = "A"
    whole_files: bool = False
    device: str = "auto"
    threads: int | None = None
    progress: Progress | None = None
    way: Way = Way()
    now: datetime | None = None
    remembered: Remembered | None = None
    ancestors: tuple[Path, ...] = ()
    fetch_parents: bool = False
    named: str = ""
    known: Digests | None = None
