"""Steps that move the rows of vocabulary tensors: by whole ranges, or where a tokenizer wants each.

They are two claims: vocab_resize/v1 moves bits, in parentage-1's arithmetic where it fills; vocab_permute/v1
says what mergekit's tokenizer code computed, in its dtypes and with its roundings.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from parentage.manifest.errors import RecipeError
from parentage.manifest.wire import Arithmetic, Glob, Id, StepBase, Wire, check_inputs

MAX_ROWS: Final = 1 << 24
_Index = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
_Globs = Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
Row = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ROWS)]
#: [to, from, count]: rows [from, from + count) of an input become rows [to, to + count).
Run = tuple[Row, Row, Row]


class RowRange(Wire, frozen=True, kw_only=True, tag_field="rows", tag="range"):
    """Rows [start, end) of the tensor of the same name in one input; no end: all."""

    input: Id
    start: _Index = 0
    end: _Index | None = None


class RowIndex(Wire, frozen=True, kw_only=True, tag_field="rows", tag="index"):
    """Rows of one input in the order of a vector of integers in another (a token permutation)."""

    input: Id
    index: Id
    tensor: str


class RowMean(Wire, frozen=True, kw_only=True, tag_field="rows", tag="mean"):
    """`count` rows, each the mean of all rows of the tensor in one input."""

    input: Id
    count: _Count


Rows = RowRange | RowIndex | RowMean


class VocabResizeParams(Wire, frozen=True, kw_only=True):
    """Other rows for some tensors of the first input; the rest of it is copied.

    Attributes:
        tensors: what has a row a token (`embed_tokens`, `lm_head`).
        rows: stacked in order.
    """

    tensors: _Globs
    rows: Annotated[tuple[Rows, ...], msgspec.Meta(min_length=1, max_length=65536)]


class VocabResize(StepBase, frozen=True, kw_only=True, tag="vocab_resize/v1"):
    """A vocabulary cut, extended by rows that are shipped as data, or put in another order."""

    params: VocabResizeParams
    arithmetic: Arithmetic = Arithmetic(profile="parentage-1")


class Average(Wire, frozen=True, kw_only=True):
    """One row that is a mean.

    Attributes:
        to: the output's row.
        of: its rows, by input; summed in the order of the step's inputs.
    """

    to: Row
    of: Annotated[dict[Id, Row], msgspec.Meta(min_length=1)]


class VocabPermuteParams(Wire, frozen=True, kw_only=True):
    """Where each row of the vocabulary tensors comes from; a row that nothing fills is zero.

    Attributes:
        tensors: the vocabulary tensors, rows first.
        rows: how many the output has.
        copied: runs of rows, by input.
        averaged: rows that are means.
    """

    tensors: _Globs
    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
    copied: dict[Id, tuple[Run, ...]]
    averaged: tuple[Average, ...] = ()


class VocabPermute(StepBase, frozen=True, kw_only=True, tag="vocab_permute/v1"):
    """The first input's tensors, its vocabulary rows moved; the other inputs lend rows."""

    arithmetic: Arithmetic
    params: VocabPermuteParams


def check_vocab_resize(step: VocabResize, where: str) -> None:
    """Check that rows are read from inputs, and that every input lends some.

    Raises:
        RecipeError: naming the input.
    """
    read = {rows.input for rows in step.params.rows}
    read |= {rows.index for rows in step.params.rows if isinstance(rows, RowIndex)}
    check_inputs(step.inputs, read, where, own=1)


def check_vocab_permute(step: VocabPermute, where: str) -> None:
    """Check that every row is filled at most once, and from an input.

    Raises:
        RecipeError: naming the row.
    """
    params = step.params
    spans = [(average.to, 1) for average in params.averaged]
    for name, runs in params.copied.items():
        if name not in step.inputs:
            raise RecipeError("rows of what is not an input", where=where, found=name)
        spans += [(to, count) for to, _, count in runs]
    for average in params.averaged:
        for name in average.of:
            if name not in step.inputs:
                raise RecipeError("rows of what is not an input", where=where, found=name)
    at = 0
    for to, count in sorted(spans):
        if to < at or count < 1 or to + count > params.rows:
            raise RecipeError("row filled twice, or beyond the last", where=where, found=str(to))
        at = to + count
