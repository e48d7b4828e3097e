"""Steps that move tensors between layouts: every parameter of every index map, exact and typed.

The words are those of transformers' conversion operations and of torch: concatenate and chunk, stack and
unstack (MergeModulelist and SplitModulelist), transpose, interleave, permute_rope.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from parentage.manifest.patterns import Pattern
from parentage.manifest.wire import Glob, Id, StepBase, Wire

Dim = Annotated[int, msgspec.Meta(ge=0, le=254)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Globs = Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
Patterns = Annotated[tuple[Pattern, ...], msgspec.Meta(min_length=1, max_length=1024)]


class TieParams(Wire, frozen=True, kw_only=True):
    """New name to the tensor that it is a second name of."""

    names: Annotated[dict[str, str], msgspec.Meta(min_length=1)]


class Tie(StepBase, frozen=True, kw_only=True, tag="tie/v1"):
    """The tensors of one input, some under a second name as well (`lm_head` tied to embeddings)."""

    params: TieParams


class Taken(Wire, frozen=True, kw_only=True):
    """Tensors of one input under names of the output.

    Attributes:
        input: where they are.
        source: `from` on the wire: names there, with placeholders.
        to: their names here, with the same placeholders.
    """

    input: Id
    source: Pattern = msgspec.field(name="from", default="{all*}")
    to: Pattern = "{all*}"


class AssembleParams(Wire, frozen=True, kw_only=True):
    """What the output is put together from; no name may come twice, no entry may find nothing."""

    tensors: Annotated[tuple[Taken, ...], msgspec.Meta(min_length=1, max_length=65536)]


class Assemble(StepBase, frozen=True, kw_only=True, tag="assemble/v1"):
    """One model from tensors of several (experts from dense models, a router shipped as data)."""

    params: AssembleParams


class Rule(Wire, frozen=True, kw_only=True, tag_field="do"):
    """One index map; what no rule touches is copied."""


class Concatenate(Rule, frozen=True, kw_only=True, tag="concatenate"):
    """Tensors joined along a dimension, in the order of `from` (q, k, v; gate, up)."""

    source: Patterns = msgspec.field(name="from")
    to: Pattern
    dim: Dim = 0


class Chunk(Rule, frozen=True, kw_only=True, tag="chunk"):
    """The inverse of concatenate: one tensor cut along a dimension; without sizes in equal pieces."""

    source: Pattern = msgspec.field(name="from")
    to: Patterns
    dim: Dim = 0
    sizes: tuple[Count, ...] = ()


class Stack(Rule, frozen=True, kw_only=True, tag="stack"):
    """Tensors numbered from 0 by the placeholder that `to` lacks, along a new dimension (experts)."""

    source: Pattern = msgspec.field(name="from")
    to: Pattern
    dim: Dim = 0


class Unstack(Rule, frozen=True, kw_only=True, tag="unstack"):
    """The inverse of stack: the number goes where `from` lacks the placeholder."""

    source: Pattern = msgspec.field(name="from")
    to: Pattern
    dim: Dim = 0


class Transpose(Rule, frozen=True, kw_only=True, tag="transpose"):
    """Two dimensions exchanged (Conv1D and Linear)."""

    tensors: Globs
    dims: tuple[Dim, Dim] = (0, 1)


class Interleave(Rule, frozen=True, kw_only=True, tag="interleave"):
    """Rows 0, 2, 4, … then 1, 3, 5, … of a dimension (first halves, then second ones); or back."""

    tensors: Globs
    dim: Dim = 0
    inverse: bool = False


class PermuteRope(Rule, frozen=True, kw_only=True, tag="permute_rope"):
    """Interleave within each head of dimension 0: Meta's layout of rotary weights to Hugging Face's.

    Attributes:
        heads: of these tensors; k has fewer than q with grouped queries.
    """

    tensors: Globs
    heads: Count
    inverse: bool = False


LayoutRule = Concatenate | Chunk | Stack | Unstack | Transpose | Interleave | PermuteRope


class LayoutParams(Wire, frozen=True, kw_only=True):
    """Rules, no two of which touch one tensor; one after another is one step after another."""

    rules: Annotated[tuple[LayoutRule, ...], msgspec.Meta(min_length=1, max_length=1024)]


class Layout(StepBase, frozen=True, kw_only=True, tag="layout/v1"):
    """The tensors of one input in the layout of another checkpoint format; bits move, none changes."""

    params: LayoutParams
