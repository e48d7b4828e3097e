"""Steps that move tensors between layouts: every parameter of every index map, exact and typed."""

from __future__ import annotations

from typing import Annotated

import msgspec

from parentage.manifest.wire import StepBase, Wire


class TieParams(Wire, frozen=True, kw_only=True):
    """New name to the tensor that it is a second name of."""

    names: Annotated[dict[str, str], msgspec.Meta(min_length=1)]


class Tie(StepBase, frozen=True, kw_only=True, tag="tie/v1"):
    """The tensors of one input, some under a second name as well (`lm_head` tied to embeddings)."""

    params: TieParams
