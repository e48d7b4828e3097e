"""What honest merges reach, and what false claims come to: python benchmarks/soundness.py [CASE...].

Honest: the real mergekit on siblings 0.1 % to 100 % apart, in several dtypes, shapes and thread counts.
No honest tensor may be refuted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "tests" / "support"))

from mergekit_cases import SEED  # noqa: E402
from siblings import FAMILIES, make_family, merge_all, recomputed, usable  # noqa: E402

RUNGS = ("A", "B", "C", "D", "?", "refuted")


def honest(picked: list[str]) -> int:
    """Print the rungs of honest merges; return how many tensors were refuted."""
    refuted = 0
    print("| engine | parents | case | " + " | ".join(RUNGS) + " | s |")
    print("|" + "---|" * (len(RUNGS) + 4))
    totals: Counter[str] = Counter()
    for label, family in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            models = make_family(Path(folder) / "models", family)
            for version in ("0.1.5", "0.1.4"):
                names = [name for name in usable(version) if not picked or name in picked]
                merge_all(version, models, names, family.threads)
                for name in names:
                    began = time.perf_counter()
                    config = models / f"{name}-{version}.yml"
                    out = models / f"out-{name}-{version}"
                    seed = None if name.endswith("-unseeded") else SEED
                    results = recomputed(models, config, out, f"mk-{version}", seed)
                    found = Counter(str(result.rung) for result in results)
                    totals += found
                    refuted += found["refuted"]
                    counts = " | ".join(str(found[rung] or "") for rung in RUNGS)
                    spent = time.perf_counter() - began
                    print(
                        f"| mk-{version} | {label} | {name} | {counts} | {spent:.1f} |", flush=True
                    )
    print(f"all: {dict(totals)}")
    return refuted


if __name__ == "__main__":
    sys.exit(1 if honest(sys.argv[1:]) else 0)
