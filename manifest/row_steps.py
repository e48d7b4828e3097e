"""join_rows/v1: tensors put together from rows of others, as converters do it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from parentage.manifest.wire import Glob, Id, StepBase, Wire

_Row = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Piece(Wire, frozen=True, kw_only=True):
    """Rows [start, end) of the first dimension of an input's tensor; without `end`, to the last."""

    input: Id
    tensor: str
    start: _Row = 0
    end: _Row | None = None


class JoinedRows(Wire, frozen=True, kw_only=True):
    """A tensor made of pieces, one after the other.

    Attributes:
        pieces: of one dtype, and of one shape but for the first dimension.
        transpose: whether the two dimensions change places afterwards.
        shape: another shape of as many elements, at last.
    """

    pieces: Annotated[tuple[Piece, ...], msgspec.Meta(min_length=1, max_length=4096)]
    transpose: bool = False
    shape: tuple[_Row, ...] | None = None


class RestOf(Wire, frozen=True, kw_only=True):
    """Tensors of an input that keep their name."""

    tensors: Glob
    input: Id


class JoinRowsParams(Wire, frozen=True, kw_only=True):
    """New tensors by name; `rest` copies others, and a name that stands already is passed over."""

    tensors: dict[str, JoinedRows]
    rest: tuple[RestOf, ...] = ()


class JoinRows(StepBase, frozen=True, kw_only=True, tag="join_rows/v1"):
    """Rows of inputs cut, joined, reordered, transposed, renamed: gates, fused projections, unions."""

    params: JoinRowsParams
