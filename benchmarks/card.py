"""Wall time of `parentage card check` and of the commit hook, each a whole process, against one second.

    python benchmarks/card.py [--runs 9]

The release is made here: 94 shards with 1,000 tensors each, of which only headers and holes are on disk,
a tensor table of as many lines, and a card with a thousand scores. No weights are read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parentage.manifest import digest

SHARDS, TENSORS = 94, 1_000
LIMIT = 1.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        release = Path(folder) / "rio"
        size = make(release)
        print(f"{SHARDS} shards, {SHARDS * TENSORS:,} tensors, {size / 1e9:.0f} GB (holes), table of "
              f"{(release / '.parentage/tensors.jsonl').stat().st_size / 1e6:.0f} MB, "
              f"card of {(release / 'README.md').stat().st_size / 1e3:.0f} kB")  # fmt: skip
        met = True
        for name, arguments in (
            ("card check", ["card", "check", str(release)]),
            ("hook parentage-card", ["staged", "--card", str(release / "README.md")]),
            ("hook parentage-check", ["staged", str(release / "README.md")]),
        ):
            seconds, cpu = medians(arguments, runs)
            met &= seconds < LIMIT
            print(
                f"{name:<22}{seconds:6.2f} s ({cpu:.2f} s of CPU)   {'met' if seconds < LIMIT else 'missed'} (goal: < {LIMIT:.0f} s)"
            )
    return 0 if met else 1


def medians(arguments: list[str], runs: int) -> tuple[float, float]:
    """Return wall and CPU seconds of the whole process."""
    taken, used = [], []
    for _ in range(runs):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "parentage", *arguments], capture_output=True, check=False
        )
        taken.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode != 0:
            sys.exit(done.stdout.decode() + done.stderr.decode())
    return statistics.median(taken), statistics.median(used)


def make(release: Path) -> int:
    """Write the release and return the bytes that its weights would have."""
    (release / ".parentage").mkdir(parents=True)
    tensors, files, total = [], [], 0
    nbytes = 8_192 * 1_024
    identity = digest.identity(
        digest.B3, "BF16", (nbytes // 2,), nbytes, bytes(32 * (nbytes >> 20))
    )
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        entries = {
            f"model.layers.{shard}.experts.{i:04}.weight": {
                "dtype": "BF16", "shape": [nbytes // 2], "data_offsets": [i * nbytes, (i + 1) * nbytes],
            }
            for i in range(TENSORS)
        }  # fmt: skip
        raw = json.dumps(entries).encode()
        raw += b" " * (-len(raw) % 8)
        header = len(raw).to_bytes(8, "little") + raw
        size = len(header) + TENSORS * nbytes
        with (release / name).open("wb") as stream:
            stream.write(header)
            stream.truncate(size)
        total += size
        for tensor, entry in entries.items():
            start, end = (len(header) + at for at in entry["data_offsets"])
            tensors.append({"dtype": "BF16", "file": name, "identity": {"ptd1-b3": identity},
                            "name": tensor, "offsets": [start, end], "shape": entry["shape"]})  # fmt: skip
        files.append(
            {
                "file": name,
                "header": hashlib.sha256(header).hexdigest(),
                "sha256": "0" * 64,
                "size": size,
            }
        )
    tensors.sort(key=lambda line: line["name"].encode())
    lines = [json.dumps(line, separators=(",", ":")) for line in tensors + files]
    table = release / ".parentage" / "tensors.jsonl"
    table.write_text("\n".join(lines) + "\n")
    root = digest.weights_root(digest.B3, ((line["name"], identity) for line in tensors))
    draft = {
        "weights": {"root": {"ptd1-b3": root}, "tensors": len(tensors), "bytes": str(total)},
        "parents": [
            {"id": name, "weights": {"ptd1-b3": "1" * 64}, "uri": f"pkg:huggingface/{repo}@{'a' * 40}", "license": "Apache-2.0"}
            for name, repo in (("nex", "nex-agi/nex-n2-pro"), ("qwen", "qwen/qwen3.5-397b-a17b"))
        ],
        "recipe": {"steps": [{
            "id": "merge", "op": "weighted_sum/v1", "inputs": ["nex", "qwen"],
            "params": {"weights": ["0.6", "0.4"], "normalize": True}, "arithmetic": {"profile": "parentage-1"},
        }]},
        "created": "2026-06-14T09:00:00Z",
    }  # fmt: skip
    (release / ".parentage" / "draft.json").write_text(json.dumps(draft))
    scores = "".join(
        f"  - task: {{type: Retrieval}}\n    dataset: {{type: mteb/{i}, name: MTEB {i}}}\n    metrics:\n    - type: ndcg_at_10\n      value: 0.{i:04}\n"
        for i in range(1_000)
    )
    card = (
        "base_model: [nex-agi/nex-n2-pro, qwen/qwen3.5-397b-a17b]\nbase_model_relation: merge\n"
        f"license: apache-2.0\nmodel-index:\n- name: rio\n  results:\n{scores}"
    )
    (release / "README.md").write_text(
        f"---\n{card}---\n# Rio\n" + "A merge of two models.\n" * 500
    )
    later = time.time() + 1
    os.utime(table, (later, later))
    return total


if __name__ == "__main__":
    sys.exit(main())
