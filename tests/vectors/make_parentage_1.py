"""Make the golden vectors of parentage-1: `python tests/vectors/make_parentage_1.py` adds what is missing.

A vector is kept for ever: published bits never change. The engine writes them; tests/oracle/parentage1.py,
written from docs/parentage-1.md and sharing no code with the engine, must come to the same bits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from parentage1_vectors import HERE, by_engine, by_oracle, models, oracle, sources

IDS = {"dtype": "I64", "shape": [3], "bits": " ".join(f"{n:016x}" for n in (5, 0, 2**63))}
#: Zeros of both signs, subnormals, infinities, NaN, the largest numbers: in float64, rounded to each dtype.
ODD = [1.0, -0.0, 5e-324, 1e-40, float("inf"), float("nan"), -1.5, 3e38, 65504.0, 2.0**-24]
DTYPES = ("F32", "BF16", "F16", "F64")
MADE = {"arithmetic": {"profile": "parentage-1"}}
#: The dtypes that parents have, and the one that the merge is stored in (None: that of the first).
COMBINATIONS = (("F32", None), ("BF16", "F16"), ("F16", "BF16"), ("F64", None))


def literal(dtype: str, shape: tuple[int, ...], values: Any) -> dict[str, Any]:
    bits = oracle.stored(np.asarray(values, dtype=float).reshape(-1), dtype)
    return oracle.write(oracle.Tensor(dtype, shape, bits))


def parents(dtype: str) -> dict[str, Any]:
    """Four models: near one another, far apart, with ties, with odd numbers, and longer than a block."""
    found: dict[str, Any] = {}
    for number, model in enumerate(("base", "a", "b", "c")):
        near = {
            f"layers.{i}.w": oracle.stream(f"near {i}", 24)
            + 0.25 * number * oracle.stream(f"{model} {i}", 24)
            for i in range(2)
        }
        rng = oracle.stream(f"{model} ties", 20)
        found[model] = {
            **{name: literal(dtype, (4, 6), values) for name, values in near.items()},
            "far": literal(dtype, (3, 5), oracle.stream(f"{model} far", 15)),
            "ties": literal(
                dtype, (20,), 1 + number * np.sign(rng) * np.ceil(np.abs(rng) * 48) / 8
            ),
            "odd": literal(dtype, (2, 5), np.roll(ODD, number) if number < 3 else ODD),
            "cube": literal(dtype, (3, 2, 4), oracle.stream(f"{model} cube", 24)),
            "scalar": literal(dtype, (), [0.5 + number / 8]),
            "long": {"dtype": dtype, "shape": [2, 4500], "stream": f"{model} long"},
            "tall": {"dtype": dtype, "shape": [150, 3], "stream": f"{model} tall"},
            "ids": IDS,
        }
    return found


def adapter(dtype: str) -> dict[str, Any]:
    """A base and LoRA pairs for one of its tensors, W as (out, in) and as (in, out)."""
    pair = {
        "base_model.model.q.lora_A.weight": literal(dtype, (3, 8), oracle.stream("A", 24)),
        "base_model.model.q.lora_B.weight": literal(dtype, (6, 3), oracle.stream("B", 18)),
    }
    return {
        "base": {
            "q.weight": literal(dtype, (6, 8), oracle.stream("W", 48)),
            "k.weight": literal(dtype, (6, 8), oracle.stream("K", 48)),
        },
        "turned": {"q.weight": literal(dtype, (8, 6), oracle.stream("W", 48))},
        "adapter": pair,
    }


def task(sparsify: str, **more: Any) -> dict[str, Any]:
    params = {"base": "base", "weights": ["0.6", "0.5"], "sparsify": sparsify, **more}
    return {"op": "task_arithmetic/v1", "inputs": ["base", "a", "b"], "params": params}


OVERRIDE = {"tensors": ["layers.1.*"]}
STEPS: dict[str, dict[str, Any]] = {
    "copy": {"op": "copy/v1", "inputs": ["a"], "params": {"exclude": ["layers.*.w"]}},
    "rename": {"op": "rename/v1", "inputs": ["a"], "params": {"names": {"far": "near.w"}}},
    "layer_select": {
        "op": "layer_select/v1",
        "inputs": ["a", "b"],
        "params": {
            "prefix": "layers.",
            "slices": [{"input": "a", "start": 0, "end": 2}, {"input": "b", "start": 1, "end": 2}],
            "rest": [{"tensors": "odd", "input": "b"}, {"tensors": "*", "input": "a"}],
        },
    },
    "scale": {
        "op": "scale/v1",
        "inputs": ["a"],
        "params": {"factor": "1", "overrides": [{"tensors": ["*.w", "odd"], "factor": "0.7"}]},
    },
    "linear": {
        "op": "weighted_sum/v1",
        "inputs": ["a", "b", "c"],
        "params": {
            "weights": ["0.6", "0.3", "0.2"],
            "normalize": True,
            "overrides": [OVERRIDE | {"weights": ["0x1.8p-1", "-0.1", "0"]}],
        },
    },
    "add-difference": {
        "op": "weighted_sum/v1",
        "inputs": ["a", "b", "c"],
        "params": {"weights": ["1", "0.3", "-0.3"], "normalize": False},
    },
    "task-vectors": {
        "op": "weighted_sum/v1",
        "inputs": ["a", "base", "b"],
        "params": {"weights": ["0.7", "0.4"], "normalize": True, "base": "base", "scale": "1.1"},
    },
    "slerp": {
        "op": "slerp/v1",
        "inputs": ["a", "b"],
        "params": {"t": "0.35", "overrides": [OVERRIDE | {"t": "1"}]},
    },
    "nuslerp": {
        "op": "nuslerp/v1",
        "inputs": ["a", "b"],
        "params": {"weights": ["0.6", "0.3"], "overrides": [OVERRIDE | {"weights": ["1", "-1"]}]},
    },
    "nuslerp-base": {
        "op": "nuslerp/v1",
        "inputs": ["base", "a", "b"],
        "params": {"weights": ["0.6", "0.3"], "base": "base"},
    },
    "nuslerp-rows": {
        "op": "nuslerp/v1",
        "inputs": ["a", "b"],
        "params": {"weights": ["0.6", "0.3"], "flatten": False},
    },
    "nuslerp-rows-base": {
        "op": "nuslerp/v1",
        "inputs": ["a", "base", "b"],
        "params": {"weights": ["0.6", "0.9"], "base": "base", "flatten": False},
    },
    "nuslerp-columns": {
        "op": "nuslerp/v1",
        "inputs": ["a", "b"],
        "params": {"weights": ["0.6", "0.3"], "flatten": False, "rowWise": True},
    },
    "nuslerp-columns-base": {
        "op": "nuslerp/v1",
        "inputs": ["a", "b", "base"],
        "params": {"weights": ["5", "-0.3"], "base": "base", "flatten": False, "rowWise": True},
    },
    "multislerp": {
        "op": "multislerp/v1",
        "inputs": ["a", "b", "c"],
        "params": {
            "weights": ["0.5", "0.3", "0.4"],
            "overrides": [OVERRIDE | {"weights": ["1", "1", "1"]}],
        },
    },
    "multislerp-base": {
        "op": "multislerp/v1",
        "inputs": ["base", "a", "b"],
        "params": {"weights": ["0.7", "0.4"], "base": "base", "normalize": False},
    },
    "karcher": {"op": "karcher/v1", "inputs": ["a", "b", "c"], "params": {"maxIter": 4}},
    "model_stock": {
        "op": "model_stock/v1",
        "inputs": ["base", "a", "b", "c"],
        "params": {"base": "base"},
    },
    "model_stock-rows": {
        "op": "model_stock/v1",
        "inputs": ["a", "base", "b", "c"],
        "params": {"base": "base", "filterWise": True},
    },
    "ties": task(
        "magnitude",
        elect=True,
        normalize=True,
        densities=["0.5", "0.3"],
        overrides=[OVERRIDE | {"densities": ["1", "0.1"], "scale": "0.5"}],
    ),
    "magnitude-rescaled": task(
        "magnitude",
        elect=False,
        normalize=False,
        rescale=True,
        densities=["0.5", "0.3"],
        scale="0.8",
    ),
    "breadcrumbs": task(
        "outliers", elect=False, normalize=False, densities=["0.4", "0.7"], gammas=["0.1", "0.5"]
    ),
    "dare": task(
        "random", elect=True, normalize=True, rescale=True, densities=["0.4", "0.7"], seed=2**53 - 1
    ),
    "della": task(
        "della",
        elect=True,
        normalize=False,
        rescale=True,
        densities=["0.4", "0.7"],
        epsilons=["0.15", "0.1"],
        seed=7,
    ),
    "sce": {
        "op": "sce/v1",
        "inputs": ["base", "a", "b"],
        "params": {"base": "base", "selectTopk": "0.3"},
    },
    "sce-whole": {"op": "sce/v1", "inputs": ["a", "b", "base"], "params": {"base": "base"}},
    "nearswap": {"op": "nearswap/v1", "inputs": ["a", "b"], "params": {"t": "0.01"}},
    "arcee_fusion": {"op": "arcee_fusion/v1", "inputs": ["a", "b"]},
    "ram": {
        "op": "ram/v1",
        "inputs": ["base", "a", "b"],
        "params": {"base": "base", "epsilon": "0.01"},
    },
    "ramplus": {
        "op": "ram/v1",
        "inputs": ["base", "a", "b", "c"],
        "params": {"base": "base", "epsilon": "0.02", "r": "0.3", "alpha": "0.2"},
    },
}
NO_ARITHMETIC = {"copy", "rename", "layer_select"}
LORA: dict[str, dict[str, Any]] = {
    "lora": {"op": "lora_merge/v1", "inputs": ["base", "adapter"], "params": {"alpha": "16"}},
    "rslora": {
        "op": "lora_merge/v1",
        "inputs": ["base", "adapter"],
        "params": {"alpha": "16", "rsLora": True},
    },
    "lora-turned": {
        "op": "lora_merge/v1",
        "inputs": ["turned", "adapter"],
        "params": {"alpha": "2.5", "fanInFanOut": True},
    },
}


def planned(name: str) -> dict[str, dict[str, Any]]:
    """Return the cases of one file, without outputs."""
    fields = {**STEPS, **LORA}.get(name, {})
    kind = "lora-" if name in LORA else ""
    found = {}
    for dtype, store in COMBINATIONS:
        arithmetic = {} if name in NO_ARITHMETIC else {"profile": "parentage-1"}
        if store and arithmetic:
            arithmetic["store"] = store
        step = {"id": "s", **fields} | ({"arithmetic": arithmetic} if arithmetic else {})
        found[f"{dtype}-{store or dtype}"] = {"models": f"{kind}{dtype}", "step": step}
        if name in NO_ARITHMETIC:
            break
    return found


def casts() -> dict[str, dict[str, Any]]:
    """Return a cast from each dtype to each other."""
    return {
        f"{dtype}-{store}": {
            "models": dtype,
            "step": {
                "id": "s",
                "op": "cast/v1",
                "inputs": ["a"],
                "params": {"exclude": ["layers.0.*"]},
                "arithmetic": {"profile": "parentage-1", "store": store},
            },
        }
        for dtype in DTYPES
        for store in DTYPES
        if store != dtype
    }


def main() -> None:
    """Write what is missing, and say where the two implementations disagree."""
    HERE.mkdir(exist_ok=True)
    for dtype in DTYPES:
        for name, made in ((dtype, parents(dtype)), (f"lora-{dtype}", adapter(dtype))):
            path = HERE / f"models-{name}.json"
            if not path.exists():
                path.write_text(json.dumps(made, indent=1) + "\n")
    wrong = 0
    for name in (*STEPS, *LORA, "cast"):
        path = HERE / f"op-{name}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        for key, case in (casts() if name == "cast" else planned(name)).items():
            if key in known:
                continue
            with tempfile.TemporaryDirectory() as folder:
                used = {m: t for m, t in models(case).items() if m in case["step"]["inputs"]}
                case["output"] = by_engine(case, sources(used, Path(folder)))
            found = by_oracle(case)
            for tensor, written in case["output"].items():
                if found.get(tensor) != written:
                    wrong += 1
                    both = f"engine {written}\n  oracle {found.get(tensor)}"
                    sys.stdout.write(f"{name}/{key} {tensor}\n  {both}\n")
            known[key] = case
        path.write_text(json.dumps(known, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
