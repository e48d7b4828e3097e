"""What the Hub calls the relation of a release to its parents, by what its recipe does."""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.manifest.adapter_steps import DoraMerge, LoraMerge
from parentage.manifest.edit_steps import Abliterate
from parentage.manifest.layout_steps import Assemble
from parentage.manifest.lineage import Lineage
from parentage.manifest.quantise_steps import QUANTISE, Cast
from parentage.manifest.steps import LayerSelect, Merge, Opaque, Step, Training
from parentage.manifest.vocab_steps import VocabResize

#: hub-docs, modelcard.md.
RELATIONS: Final = ("adapter", "merge", "quantized", "finetune")
#: For these the Hub has no word; people call what they make a finetune.
_EDITS: Final = (Abliterate, LayerSelect, VocabResize)
_FP8: Final = frozenset({"F8_E4M3", "F8_E5M2"})


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest declares.

    Attributes:
        said: whether there is a recipe at all; without one, weights were only observed.
        trains, merges, folds, quantises, opaque: whether a step does (`folds`: an adapter into a base).
        allowed: relations that a card may name.
        best: the one that `card sync` writes; empty: the Hub has no word for it.
    """

    said: bool
    trains: bool = False
    merges: bool = False
    folds: bool = False
    quantises: bool = False
    opaque: bool = False
    allowed: frozenset[str] = frozenset()
    best: str = ""


def kinds_of(lineage: Lineage, *, is_adapter: bool) -> Kinds:
    """Return what a manifest declares; `is_adapter`: the release holds an adapter, not a model.

    The last step that the Hub has a word for gives the relation; those of the steps before it are
    allowed, too: a merge that was trained afterwards is both.
    """
    steps = lineage.recipe.steps
    words = [word for step in steps if (word := _word(step, is_adapter=is_adapter))]
    folds = any(isinstance(step, (LoraMerge, DoraMerge)) for step in steps)
    opaque = any(isinstance(step, Opaque) for step in steps)
    loosely = folds or any(isinstance(step, _EDITS) for step in steps)
    allowed = frozenset(words) | ({"finetune"} if loosely else set())
    return Kinds(
        said=bool(steps),
        trains=any(isinstance(step, Training) for step in steps),
        merges=any(isinstance(step, Merge) for step in steps),
        folds=folds,
        quantises="quantized" in words and not opaque,
        opaque=opaque,
        allowed=frozenset(RELATIONS) if opaque else allowed,
        best="" if opaque or not words else words[-1],
    )


def _word(step: Step, *, is_adapter: bool) -> str:
    if isinstance(step, QUANTISE) or (isinstance(step, Cast) and step.arithmetic.store in _FP8):
        return "quantized"
    if isinstance(step, (Merge, Assemble, LoraMerge, DoraMerge)):
        return "merge"
    if isinstance(step, Training):
        return "adapter" if is_adapter else "finetune"
    return ""
