"""A step that leaves its engine a choice makes every later step's result a choice too.

A peft merge adds a matrix product whose order of sums no profile names. If a merge of its output differs
in one bit, that bit may be the product's, so the merge is undecided there, never refuted.
"""

from __future__ import annotations

from parentage.verify.engine import StepSource
from parentage.verify.values import Source


def inherited(step: StepSource, name: str) -> bool:
    """Say whether a tensor of a step's output was made from one that an earlier engine could choose."""
    return any(_free(source, name) for source in step.inputs.values())


def _free(source: Source, name: str) -> bool:
    if name in source.specs:
        origin, old = source.alias(name)
        if not isinstance(origin, StepSource):
            return False
        return not (origin.method.deterministic or origin.confirmed) or inherited(origin, old)
    # Under another name: it may be made of anything.
    return any(_free(source, other) for other in source.specs)
