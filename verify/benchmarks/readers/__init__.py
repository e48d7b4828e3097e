"""Readers of results files: one file each, one line in the table. None imports the harness.

To add one: a file with `NAME`, `matches` and `read`, and a line here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from parentage.attest.statements.benchmark import MAX_SCORES
from parentage.manifest.errors import ResultsError
from parentage.verify.benchmarks.documents import Document, open_document
from parentage.verify.benchmarks.readers import (
    eval_results,
    evalplus,
    every_eval_ever,
    inspect_ai,
    lighteval,
    lm_eval,
    model_index,
    opencompass,
)
from parentage.verify.benchmarks.result import Result


class Reader(msgspec.Struct, frozen=True):
    """How a format is told, and how it is read."""

    matches: Callable[[Document], bool]
    read: Callable[[Document], Result]


#: By the name of the format. A document matches one of them, or is refused.
READERS: Final[Mapping[str, Reader]] = {
    lm_eval.NAME: Reader(lm_eval.matches, lm_eval.read),
    lighteval.NAME: Reader(lighteval.matches, lighteval.read),
    inspect_ai.NAME: Reader(inspect_ai.matches, inspect_ai.read),
    evalplus.NAME: Reader(evalplus.matches, evalplus.read),
    opencompass.NAME: Reader(opencompass.matches, opencompass.read),
    every_eval_ever.NAME: Reader(every_eval_ever.matches, every_eval_ever.read),
    model_index.NAME: Reader(model_index.matches, model_index.read),
    eval_results.NAME: Reader(eval_results.matches, eval_results.read),
}


def read_results(data: bytes, where: str) -> Result:
    """Read a results file, of whatever format it is.

    Raises:
        ResultsError: of none, of two, or it breaks its own format; or it has no score.
        JsonError: a duplicate key, a NaN or an infinity.
    """
    document = open_document(data, where)
    found = [reader for reader in READERS.values() if reader.matches(document)]
    if len(found) != 1:
        raise ResultsError(
            "not a results file of a known format",
            where=where,
            expected=", ".join(READERS),
            found=document.kind,
        )
    result = found[0].read(document)
    if not result.scores or len(result.scores) > MAX_SCORES:
        raise ResultsError(
            "results file without a score, or with too many",
            where=where,
            expected=f"1 to {MAX_SCORES}",
            found=str(len(result.scores)),
        )
    counts = Counter((score.task, score.metric, score.filter) for score in result.scores)
    most, times = counts.most_common(1)[0]
    if times > 1:
        raise ResultsError("a score stands twice", where=where, found=" ".join(most).strip())
    return result
