"""layout/v1 and assemble/v1: pure index maps between checkpoint layouts; bits move, none changes.

concatenate, chunk   torch.cat, torch.split along `dim`
stack, unstack       torch.stack, torch.unbind along `dim`
transpose            x.transpose(*dims)
interleave           [n] seen as [n/2, 2], those two exchanged; inverse: as [2, n/2]
permute_rope         the same within each head of dimension 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from torch import Tensor

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.layout_steps import (
    Assemble,
    Chunk,
    Concatenate,
    Interleave,
    Layout,
    LayoutRule,
    PermuteRope,
    Stack,
    Transpose,
    Unstack,
)
from parentage.manifest.patterns import fill, match, placeholders
from parentage.manifest.tensor import TensorSpec
from parentage.manifest.wire import matches
from parentage.verify.kept import Kept
from parentage.verify.methods.base import Interval
from parentage.verify.moves import KEPT, Cut, Joined, Move, Origin, Permuted, bounded, movable
from parentage.verify.values import Scratch, Source

MAX_TENSORS = 1_000_000


class Moves:
    """An output whose tensors are copies or index maps."""

    proven_bound = True
    deterministic = True
    variants = ("copy",)

    def __init__(self, where: str) -> None:
        self.where = where
        self.specs: dict[str, TensorSpec] = {}
        self._moves: dict[str, Move] = {}
        self._origin: dict[str, Origin] = {}

    def copy(self, name: str, origin: Origin) -> None:
        """Add a tensor that is one of a source."""
        self._add(TensorSpec(name, origin.spec.dtype, origin.spec.shape))
        self._origin[name] = origin

    def move(self, name: str, move: Move) -> None:
        """Add a tensor that is made of others."""
        self._add(TensorSpec(name, move.dtype, move.shape))
        self._moves[name] = move

    def _add(self, spec: TensorSpec) -> None:
        if spec.name in self.specs:
            raise RecipeError("two tensors get one name", where=self.where, found=spec.name)
        if len(self.specs) >= MAX_TENSORS:
            raise RecipeError(
                "step makes too many tensors", where=self.where, expected=f"<= {MAX_TENSORS}"
            )
        self.specs[spec.name] = bounded(self.where, spec)

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the elements, from where they are."""
        if name in self._origin:
            return self._origin[name].read(start, stop, scratch)
        return self._moves[name].read(start, stop, scratch)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return None: a copy has no freedom."""
        return None

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return where a tensor is copied from whole."""
        origin = self._origin.get(name)
        return origin.source.alias(origin.name) if origin else None


