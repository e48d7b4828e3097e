"""The table of merge methods: an op, and the function that binds a step to its inputs.

To add one: a file here, an entry in this table, a step in `manifest/steps.py`, vectors in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from parentage.manifest import steps
from parentage.verify.methods import cast, copies, lora, slerp, weighted_sum
from parentage.verify.methods.base import Method
from parentage.verify.sources import Source

METHODS: Final[Mapping[type, Callable[[Any, Mapping[str, Source]], Method]]] = {
    steps.Copy: copies.copy,
    steps.Rename: copies.rename,
    steps.LayerSelect: copies.layer_select,
    steps.Cast: cast.cast,
    steps.WeightedSum: weighted_sum.weighted_sum,
    steps.Slerp: slerp.slerp,
    steps.LoraMerge: lora.lora_merge,
}
