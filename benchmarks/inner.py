"""What is timed inside its own process, imports excluded: prints seconds and peak memory as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def ours(folder: str, threads: int, *, files: bool) -> None:
    from parentage.manifest.hashing import hash_model
    from parentage.manifest.model import open_model

    start = time.perf_counter()
    with open_model(Path(folder)) as model:
        hash_model(model, files=list(model.files.files) if files else [], threads=threads)
    report(start)


def model_signing(folder: str) -> None:
    from model_signing import hashing

    start = time.perf_counter()
    hashing.Config().use_file_serialization(hashing_algorithm="sha256").hash(folder)
    report(start)


def plain_read(folder: str, threads: int) -> None:
    """Read every file in the blocks that we use, and do nothing with them."""

    def one(path: Path) -> None:
        buffer = memoryview(bytearray(1 << 20))
        descriptor = os.open(path, os.O_RDONLY)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, sorted(Path(folder).glob("*.safetensors"))))
    report(start)


def report(start: float) -> None:
    print(json.dumps({"seconds": time.perf_counter() - start, "rss": peak_mb()}))


if __name__ == "__main__":
    kind, folder, *rest = sys.argv[1:]
    if kind == "ours":
        ours(folder, int(rest[0]), files=False)
    elif kind == "ours-files":
        ours(folder, int(rest[0]), files=True)
    elif kind == "model-signing":
        model_signing(folder)
    else:
        plain_read(folder, int(rest[0]))
