"""Merge: run a recipe with our own arithmetic, write the weights, and declare them in one go."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final

from parentage.manifest import atomic, build, digest, writer
from parentage.manifest.build import Declared
from parentage.manifest.digest import CHUNK, Profile
from parentage.manifest.errors import ParentMissingError, RecipeError, UsageError
from parentage.manifest.files import open_files
from parentage.manifest.hashing import Progress, default_threads
from parentage.manifest.model import Model
from parentage.manifest.recipe import Recipe
from parentage.manifest.steps import DECLARED
from parentage.manifest.tensor import DTYPE_BITS, TensorSpec
from parentage.manifest.wire import DigestSet
from parentage.verify import engine
from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of
from parentage.verify.values import FileSource, Scratch
from parentage.verify.weights import open_weights, with_roots

#: Chunks computed ahead of the one being written, per thread: bounds memory.
_AHEAD: Final = 2
_NOT_COPIED: Final = (
    *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"),
    *(".gguf", ".onnx", ".onnx_data", ".h5", ".msgpack", ".tflite", ".ot"),
)


def merge(
    recipe: Recipe,
    out: Path,
    *,
    parents: Mapping[str, Path],
    shard_bytes: int = 5_000_000_000,
    companions: str | None = None,
    profiles: Sequence[Profile] = (digest.B3,),
    created: datetime | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Declared:
    """Run a recipe and write the release's weights, tensor table, leaves and draft.

    Args:
        recipe: every step computable; `output` roots are filled in.
        out: folder to make; it must not exist.
        parents: folder or file of each parent, by id.
        shard_bytes: largest shard.
        companions: parent whose config and tokenizer files are copied; None: the first.
        profiles: digest profiles of the tensor identities.
        created: time to record; now by default.
        device: "auto", "cpu" or "cuda"; the bits are the same.
        threads: worker threads.
        progress: told of the bytes done.

    Raises:
        UsageError: `out` exists.
        RecipeError: a step can't be computed.
        WriteFailedError: the disk is full; `out` is gone again.
    """
    declared = [step.id for step in recipe.steps if isinstance(step, DECLARED)]
    if declared or not recipe.steps:
        raise RecipeError(
            "merge runs computable steps only", found=", ".join(declared) or "no step"
        )
    if out.exists():
        raise UsageError("output exists already", where=str(out), hint="choose another --output")
    for hint in recipe.parents:
        if hint.id not in parents:
            raise ParentMissingError(
                "parent not given", where=hint.id, hint=f"add --parent {hint.id}=FOLDER"
            )
    if companions is not None and companions not in parents:
        raise UsageError(
            "companions must be a parent's id", found=companions, expected=", ".join(parents)
        )
    runner = Engine(engine.pick_device(device), threads or default_threads(), progress)
    with ExitStack() as stack:
        models = {name: stack.enter_context(open_weights(path)) for name, path in parents.items()}
        bound = engine.bind(recipe.steps, {name: FileSource(m) for name, m in models.items()})
        _check_dtypes(bound[recipe.steps[-1].id])
        staging = out.with_name(f".{out.name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        with atomic.reporting(staging):
            staging.mkdir(parents=True)
        try:
            _copy_companions(models[companions or recipe.parents[0].id], staging)
            _write(runner, bound[recipe.steps[-1].id], staging, shard_bytes)
            outputs = _step_outputs(runner, recipe, bound, profiles)
            result = build.declare(
                staging,
                recipe,
                parents=with_roots(parents, profiles),
                step_outputs=outputs,
                profiles=profiles,
                created=created,
                threads=threads,
                progress=progress,
            )
            with atomic.reporting(out):
                staging.rename(out)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return result


def _check_dtypes(source: StepSource) -> None:
    """Check that safetensors has a name for every dtype."""
    for name, spec in source.specs.items():
        if spec.dtype not in DTYPE_BITS:
            raise RecipeError(
                "safetensors has no such dtype",
                where=f"step {source.step.id}: {name}",
                found=spec.dtype,
                hint="write the GGUF file with its own tools, then parentage declare",
            )


def _step_outputs(
    runner: Engine, recipe: Recipe, bound: Mapping[str, StepSource], profiles: Sequence[Profile]
) -> dict[str, DigestSet]:
    return {
        step.id: dict(engine.roots(runner, bound[step.id], profiles)) for step in recipe.steps[:-1]
    }


def _write(runner: Engine, source: StepSource, folder: Path, shard_bytes: int) -> None:
    shards = writer.plan_shards(list(source.specs.values()), shard_bytes)
    for name, specs in shards.items():
        pieces = _pieces(runner, source, specs)
        writer.write_file(folder / name, specs, pieces, {"format": "pt"})
    writer.write_index(folder, shards)


def _pieces(runner: Engine, source: StepSource, specs: Sequence[TensorSpec]) -> Iterator[bytes]:
    """Compute a few chunks at a time and hand their bytes over in order."""

    def task(chunk: Chunk, scratch: Scratch) -> bytes:
        values = source.read(chunk.name, chunk.start, chunk.stop, scratch)
        data = bytes(scratch.to_bytes(values.cpu()))
        runner.report(len(data))
        return data

    chunks = [chunk for spec in specs for chunk in chunks_of(spec)]
    batch = runner.threads * _AHEAD
    for at in range(0, len(chunks), batch):
        yield from runner.map(task, chunks[at : at + batch])


def _copy_companions(model: Model, folder: Path) -> None:
    """Copy config, tokenizer and the like: what is no weights file and not ours or hidden."""
    if model.root.is_file():
        return
    with open_files(model.root) as files:
        for name, file in files.files.items():
            hidden = any(part.startswith(".") for part in name.split("/"))
            # The parent's card speaks of the parent: its scores would look like the merge's.
            if hidden or name in {"model.sig", "README.md"} or name.endswith(_NOT_COPIED):
                continue
            target = folder / name
            with atomic.reporting(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(target) as stream:
                for at in range(0, file.size, CHUNK):
                    stream.write(file.read_at(at, min(CHUNK, file.size - at)))
