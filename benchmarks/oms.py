"""Sign and verify a release of 200 files and 4 GB beside model_signing 1.1.1: whole processes, wall time.

    python benchmarks/oms.py [--quick] [--rounds N]      --quick: 400 MB

Both sides read the same bytes (hard links) from the page cache and use all cores; rounds are interleaved.
Needs model_signing (make peers).
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import data
from measure import HEAD, Case, Row, interleave
from run import MODEL_SIGNING, parentage

PY = [sys.executable, "-m", "parentage"]
FILES = 200


def cases(work: Path, peer: str) -> list[tuple[str, Case, Case, float]]:
    """Return what is compared: ours, theirs, and the ratio that we want at most."""
    private, public = work / "k.key", work / "k.pub"
    parentage("keygen", "-o", str(private), "--no-passphrase")
    plain, release, bundle = work / "plain", work / "release", work / "theirs.sig"
    theirs = [str(plain), "--signature", str(bundle)]
    sign = Case("model_signing sign", [peer, "sign", "key", *theirs, "--private_key", str(private)])
    check = Case(
        "model_signing verify", [peer, "verify", "key", *theirs, "--public_key", str(public)]
    )
    both = ["--key", str(public)]
    return [
        (
            "sign, tensor digests and lineage included",
            Case("sign", [*PY, "sign", str(release), "--observed", "--key", str(private)]),
            sign,
            0.95,
        ),
        (
            "verify every file by SHA-256",
            Case("oms verify", [*PY, "oms", "verify", str(release), *both]),
            check,
            0.8,
        ),
        (
            "verify the same bytes by tensor and header digests, and the lineage",
            Case("verify", [*PY, "verify", str(release), *both, "--level", "integrity"]),
            check,
            0.45,
        ),
    ]


def row(what: str, ours: Case, theirs: Case, goal: float) -> Row:
    value = ours.seconds / theirs.seconds
    return Row(
        what,
        f"{ours.seconds:.2f} s",
        f"{theirs.name} {theirs.seconds:.2f} s",
        value,
        f"<= {goal}",
        value <= goal,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if MODEL_SIGNING is None:
        sys.exit("model_signing is not installed: make peers")
    with tempfile.TemporaryDirectory(prefix="parentage-bench-") as folder:
        work = Path(folder)
        size = data.many_files(work / "plain", FILES, 2 if given.quick else 20)
        (work / "release").mkdir()
        for path in (work / "plain").iterdir():
            os.link(path, work / "release" / path.name)
        compared = cases(work, MODEL_SIGNING)
        ordered = {id(case): case for _, ours, theirs, _ in compared for case in (theirs, ours)}
        # Signing goes first: what is verified is what was signed in the same round.
        interleave(sorted(ordered.values(), key=lambda case: "verify" in case.name), given.rounds)
        print(
            f"{size / 1e9:.2f} GB in {FILES} shards, page cache; {len(os.sched_getaffinity(0))} cores, "
            f"Linux {platform.release()}, Python {platform.python_version()}; "
            f"medians of {given.rounds} interleaved rounds\n\n{HEAD}"
        )
        for what, ours, theirs, goal in compared:
            print(row(what, ours, theirs, goal))


if __name__ == "__main__":
    main()
