"""Write safetensors files in a stream: nothing is whole in memory.

Header JSON is sorted by name and padded with spaces to a multiple of 8 bytes, so the same tensors
give the same file. The file appears under its name only when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from parentage.manifest import atomic
from parentage.manifest.errors import UsageError
from parentage.manifest.tensor import TensorSpec

INDEX: Final = "model.safetensors.index.json"

Pieces = Iterable[bytes | memoryview]


def plan_shards(specs: Sequence[TensorSpec], shard_bytes: int) -> dict[str, list[TensorSpec]]:
    """Return file name -> tensors, in name order, each file at most `shard_bytes` where it can be."""
    if shard_bytes <= 0:
        raise UsageError("shard size must be positive", found=str(shard_bytes))
    groups: list[list[TensorSpec]] = [[]]
    room = shard_bytes
    for spec in sorted(specs, key=lambda spec: spec.name.encode()):
        if groups[-1] and spec.nbytes > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(spec)
        room -= spec.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    count = len(groups)
    return {
        f"model-{number:05d}-of-{count:05d}.safetensors": group
        for number, group in enumerate(groups, 1)
    }


def header_bytes(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Return length and header of a file that holds `specs` in this order."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for spec in specs:
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def write_file(
    path: Path, specs: Sequence[TensorSpec], pieces: Pieces, metadata: Mapping[str, str]
) -> None:
    """Write one safetensors file from its header and the bytes of its tensors, in order.

    Raises:
        WriteFailedError: the disk is full; nothing stays behind.
    """
    with atomic.replacing(path) as stream:
        _fill(stream, header_bytes(specs, metadata), pieces)


def _fill(stream: BinaryIO, head: bytes, pieces: Pieces) -> None:
    stream.write(head)
    stream.writelines(pieces)


def write_index(folder: Path, shards: Mapping[str, Sequence[TensorSpec]]) -> None:
    """Write `model.safetensors.index.json` where there is more than one shard."""
    if len(shards) < 2:
        return
    weight_map = {spec.name: file for file, specs in shards.items() for spec in specs}
    total = sum(spec.nbytes for specs in shards.values() for spec in specs)
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    atomic.write_bytes(folder / INDEX, json.dumps(document, indent=2).encode() + b"\n")
