"""dora_merge/v1: m (W + s B A) / |W + s B A|, lengths row by row (Liu et al. 2024).

parentage-1   V = RN64(W + s sum) as in lora_merge/v1; each row's length is the square root of its tree sum
              of RN64(V V); f = m / length; y = RN_store(RN64(f V)).
peft          V = W + (B A) s and m / norm(V) in the dtypes that torch promotes to (peft/tuners/lora/
              variants.py, 0.21): fp32 ("/fp32"), or narrow where adapters are kept narrow
              ("/adapter-dtype"). The norms' order is unknown, too, so that rung C's bound grows with the
              length of a row; in narrow arithmetic it confirms nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from parentage.manifest.adapter_steps import DoraMerge
from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.verify.methods.adapters import Adapter
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES, TINY, UNIT, round_once
from parentage.verify.sums import tree_sum
from parentage.verify.values import Scratch, Source

_PROFILES: Final = ("parentage-1", "peft")
#: Rows are held whole.
_MAX_COLUMNS: Final = 1 << 20


class DoraMethod:
    """A bound dora_merge/v1."""

    def __init__(self, step: DoraMerge, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, _PROFILES)
        self._step = step
        self._adapter = Adapter(step, inputs)
        self._base, self._pairs = self._adapter.base, self._adapter.pairs
        self.deterministic = step.arithmetic.profile == "parentage-1"
        known = [name for name in self._adapter.engines() if name != "peft/safe-merge"]
        self.variants = ("parentage-1",) if self.deterministic else tuple(known)
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._base.specs.items()
        }
        for name in self._pairs:
            if self.specs[name].shape[1] > _MAX_COLUMNS:
                raise ShapeMismatchError(
                    "rows too long for DoRA",
                    where=f"step {step.id}: {name}",
                    expected=f"<= {_MAX_COLUMNS}",
                    found=str(list(self.specs[name].shape)),
                )
        self.proven_bound = all(
            UNIT[self._work(name, variant)] <= UNIT["F32"]
            for name in self._pairs
            for variant in known
        )

    def _store(self, spec: TensorSpec) -> str:
        store = self._step.arithmetic.store
        return store if store and spec.name in self._pairs else spec.dtype

    def _through(self, name: str, variant: str) -> str:
        """Return the dtype that an engine rounds the scaled product and the magnitudes to."""
        kept = variant == "peft/adapter-dtype"
        return self._adapter.source.specs[self._pairs[name].b].dtype if kept else "F32"

    def _work(self, name: str, variant: str) -> str:
        """Return the dtype of V: what torch promotes W and the product to."""
        through = DTYPES[self._through(name, variant)]
        work = torch.promote_types(DTYPES[self._base.specs[name].dtype], through)
        return next(key for key, value in DTYPES.items() if value == work)

    def _rows(self, name: str, start: int, stop: int) -> tuple[int, int, int]:
        """Return the range of whole rows around [start, stop), and the length of a row."""
        columns = self.specs[name].shape[1]
        return start // columns * columns, -(-stop // columns) * columns, columns

    def _magnitudes(self, name: str, first: int, last: int, scratch: Scratch) -> Tensor:
        return self._adapter.source.read(self._pairs[name].magnitude, first, last, scratch)

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the merged elements under one engine."""
        if name not in self._pairs:
            return self._base.read(name, start, stop, scratch)
        store = self.specs[name].dtype
        begin, end, columns = self._rows(name, start, stop)
        base = self._base.read(name, begin, end, scratch)
        m = self._magnitudes(name, begin // columns, end // columns, scratch)
        if variant == "parentage-1":
            v = base.to(torch.float64).add(self._adapter.product64(name, begin, end, scratch))
            v = v.view(-1, columns)
            factor = m.to(torch.float64) / tree_sum(v * v).sqrt()
            out = round_once((factor[:, None] * v).reshape(-1), store)
        else:
            through = DTYPES[self._through(name, variant)]
            delta = self._adapter.product32(name, begin, end, scratch).to(through)
            v = (base + delta).view(-1, columns)
            factor = m.to(through) / torch.linalg.norm(v, dim=1).to(v.dtype)
            out = (factor.view(-1, 1) * v).reshape(-1).to(DTYPES[store])
        return out[start - begin : stop - begin]

    def reads(self, name: str, start: int, stop: int) -> list[tuple[Source, str, int, int]]:
        """Return whole rows of the base, and the adapter's factors and magnitudes."""
        elements = self._base.specs[name].elements
        return self._adapter.reads(name, 0, elements)

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return rung C's interval: dot products of length r and norms of a row, in any order.

        e = |error of V| <= gamma(r + 4) s |B| |A| + the roundings of product and sum; a norm is off by at
        most |e| and (columns / 2 + 2) u of its own; quotient, product and magnitude round once each.
        """
        store = self.specs[name].dtype
        if self.deterministic or name not in self._pairs or store not in FLOAT_DTYPES:
            return None
        begin, end, columns = self._rows(name, start, stop)
        rank = self._pairs[name].rank
        unit, through = UNIT[self._work(name, variant)], UNIT[self._through(name, variant)]
        delta = self._adapter.product64(name, begin, end, scratch)
        size = self._adapter.product64(name, begin, end, scratch, absolute=True)
        v = self._base.read(name, begin, end, scratch).to(torch.float64).add(delta)
        m = self._magnitudes(name, begin // columns, end // columns, scratch).to(torch.float64)
        steps = (rank + 4) * UNIT["F32"]
        error = size.mul_(steps / (1 - steps)).add_(delta.abs(), alpha=2 * through)
        error.add_(v.abs(), alpha=2 * unit).add_((rank + 4) * TINY["F32"])
        v, error = v.view(-1, columns), error.view(-1, columns)
        norm = v.square().sum(dim=1).sqrt()
        loose = error.square().sum(dim=1).sqrt() / norm
        loose.add_((columns / 2 + 2) * UNIT["F32"] + 2 * unit)
        room = 1.01 / (1 - loose.clamp(max=0.99))
        exact = (m / norm)[:, None] * v
        slack = (m.abs() / norm)[:, None] * error
        slack += exact.abs() * (loose + 3 * unit + through)[:, None]
        slack *= room[:, None]
        low, high = exact - slack, exact + slack
        cut = slice(start - begin, stop - begin)
        return round_once(low.reshape(-1)[cut], store), round_once(high.reshape(-1)[cut], store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the base's tensor where no adapter touches it."""
        return None if name in self._pairs else self._base.alias(name)


def dora_merge(step: DoraMerge, inputs: Mapping[str, Source]) -> DoraMethod:
    """Bind dora_merge/v1."""
    return DoraMethod(step, inputs)