class _Rules:
    """Rules applied to the tensors of one source, each of which at most one rule may touch."""

    def __init__(self, step: Layout, source: Source) -> None:
        self.where = f"step {step.id}"
        self.out = Moves(self.where)
        self._source = source
        self._blocks: Kept[Tensor] = Kept(KEPT)
        self._touched: set[str] = set()

    def apply(self, rule: LayoutRule) -> None:
        before = len(self._touched)
        match rule:
            case Concatenate():
                self._concatenate(rule)
            case Chunk():
                self._chunk(rule)
            case Stack():
                self._stack(rule)
            case Unstack():
                self._unstack(rule)
            case Transpose() | Interleave() | PermuteRope():
                self._permute(rule)
        if len(self._touched) == before:
            raise ShapeMismatchError(
                "rule finds no tensor", where=self.where, found=str(rule.__struct_config__.tag)
            )

    def copy_rest(self) -> None:
        for name in self._source.specs:
            if name not in self._touched:
                self.out.copy(name, Origin(self._source, name))

    def _take(self, name: str) -> Origin:
        if name not in self._source.specs:
            raise ShapeMismatchError("no such tensor", where=self.where, found=name)
        if name in self._touched:
            raise RecipeError("two rules touch one tensor", where=self.where, found=name)
        self._touched.add(name)
        origin = Origin(self._source, name)
        movable(self.where, origin.spec)
        return origin

    def _found(self, pattern: str) -> list[dict[str, str]]:
        found = (match(pattern, name) for name in self._source.specs)
        return [values for values in found if values is not None]

    def _concatenate(self, rule: Concatenate) -> None:
        for values in self._found(rule.source[0]):
            parts = [self._take(fill(pattern, values)) for pattern in rule.source]
            first = self._dim(parts[0], rule.dim)
            for part in parts:
                self._same(parts[0], part, but=rule.dim)
            shape = _with(first, rule.dim, sum(part.spec.shape[rule.dim] for part in parts))
            self.out.move(fill(rule.to, values), Joined(parts, shape, prod(first[: rule.dim])))

    def _chunk(self, rule: Chunk) -> None:
        for values in self._found(rule.source):
            origin = self._take(fill(rule.source, values))
            shape = self._dim(origin, rule.dim)
            equal, count = shape[rule.dim] // len(rule.to), len(rule.to)
            sizes = rule.sizes or (equal,) * count
            if sum(sizes) != shape[rule.dim]:
                raise ShapeMismatchError(
                    "chunks are not the whole",
                    where=f"{self.where}: {origin.name}",
                    expected=f"{shape[rule.dim]} along dimension {rule.dim}",
                    found=str(list(sizes)),
                )
            below = prod(shape[rule.dim + 1 :])
            begin = 0
            for pattern, size in zip(rule.to, sizes, strict=True):
                cut = (shape[rule.dim] * below, begin * below, size * below)
                self.out.move(
                    fill(pattern, values), Cut(origin, _with(shape, rule.dim, size), *cut)
                )
                begin += size

    def _stack(self, rule: Stack) -> None:
        number = (set(placeholders(rule.source)) - set(placeholders(rule.to))).pop()
        stacks: dict[str, dict[str, dict[str, str]]] = {}
        for values in self._found(rule.source):
            stacks.setdefault(fill(rule.to, values), {})[values[number]] = values
        for name, members in stacks.items():
            if set(members) != {str(n) for n in range(len(members))}:
                raise ShapeMismatchError(
                    "stack is not numbered from 0 without gaps",
                    where=f"{self.where}: {name}",
                    expected=f"0 to {len(members) - 1}",
                    found=", ".join(sorted(members)),
                )
            parts = [self._take(fill(rule.source, members[str(n)])) for n in range(len(members))]
            shape = parts[0].spec.shape
            for part in parts:
                self._same(parts[0], part)
            self._dim(parts[0], rule.dim, room=1)
            self.out.move(
                name,
                Joined(
                    parts,
                    (*shape[: rule.dim], len(parts), *shape[rule.dim :]),
                    prod(shape[: rule.dim]),
                ),
            )

    def _unstack(self, rule: Unstack) -> None:
        number = (set(placeholders(rule.to)) - set(placeholders(rule.source))).pop()
        for values in self._found(rule.source):
            origin = self._take(fill(rule.source, values))
            shape = self._dim(origin, rule.dim)
            below = prod(shape[rule.dim + 1 :])
            rest = (*shape[: rule.dim], *shape[rule.dim + 1 :])
            for n in range(shape[rule.dim]):
                cut = Cut(origin, rest, shape[rule.dim] * below, n * below, below)
                self.out.move(fill(rule.to, values | {number: str(n)}), cut)

    def _permute(self, rule: Transpose | Interleave | PermuteRope) -> None:
        for name in self._source.specs:
            if not matches(name, rule.tensors):
                continue
            origin = self._take(name)
            view, order = self._view(rule, origin)
            shape = origin.spec.shape
            if isinstance(rule, Transpose):
                shape = tuple(shape[axis] for axis in order)
            self.out.move(name, Permuted(name, origin, shape, view, order, self._blocks))

    def _view(
        self, rule: Transpose | Interleave | PermuteRope, origin: Origin
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Return the dimensions that a tensor is seen with, and their new order."""
        if isinstance(rule, Transpose):
            shape = self._dim(origin, max(rule.dims))
            order = list(range(len(shape)))
            one, two = rule.dims
            order[one], order[two] = two, one
            return shape, order
        dim, heads = (rule.dim, 1) if isinstance(rule, Interleave) else (0, rule.heads)
        shape = self._dim(origin, dim)
        if shape[dim] % (2 * heads):
            raise ShapeMismatchError(
                "dimension is not pairs",
                where=f"{self.where}: {origin.name}",
                expected=f"a multiple of {2 * heads}",
                found=f"{shape[dim]} along dimension {dim}",
            )
        half = shape[dim] // (2 * heads)
        pairs = (2, half) if rule.inverse else (half, 2)
        view = (*shape[:dim], heads, *pairs, *shape[dim + 1 :])
        order = list(range(len(view)))
        order[dim + 1], order[dim + 2] = dim + 2, dim + 1
        return view, order

    def _dim(self, origin: Origin, dim: int, *, room: int = 0) -> tuple[int, ...]:
        """Return a tensor's shape after checking that it has a dimension."""
        if dim >= len(origin.spec.shape) + room:
            raise ShapeMismatchError(
                "no such dimension",
                where=f"{self.where}: {origin.name}",
                expected=f"< {len(origin.spec.shape) + room}",
                found=str(dim),
            )
        return origin.spec.shape

    def _same(self, first: Origin, other: Origin, *, but: int | None = None) -> None:
        """Check that two tensors can lie side by side."""
        left, right = first.spec, other.spec
        fits = left.dtype == right.dtype and len(left.shape) == len(right.shape)
        if not fits or any(
            a != b
            for axis, (a, b) in enumerate(zip(left.shape, right.shape, strict=True))
            if axis != but
        ):
            raise ShapeMismatchError(
                "tensors to join do not fit",
                where=f"{self.where}: {other.name}",
                expected=f"{left.dtype} {list(left.shape)}",
                found=f"{right.dtype} {list(right.shape)}",
            )


def _with(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def layout(step: Layout, inputs: Mapping[str, Source]) -> Moves:
    """Bind layout/v1."""
    rules = _Rules(step, inputs[step.inputs[0]])
    for rule in step.params.rules:
        rules.apply(rule)
    rules.copy_rest()
    return rules.out


def assemble(step: Assemble, inputs: Mapping[str, Source]) -> Moves:
    """Bind assemble/v1."""
    out = Moves(f"step {step.id}")
    for entry in step.params.tensors:
        source = inputs[entry.input]
        found = {name: match(entry.source, name) for name in source.specs}
        taken = {name: values for name, values in found.items() if values is not None}
        if not taken:
            raise ShapeMismatchError(
                "entry finds no tensor", where=f"{out.where}: {entry.input}", found=entry.source
            )
        for name, values in taken.items():
            out.copy(fill(entry.to, values), Origin(source, name))
    return out
