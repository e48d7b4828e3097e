"""What merge methods share: inputs of one architecture, dtypes, and facts found once per tensor.

A method is cut in two: `facts` reads a whole tensor piece by piece (norms, thresholds, masks), and
`merged` computes any range of elements from the inputs and those facts. Scalars among the facts are
what engines disagree on: reductions depend on threads, kernels and devices. So the `mk` engines take
them rounded from float64, and a witness may replace each within its bound.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import ClassVar, Final, Generic, TypeVar

import msgspec
import torch
from torch import Tensor

from parentage.manifest.merge_steps import MergeStep
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import ratio
from parentage.verify.methods.base import (
    Interval,
    Scalars,
    check_profile,
    same_tensors,
    same_values,
)
from parentage.verify.rounding import DTYPES, round_once
from parentage.verify.sums import BLOCK
from parentage.verify.values import Scratch, Source

#: Elements of a piece when a whole tensor is read for its facts: whole blocks of the tree sums.
PIECE: Final = 64 * BLOCK
#: Tensors whose facts are kept; of facts that take this many bytes together, those that chunks at work
#: may ask for.
_KEPT: Final = 64
_KEPT_BYTES: Final = 32 << 20
_AT_WORK: Final = max(6, 2 * (os.cpu_count() or 1))
WITNESS: Final = "/witness"
_ORDERED: Final = 4

S = TypeVar("S", bound=MergeStep)
F = TypeVar("F")
T = TypeVar("T")


class Span(msgspec.Struct, frozen=True):
    """Elements [start, stop) of a tensor, and its shape; whole rows for methods that work by row."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Return the length of a row: the last dimension; a vector is one row."""
        return self.shape[-1] if self.shape else 1


def in_any_order(profile: str, count: int) -> tuple[str, ...]:
    """Return mergekit 0.1.4's engines for methods that read a Python set: one for each order.

    The set is ordered by addresses, so that the inputs (but for the base) come in another order in
    every run. With more than four of them only the listed order is tried.
    """
    if profile != "mk-0.1.4" or count > _ORDERED:
        return (profile,)
    listed = tuple(range(count))
    orders = [order for order in permutations(listed) if order != listed]
    return (profile, *(f"{profile}/order-{'-'.join(map(str, order))}" for order in orders))


def in_order(variant: str, items: Sequence[T], base: int | None) -> list[T]:
    """Return the inputs in the order of an engine; the base stays where it is."""
    _, _, order = variant.partition("/order-")
    if not order:
        return list(items)
    others = [item for index, item in enumerate(items) if index != base]
    found = [others[int(place)] for place in order.partition("/")[0].split("-")]
    return found if base is None else [*found[:base], items[base], *found[base:]]


