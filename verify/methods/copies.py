"""copy/v1, rename/v1, tie/v1 and layer_select/v1: tensors moved, never changed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.layout_steps import Tie
from parentage.manifest.steps import Copy, LayerSelect, Rename
from parentage.manifest.tensor import TensorSpec
from parentage.manifest.wire import matches
from parentage.verify.methods.base import Interval
from parentage.verify.values import Scratch, Source

MAX_TENSORS = 1_000_000


class Copies:
    """An output that is a map from new names to tensors of the inputs."""

    proven_bound = True
    variants = ("copy",)
    deterministic = True

    def __init__(self, origin: Mapping[str, tuple[Source, str]]) -> None:
        self._origin = origin
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, source.specs[old].dtype, source.specs[old].shape)
            for name, (source, old) in origin.items()
        }

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the origin's elements."""
        source, old = self._origin[name]
        return source.read(old, start, stop, scratch)

    def reads(self, name: str, start: int, stop: int) -> list[tuple[Source, str, int, int]]:
        """Return the origin's elements."""
        source, old = self._origin[name]
        return [(source, old, start, stop)]

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a copy has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return where the tensor comes from."""
        source, old = self._origin[name]
        return source.alias(old)


def copy(step: Copy, inputs: Mapping[str, Source]) -> Copies:
    """Bind copy/v1."""
    source = inputs[step.inputs[0]]
    keep = [
        name
        for name in source.specs
        if matches(name, step.params.include) and not matches(name, step.params.exclude)
    ]
    if not keep:
        raise RecipeError("copy selects no tensor", where=f"step {step.id}")
    return Copies({name: (source, name) for name in keep})


def rename(step: Rename, inputs: Mapping[str, Source]) -> Copies:
    """Bind rename/v1."""
    source = inputs[step.inputs[0]]
    for old in step.params.names:
        if old not in source.specs:
            raise ShapeMismatchError("no such tensor to rename", where=f"step {step.id}", found=old)
    origin: dict[str, tuple[Source, str]] = {}
    for old in source.specs:
        new = step.params.names.get(old, old)
        if new in origin:
            raise RecipeError("two tensors get one name", where=f"step {step.id}", found=new)
        origin[new] = (source, old)
    return Copies(origin)


def tie(step: Tie, inputs: Mapping[str, Source]) -> Copies:
    """Bind tie/v1: all tensors, some under a second name as well.

    mergekit 0.1.5 reads a model's embeddings where the others have an `lm_head` and it has none.
    """
    source = inputs[step.inputs[0]]
    origin = {name: (source, name) for name in source.specs}
    for new, old in step.params.names.items():
        if old not in source.specs:
            raise ShapeMismatchError("no such tensor to tie to", where=f"step {step.id}", found=old)
        if new in origin:
            raise RecipeError("two tensors get one name", where=f"step {step.id}", found=new)
        origin[new] = (source, old)
    return Copies(origin)


def layer_select(step: LayerSelect, inputs: Mapping[str, Source]) -> Copies:
    """Bind layer_select/v1: slices stacked in order, layers renumbered from 0."""
    params = step.params
    origin: dict[str, tuple[Source, str]] = {}
    target = 0
    for part in params.slices:
        source = inputs[part.input]
        layers = _layers(source, params.prefix)
        for number in range(part.start, part.end):
            if number not in layers:
                raise ShapeMismatchError(
                    "no such layer",
                    where=f"step {step.id}: {part.input}",
                    expected=f"0 to {max(layers, default=-1)}",
                    found=str(number),
                )
            for suffix in layers[number]:
                old = f"{params.prefix}{number}.{suffix}"
                origin[f"{params.prefix}{target}.{suffix}"] = (source, old)
            target += 1
        if len(origin) > MAX_TENSORS:
            raise RecipeError("layer_select makes too many tensors", where=f"step {step.id}")
    for rest in params.rest:
        for name in inputs[rest.input].specs:
            outside = not name.startswith(params.prefix)
            if outside and name not in origin and matches(name, (rest.tensors,)):
                origin[name] = (inputs[rest.input], name)
    return Copies(origin)


def _layers(source: Source, prefix: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name in source.specs:
        number, _, suffix = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and number.isdecimal() and suffix:
            found.setdefault(int(number), []).append(suffix)
    return found
