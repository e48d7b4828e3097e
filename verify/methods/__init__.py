"""The table of merge methods: an op, and the function that binds a step to its inputs.

To add one: a file here, an entry in this table, a step in `manifest/merge_steps.py` or `steps.py`, a row
in docs/methods.md, vectors in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from parentage.manifest import (
    adapter_steps,
    checkpoint_steps,
    edit_steps,
    layout_steps,
    merge_steps,
    quantise_steps,
    steps,
    vocab_steps,
)
from parentage.verify.methods.abliterate import abliterate
from parentage.verify.methods.arcee_fusion import arcee_fusion
from parentage.verify.methods.base import Method
from parentage.verify.methods.cast import cast
from parentage.verify.methods.checkpoint_merge import checkpoint_merge
from parentage.verify.methods.copies import copy, layer_select, rename, tie
from parentage.verify.methods.dora import dora_merge
from parentage.verify.methods.karcher import karcher
from parentage.verify.methods.layout import assemble, layout
from parentage.verify.methods.lora import lora_merge
from parentage.verify.methods.model_stock import model_stock
from parentage.verify.methods.multislerp import multislerp
from parentage.verify.methods.nearswap import nearswap
from parentage.verify.methods.nuslerp import nuslerp
from parentage.verify.methods.quantise_gguf import quantise_gguf
from parentage.verify.methods.quantise_nf4 import quantise_nf4
from parentage.verify.methods.quantise_rtn import quantise_rtn
from parentage.verify.methods.ram import ram
from parentage.verify.methods.running_mean import running_mean
from parentage.verify.methods.scale import scale
from parentage.verify.methods.sce import sce
from parentage.verify.methods.slerp import slerp
from parentage.verify.methods.task_arithmetic import task_arithmetic
from parentage.verify.methods.vocab_permute import vocab_permute
from parentage.verify.methods.vocab_resize import vocab_resize
from parentage.verify.methods.weighted_sum import weighted_sum
from parentage.verify.values import Source

METHODS: Final[Mapping[type, Callable[[Any, Mapping[str, Source]], Method]]] = {
    steps.Copy: copy,
    steps.Rename: rename,
    layout_steps.Tie: tie,
    checkpoint_steps.CheckpointMerge: checkpoint_merge,
    vocab_steps.VocabPermute: vocab_permute,
    layout_steps.Assemble: assemble,
    layout_steps.Layout: layout,
    vocab_steps.VocabResize: vocab_resize,
    steps.LayerSelect: layer_select,
    quantise_steps.Cast: cast,
    quantise_steps.QuantiseRtn: quantise_rtn,
    quantise_steps.QuantiseNf4: quantise_nf4,
    quantise_steps.QuantiseGguf: quantise_gguf,
    steps.Scale: scale,
    adapter_steps.LoraMerge: lora_merge,
    adapter_steps.DoraMerge: dora_merge,
    edit_steps.Abliterate: abliterate,
    edit_steps.RunningMean: running_mean,
    merge_steps.WeightedSum: weighted_sum,
    merge_steps.TaskArithmetic: task_arithmetic,
    merge_steps.Slerp: slerp,
    merge_steps.NuSlerp: nuslerp,
    merge_steps.MultiSlerp: multislerp,
    merge_steps.Karcher: karcher,
    merge_steps.ModelStock: model_stock,
    merge_steps.Sce: sce,
    merge_steps.NearSwap: nearswap,
    merge_steps.ArceeFusion: arcee_fusion,
    merge_steps.Ram: ram,
}