class Merging(Generic[S, F]):
    """A bound merge step; subclasses give the arithmetic.

    Attributes:
        profiles: engine names by profile.
        by_rows: whether `merged` needs whole rows.
    """

    profiles: ClassVar[Mapping[str, tuple[str, ...]]]
    by_rows: bool = False
    proven_bound = False
    noise: ClassVar[Mapping[str, float]] = {}
    replay_streams = False

    def __init__(self, step: S, inputs: Mapping[str, Source]) -> None:
        profile = step.arithmetic.profile
        check_profile(step.id, profile, self.profiles)
        self.step = step
        self.where = f"step {step.id}"
        self.sources = [inputs[name] for name in step.inputs]
        self._inputs = same_tensors(self.where, {name: inputs[name] for name in step.inputs})
        self.variants = self.profiles[profile]
        self.deterministic = profile == "parentage-1"
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._inputs.items()
        }
        self.witness: dict[str, Scalars] = {
            name: {key: float(ratio(text)) for key, text in scalars.items()}
            for name, scalars in step.witness.items()
        }
        self._facts: OrderedDict[tuple[str, str], F] = OrderedDict()
        self._busy: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    # What a method gives.

    def facts(self, name: str, variant: str) -> F:
        """Read a tensor and find what `merged` needs of the whole of it."""
        raise NotImplementedError

    def size_of(self, facts: F) -> int:
        """Return the bytes that facts take, if they are many."""
        return 0

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the facts that engines disagree on, as this engine's float64 reading of them."""
        return {}

    def replay(self, name: str, variant: str) -> Scalars:
        """Return the scalars as torch reduces whole tensors, with the threads that it has now.

        A guess, and never more: where it differs from `scalars` by less than the bound, it is tried
        as a witness before any search. The tensor is held in memory.
        """
        return {}

    def suggest(
        self, name: str, variant: str, release: Source, places: Sequence[int] = ()
    ) -> Scalars:
        """Return scalars read off a release itself."""
        return {}

    def merged(self, span: Span, parts: Sequence[Tensor], scalars: Scalars, variant: str) -> Tensor:
        """Compute the elements of `span`.

        Args:
            span: which; whole rows if `by_rows`.
            parts: the inputs' elements, flat: float64 under `parentage-1`, else in `compute`.
            scalars: of this tensor, witnessed or not.
            variant: the engine, without its "/witness".
        """
        raise NotImplementedError

    def computed_store(self, compute: str) -> str:
        """Return the dtype that the method's arithmetic ends in where nothing else is declared."""
        return compute

    # What the others need not know.

    def compute(self, name: str) -> str:
        """Return the dtype of mergekit's arithmetic: `dtype`, else what the inputs promote to."""
        declared = self.step.arithmetic.compute
        if declared is not None:
            return declared
        promoted = DTYPES[self.sources[0].specs[name].dtype]
        for source in self.sources[1:]:
            promoted = torch.promote_types(promoted, DTYPES[source.specs[name].dtype])
        return next(key for key, value in DTYPES.items() if value == promoted)

    def _store(self, spec: TensorSpec) -> str:
        if spec.dtype not in FLOAT_DTYPES:
            return spec.dtype
        if self.step.arithmetic.store is not None:
            return self.step.arithmetic.store
        if self.step.arithmetic.profile == "parentage-1":
            return spec.dtype
        return self.computed_store(self.compute(spec.name))

    def found(self, name: str, variant: str) -> F:
        """Return a tensor's facts, found once however many chunks ask at a time."""
        key = (name, variant)
        with self._lock:
            if key in self._facts:
                self._facts.move_to_end(key)
                return self._facts[key]
            busy = self._busy.setdefault(name, threading.Lock())
        with busy:
            with self._lock:
                if key in self._facts:
                    return self._facts[key]
            facts = self.facts(name, variant)
            with self._lock:
                self._facts[key] = facts
                self._forget()
            return facts

    def _forget(self) -> None:
        """Drop the facts that were not asked for the longest."""
        nbytes = sum(map(self.size_of, self._facts.values()))
        while len(self._facts) > (_KEPT if nbytes <= _KEPT_BYTES else _AT_WORK):
            _, facts = self._facts.popitem(last=False)
            nbytes -= self.size_of(facts)

    def scalars_of(self, name: str, variant: str) -> Scalars:
        """Return a tensor's scalars: the engine's, and for "/witness" the published ones instead."""
        own = self.scalars(name, variant.removesuffix(WITNESS))
        if variant.endswith(WITNESS):
            own = own | {
                key: value for key, value in self.witness.get(name, {}).items() if key in own
            }
        return own

    def bare(self, variant: str) -> str:
        """Return an engine's name without what chooses among equal elements."""
        return "/".join(variant.removesuffix(WITNESS).split("/")[:1])

    def scalar_dtype(self, name: str) -> str:
        """Return the dtype that scalars are held in."""
        return self.compute(name)

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the merged elements under one engine."""
        if self.specs[name].dtype not in FLOAT_DTYPES:
            parts = [source.read(name, start, stop, scratch) for source in self.sources]
            return same_values(self.where, name, parts)
        plain = variant.removesuffix(WITNESS)
        span = self.span(name, start, stop)
        out = self.merged(
            span, self.parts(span, plain, scratch), self.scalars_of(name, variant), plain
        )
        out = out.reshape(-1)[start - span.start : stop - span.start]
        store = self.specs[name].dtype
        return round_once(out, store) if plain == "parentage-1" else out.to(DTYPES[store])

    def span(self, name: str, start: int, stop: int) -> Span:
        """Return the elements to compute for [start, stop): whole rows where rows matter."""
        shape = self.specs[name].shape
        if self.by_rows and self.specs[name].elements:
            columns = shape[-1] if shape else 1
            start, stop = start // columns * columns, -(-stop // columns) * columns
        return Span(name, start, stop, shape)

    def parts(self, span: Span, variant: str, scratch: Scratch) -> list[Tensor]:
        """Read the inputs of a span in the dtype of an engine's arithmetic."""
        dtype = DTYPES["F64" if variant == "parentage-1" else self.compute(span.name)]
        return [
            source.read(span.name, span.start, span.stop, scratch).to(dtype)
            for source in in_order(variant, self.sources, self.base_index())
        ]

    def base_index(self) -> int | None:
        """Return which input is the base."""
        base: str | None = getattr(getattr(self.step, "params", None), "base", None)
        return None if base is None else self.step.inputs.index(base)

    def doubles(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> list[Tensor]:
        """Read what an engine's arithmetic starts from, in its dtype, as float64."""
        span = Span(name, start, stop, self.specs[name].shape)
        return [part.double() for part in self.parts(span, self.bare(variant), scratch)]

    def pieces(self, name: str, variant: str) -> Iterator[tuple[Span, list[Tensor]]]:
        """Read a whole tensor piece by piece (whole rows where rows matter)."""
        scratch = Scratch(torch.device("cpu"))
        spec = self.specs[name]
        columns = (spec.shape[-1] if spec.shape else 1) if self.by_rows else BLOCK
        size = max(PIECE // max(columns, 1), 1) * max(columns, 1)
        for start in range(0, spec.elements, size):
            scratch.reset()
            span = Span(name, start, min(start + size, spec.elements), spec.shape)
            yield span, self.parts(span, variant, scratch)

    def whole(self, name: str, variant: str) -> list[Tensor]:
        """Return the inputs of a whole tensor in the dtype of an engine's arithmetic, flat."""
        dtype = DTYPES["F64" if variant == "parentage-1" else self.compute(name)]
        found = [torch.empty(self.specs[name].elements, dtype=dtype) for _ in self.sources]
        for span, parts in self.pieces(name, variant):
            for target, part in zip(found, parts, strict=True):
                target[span.start : span.stop] = part
        return found

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: no bound is proven for this method."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return None: a merge is computed."""
        return None
