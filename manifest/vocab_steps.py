"""vocab_permute/v1: the rows of vocabulary tensors put where an output tokenizer wants them."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from parentage.manifest.errors import RecipeError
from parentage.manifest.wire import Arithmetic, Glob, Id, StepBase, Wire

MAX_ROWS: Final = 1 << 24
Row = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ROWS)]
#: [to, from, count]: rows [from, from + count) of an input become rows [to, to + count).
Run = tuple[Row, Row, Row]


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

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
    copied: dict[Id, tuple[Run, ...]]
    averaged: tuple[Average, ...] = ()


class VocabPermute(StepBase, frozen=True, kw_only=True, tag="vocab_permute/v1"):
    """The first input's tensors, its vocabulary rows moved; the other inputs lend rows."""

    arithmetic: Arithmetic
    params: VocabPermuteParams


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
