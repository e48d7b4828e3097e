"""Measure against the peers, side by side in one run: interleaved, medians, ratios.

    python benchmarks/run.py [--quick] [--only hash|merge|start] [--rounds N]

Peers: `make peers` (model-signing 1.1.1, mergekit 0.1.5), and b3sum from the system's packages.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import data
from measure import HEAD, Case, Row, interleave

ROOT = Path(__file__).resolve().parent.parent
INNER = str(Path(__file__).with_name("inner.py"))
PY = sys.executable
THREADS = len(os.sched_getaffinity(0))


def peer(variable: str, default: str) -> str | None:
    path = Path(os.environ.get(variable, ROOT / ".peers" / default))
    return str(path) if path.exists() else None


MODEL_SIGNING = peer("PARENTAGE_MODEL_SIGNING", "model-signing/bin/model_signing")
MERGEKIT = peer("PARENTAGE_MERGEKIT_015", "mergekit-0.1.5/bin/mergekit-yaml")


def python_of(tool: str) -> str:
    return str(Path(tool).with_name("python"))


def rate(size: int, case: Case) -> str:
    return f"{size / case.seconds / 1e9:.2f} GB/s"


def bench_hash(work: Path, rounds: int, *, quick: bool) -> list[Row]:
    files = data.checkpoint(work / "big", 2 if quick else 28, 2048, seed=1, shard_bytes=450_000_000)
    size = sum(path.stat().st_size for path in files)
    folder, threads = str(work / "big"), str(THREADS)
    ours = Case("ours", [PY, INNER, "ours", folder, threads], inner=True)
    both = Case("ours-files", [PY, INNER, "ours-files", folder, threads], inner=True)
    cases, rows = [ours, both], []
    signing = (
        Case(
            "model_signing", [python_of(MODEL_SIGNING), INNER, "model-signing", folder], inner=True
        )
        if MODEL_SIGNING
        else None
    )
    b3sum = (
        Case("b3sum", ["b3sum", "--num-threads", threads, *map(str, files)])
        if shutil.which("b3sum")
        else None
    )
    cases += [case for case in (signing, b3sum) if case]
    interleave(cases, rounds)
    what = (
        f"tensor digests, {size / 1e9:.1f} GB in {len(files)} shards, page cache, {threads} threads"
    )
    if signing:
        rows.append(ratio(what, ours, signing, size, "model_signing sha256", 2.5))
        rows.append(
            ratio(
                "file SHA-256 and tensor digests in one pass",
                both,
                signing,
                size,
                "model_signing sha256 (files alone)",
                0.8,
            )
        )
    if b3sum:
        rows.append(ratio(what, ours, b3sum, size, "b3sum (whole process)", 1.0))
    limit = 64 + 8 * THREADS
    rows.append(
        Row(
            "peak memory of that pass",
            f"{ours.rss:.0f} MB",
            f"{limit} MB",
            ours.rss / limit,
            "<= 1",
            ours.rss <= limit,
        )
    )
    cold = Case("cold", ours.command, inner=True, cold=files)
    plain = Case("read", [PY, INNER, "read", folder, threads], inner=True, cold=files)
    interleave([cold, plain], rounds)
    rows.append(ratio("tensor digests, cold", cold, plain, size, "plain read, cold", 0.9))
    shutil.rmtree(work / "big")
    return rows


def ratio(what: str, ours: Case, other: Case, size: int, name: str, goal: float) -> Row:
    value = other.seconds / ours.seconds
    return Row(
        what, rate(size, ours), f"{name} {rate(size, other)}", value, f">= {goal}", value >= goal
    )


def parentage(*words: str) -> None:
    subprocess.run([PY, "-m", "parentage", *words], check=True, stdout=subprocess.DEVNULL)


def bench_merge(work: Path, rounds: int, *, quick: bool) -> list[Row]:
    if MERGEKIT is None:
        return []
    layers = 1 if quick else 11
    for seed, name in enumerate(("a", "b")):
        data.checkpoint(work / name, layers, 1536, seed=seed, shard_bytes=10**12)
    config = work / "merge.yml"
    config.write_text(
        f"merge_method: linear\ndtype: bfloat16\nmodels:\n"
        f"  - {{model: {work}/a, parameters: {{weight: 0.6}}}}\n  - {{model: {work}/b, parameters: {{weight: 0.4}}}}\n"
    )
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    flags = ["--no-copy-tokenizer", "--no-write-model-card", "-j", str(THREADS)]
    out = work / "merged"
    peer_case = Case("mergekit", [MERGEKIT, str(config), str(out), *flags])
    peer_case.run()
    peer_case.samples.clear()
    (out / "mergekit_config.yml").unlink(missing_ok=True)
    parentage("keygen", "-o", str(work / "k.key"), "--no-passphrase")
    release = work / "release"
    shutil.copytree(out, release)
    parentage(
        "declare",
        str(release),
        "--mergekit",
        str(config),
        "--parent",
        f"a={work}/a",
        "--parent",
        f"b={work}/b",
    )
    parentage("sign", str(release), "--key", str(work / "k.key"))
    ours = Case(
        "verify",
        [
            PY,
            "-m",
            "parentage",
            "verify",
            str(release),
            "--key",
            str(work / "k.pub"),
            "--parent",
            f"{work}/a",
            "--parent",
            f"{work}/b",
        ],
    )
    interleave([ours, peer_case], rounds)
    size = (work / "a" / "model.safetensors").stat().st_size
    what = f"verify a linear merge of two {size / 1e9:.1f} GB parents, whole process, all digests included"
    faster, cpu = peer_case.seconds / ours.seconds, ours.cpu / peer_case.cpu
    return [
        Row(
            what,
            f"{ours.seconds:.2f} s",
            f"mergekit-yaml 0.1.5 producing it {peer_case.seconds:.2f} s",
            faster,
            ">= 5",
            faster >= 5,
        ),
        Row(
            "its CPU time",
            f"{ours.cpu:.2f} s",
            f"{peer_case.cpu:.2f} s",
            cpu,
            "<= 0.35",
            cpu <= 0.35,
        ),
        Row(
            "its peak memory, torch included",
            f"{ours.rss:.0f} MB",
            f"350 MB (mergekit {peer_case.rss:.0f} MB)",
            ours.rss / 350,
            "<= 1",
            ours.rss <= 350,
        ),
    ]


def bench_start(work: Path, rounds: int) -> list[Row]:
    release = work / "small"
    release.mkdir()
    from parentage.manifest.tensor import TensorSpec
    from parentage.manifest.writer import write_file

    spec = TensorSpec("w", "F32", (2_500_000,))
    write_file(release / "model.safetensors", [spec], [os.urandom(spec.nbytes)], {})
    key = work / "start.key"
    parentage("keygen", "-o", str(key), "--no-passphrase")
    parentage("declare", str(release), "--observed")
    parentage("sign", str(release), "--key", str(key))
    public = str(key.with_suffix(".pub"))
    tool = [str(Path(PY).with_name("parentage"))]
    if not Path(tool[0]).exists():
        tool = [PY, "-m", "parentage"]
    floor = Case("click", [PY, "-c", "import click"])
    show = Case("show", [*tool, "show", str(release)])
    help_ = Case("help", [*tool, "--help"])
    verify = Case(
        "verify", [*tool, "verify", str(release), "--key", public, "--level", "integrity"]
    )
    cases = [floor, show, help_, verify]
    theirs = None
    if MODEL_SIGNING:
        command = [
            MODEL_SIGNING,
            "verify",
            "key",
            str(release),
            "--signature",
            str(release / "model.sig"),
            "--public_key",
            public,
        ]
        theirs = Case("model_signing", command)
        cases.append(theirs)
    interleave(cases, 3 * rounds)
    rows = []
    for name, case in (("parentage --help", help_), ("parentage show", show)):
        value = case.seconds / floor.seconds
        rows.append(
            Row(name, ms(case), f'python -c "import click" {ms(floor)}', value, "<= 3", value <= 3)
        )
    if theirs:
        value = verify.seconds / theirs.seconds
        rows.append(
            Row(
                "verify a signed 10 MB release, offline",
                ms(verify),
                f"model_signing verify key {ms(theirs)}",
                value,
                "<= 0.3",
                value <= 0.3,
            )
        )
    return rows


def ms(case: Case) -> str:
    return f"{case.seconds * 1e3:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["hash", "merge", "start"])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds = 1 if given.quick else given.rounds
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    print(
        f"{model}, {THREADS} cores, Linux {platform.release()}, Python {platform.python_version()}; medians of {rounds} interleaved rounds\n"
    )
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="parentage-bench-") as folder:
        work = Path(folder)
        if given.only in {None, "start"}:
            show(bench_start(work, rounds))
        if given.only in {None, "hash"}:
            show(bench_hash(work, rounds, quick=given.quick))
        if given.only in {None, "merge"}:
            show(bench_merge(work, rounds, quick=given.quick))
    for name, found in (
        ("model-signing", MODEL_SIGNING),
        ("mergekit 0.1.5", MERGEKIT),
        ("b3sum", shutil.which("b3sum")),
    ):
        if not found:
            print(
                f"\n{name} is not installed: its rows are missing (make peers; b3sum from the system's packages)"
            )


def show(rows: list[Row]) -> None:
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
