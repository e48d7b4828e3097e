"""The golden vectors of parentage-1: models as bit patterns, steps, and what the engine makes of them."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from parentage.manifest import recipe
from parentage.manifest.model import open_model
from parentage.verify.engine import Engine, bind, chunks_of
from parentage.verify.rounding import DTYPES, STORED
from parentage.verify.values import FileSource, Scratch

TESTS = Path(__file__).parents[1]
HERE = TESTS / "vectors" / "parentage-1"
sys.path.insert(0, str(TESTS / "oracle"))

import parentage1 as oracle  # noqa: E402

TORCH = STORED | DTYPES | {"BOOL": torch.bool}
Document = dict[str, Any]


def cases() -> Iterator[tuple[str, Document]]:
    """Yield (name, case): a step, the models that it reads, and its output."""
    for path in sorted(HERE.glob("op-*.json")):
        for name, case in json.loads(path.read_text()).items():
            yield f"{path.stem.removeprefix('op-')}/{name}", case


def models(case: Document) -> dict[str, oracle.Model]:
    """Read the models of a case."""
    return _models(case["models"])


@cache
def _models(file: str) -> dict[str, oracle.Model]:
    document = json.loads((HERE / f"models-{file}.json").read_text())
    return {
        model: {name: oracle.read(tensor) for name, tensor in tensors.items()}
        for model, tensors in document.items()
    }


def tensor_of(tensor: oracle.Tensor) -> torch.Tensor:
    """Turn bit patterns into a tensor."""
    raw = torch.frombuffer(bytearray(tensor.bits.tobytes()) or bytearray(8), dtype=torch.uint8)
    raw = raw[: len(tensor.bits) * tensor.bits.itemsize]
    return raw.view(TORCH[tensor.dtype]).reshape(tensor.shape)


def sources(found: dict[str, oracle.Model], folder: Path) -> dict[str, FileSource]:
    """Write models as safetensors and open them."""
    opened = {}
    for model, tensors in found.items():
        path = folder / f"{model}.safetensors"
        save_file({name: tensor_of(t) for name, t in tensors.items()}, path)
        opened[model] = FileSource(open_model(path))
    return opened


def step_of(case: Document) -> Any:
    """Parse a case's step as a recipe does."""
    document = {
        "version": "0.1",
        "parents": [{"id": name} for name in dict.fromkeys(case["step"]["inputs"])],
        "steps": [case["step"]],
    }
    return recipe.parse(document, where="vector").steps[0]


def by_engine(
    case: Document, inputs: dict[str, FileSource], *, threads: int = 1, device: str = "cpu"
) -> dict[str, Document]:
    """Compute a case with the engine, chunk by chunk, as `parentage merge` does."""
    bound = bind([step_of(case)], inputs)[case["step"]["id"]]
    runner = Engine(torch.device(device), threads)

    def task(chunk: Any, scratch: Scratch) -> bytes:
        return bytes(
            scratch.to_bytes(bound.read(chunk.name, chunk.start, chunk.stop, scratch).cpu())
        )

    chunks = [chunk for spec in bound.specs.values() for chunk in chunks_of(spec)]
    parts: dict[str, bytes] = dict.fromkeys(bound.specs, b"")
    for chunk, data in zip(chunks, runner.map(task, chunks), strict=True):
        parts[chunk.name] += data
    return {
        name: written(spec.dtype, spec.shape, parts[name]) for name, spec in bound.specs.items()
    }


def written(dtype: str, shape: tuple[int, ...], data: bytes) -> Document:
    """Write a tensor as the vectors do."""
    bits = np.frombuffer(data, dtype=f"<u{oracle.WIDTH[dtype]}")
    assert len(bits) == math.prod(shape)
    return oracle.write(oracle.Tensor(dtype, shape, bits))


def by_oracle(case: Document) -> dict[str, Document]:
    """Compute a case with the other implementation."""
    return {name: oracle.write(t) for name, t in oracle.run(case["step"], models(case)).items()}


def main() -> None:
    """Print the cases whose bits come out otherwise on this machine, and how many there are."""
    count = 0
    for name, case in cases():
        with tempfile.TemporaryDirectory() as folder:
            used = {m: t for m, t in models(case).items() if m in case["step"]["inputs"]}
            if by_engine(case, sources(used, Path(folder))) != case["output"]:
                sys.stdout.write(f"{name}\n")
        count += 1
    sys.stdout.write(f"{count} cases under {torch.backends.cpu.get_cpu_capability()}\n")


if __name__ == "__main__":
    main()
