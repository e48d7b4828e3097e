"""What honest merges reach, and what false claims come to: python benchmarks/soundness.py [honest|false] [CASE...].

False: claims about merges of real mergekit that are wrong in one thing; none may reach a rung.
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
from msgspec.structs import replace  # noqa: E402
from siblings import FAMILIES, Family, make_family, merge_all, recomputed, usable  # noqa: E402

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


#: (case, what the config says, what the claim says instead); `@name` is a parent that is swapped.
FALSE = (
    ("linear", "0.6", "0.600001"),
    ("linear", "0.6", "0.6001"),
    ("linear", "0.6", "0.61"),
    ("linear-fp32", "0.7", "0.700001"),
    ("task", "0.5", "0.505"),
    ("slerp-fp32", "0.62", "0.63"),
    ("nuslerp", "0.3", "0.31"),
    ("ties", "density: 0.5", "density: 0.501"),
    ("ties-fp32", "density: 0.3", "density: 0.301"),
    ("dare_linear", "density: 0.4", "density: 0.404"),
    ("dare_ties", "weight: 0.6", "weight: 0.61"),
    *(
        (name, "@right", "@left")
        for name in (
            *("linear", "task", "slerp", "nuslerp", "nuslerp-base-fp32", "multislerp", "karcher"),
            *("ties", "breadcrumbs", "dare_linear", "dare_ties", "della", "model_stock", "sce"),
            *("nearswap", "arcee_fusion", "ram"),
        )
    ),
)


def false() -> int:
    """Print what false claims come to; return how many reached a rung."""
    accepted = 0
    print("| case | true | claimed | " + " | ".join(RUNGS) + " |")
    print("|" + "---|" * (len(RUNGS) + 3))
    family = Family(seed=6, far=0.3, touched=1.0)
    with tempfile.TemporaryDirectory() as folder:
        models = make_family(Path(folder) / "models", family)
        merge_all("0.1.5", models, list(dict.fromkeys(case for case, _, _ in FALSE)), 1)
        for case, true, claimed in FALSE:
            config, parents, shown = models / f"{case}-0.1.5.yml", {}, claimed
            if true.startswith("@"):
                parents = {true[1:]: "other"}
                if not (models / "other").exists():
                    stranger = replace(family, seed=99)
                    make_family(Path(folder) / "strangers", stranger)
                    (Path(folder) / "strangers" / "right").rename(models / "other")
                shown = "a stranger"
            else:
                config = models / "claimed.yml"
                text = (models / f"{case}-0.1.5.yml").read_text()
                config.write_text(text.replace(true, claimed, 1))
            out = models / f"out-{case}-0.1.5"
            results = recomputed(models, config, out, "mk-0.1.5", SEED, parents=parents)
            found = Counter(str(result.rung) for result in results)
            accepted += set(found) <= {"A", "B", "C"}
            counts = " | ".join(str(found[rung] or "") for rung in RUNGS)
            print(f"| {case} | {true} | {shown} | {counts} |", flush=True)
    print(f"accepted: {accepted} of {len(FALSE)}")
    return accepted


if __name__ == "__main__":
    what, cases = (sys.argv[1:2] or ["honest"])[0], sys.argv[2:]
    sys.exit(1 if (false() if what == "false" else honest(cases)) else 0)
