"""lora_merge/v1: W + s B A (Hu et al. 2021; s = alpha / r, or alpha / sqrt(r) for rsLoRA).

parentage-1   the r products B[i,k] A[k,j] summed in float64 in order of k. Each product of two
              numbers of at most 24 bits is exact there, so FMA or not makes no difference;
              y = RN_store(RN(W + RN(s sum))).
peft          fp32 `(B @ A) * s`, added to W in fp32, rounded (peft/tuners/lora/layer.py, 0.21). The order
              of a BLAS product is unknown, so it is tried for rung A and bounded for rung C.
              "/fp32" as it is; "/adapter-dtype" rounds the product to the adapter's dtype first
              (adapters kept in bf16 or fp16); "/safe-merge" to W's dtype first (safe_merge=True).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Final

import torch
from torch import Tensor

from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.steps import LoraMerge
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import ratio
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES, TINY, UNIT, round_once
from parentage.verify.sources import Scratch, Source

_PROFILES: Final = ("parentage-1", "peft")
_MAX_RANK: Final = 8192


class LoraMethod:
    """A bound lora_merge/v1."""

    proven_bound = True

    def __init__(self, step: LoraMerge, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, _PROFILES)
        self._step = step
        self._base, self._adapter = (inputs[name] for name in step.inputs)
        self.deterministic = step.arithmetic.profile == "parentage-1"
        self._pairs = self._match()
        self.variants = ("parentage-1",) if self.deterministic else self._engines()
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._base.specs.items()
        }

    def _engines(self) -> tuple[str, ...]:
        found = ["peft/fp32"]
        if any(spec.dtype in {"BF16", "F16"} for spec in self._adapter.specs.values()):
            found.append("peft/adapter-dtype")
        if any(self._base.specs[name].dtype in {"BF16", "F16"} for name in self._pairs):
            found.append("peft/safe-merge")
        return tuple(found)

    def _through(self, name: str, variant: str) -> str:
        """Return the dtype that an engine rounds the scaled product to."""
        if variant == "peft/adapter-dtype":
            return self._adapter.specs[self._pairs[name][1]].dtype
        return self._base.specs[name].dtype if variant == "peft/safe-merge" else "F32"

    def _store(self, spec: TensorSpec) -> str:
        store = self._step.arithmetic.store
        return store if store and spec.name in self._pairs else spec.dtype

    def _match(self) -> dict[str, tuple[str, str, int]]:
        """Return base name -> (A, B, rank); every adapter tensor must find its place."""
        where = f"step {self._step.id}"
        prefix = self._step.params.prefix
        pairs: dict[str, tuple[str, str, int]] = {}
        specs = self._adapter.specs
        for name in specs:
            stem = name.removeprefix(prefix).removesuffix(".lora_A.weight")
            partner = f"{prefix}{stem}.lora_B.weight"
            if name.endswith(".lora_B.weight"):
                continue
            if not name.startswith(prefix) or not name.endswith(".lora_A.weight"):
                raise ShapeMismatchError("adapter tensor is no LoRA pair", where=where, found=name)
            target = f"{stem}.weight"
            if target not in self._base.specs or partner not in specs:
                raise ShapeMismatchError("adapter finds no tensor", where=where, found=name)
            pairs[target] = (name, partner, self._check(where, target, name, partner))
        orphans = [n for n in specs if n.endswith("_B.weight") and len(specs) != 2 * len(pairs)]
        if orphans or not pairs:
            raise ShapeMismatchError("adapter has no pairs, or B without A", where=where)
        return pairs

    def _check(self, where: str, target: str, a: str, b: str) -> int:
        left, right = self._adapter.specs[b].shape, self._adapter.specs[a].shape
        shape = self._base.specs[target].shape
        if self._step.params.fan_in_fan_out:
            shape = shape[::-1]
        fits = len(left) == len(right) == 2 and left[1] == right[0] and (left[0], right[1]) == shape
        if not fits or not 0 < right[0] <= _MAX_RANK:
            raise ShapeMismatchError(
                "adapter does not fit",
                where=f"{where}: {target}",
                expected=str(list(shape)),
                found=f"{list(left)} x {list(right)}",
            )
        return right[0]

    def scale(self, rank: int) -> float:
        """Return s, rounded to float64 once."""
        alpha = ratio(self._step.params.alpha)
        if not self._step.params.rs_lora:
            return float(alpha / rank)
        with localcontext() as context:
            context.prec = 50
            exact = Decimal(alpha.numerator) / Decimal(alpha.denominator) / Decimal(rank).sqrt()
            return float(exact)

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the merged elements under one engine."""
        base = self._base.read(name, start, stop, scratch)
        if name not in self._pairs:
            return base
        store = self.specs[name].dtype
        scale = self.scale(self._pairs[name][2])
        if variant == "parentage-1":
            delta = self._delta(name, start, stop, scratch).mul_(scale)
            return round_once(base.to(torch.float64).add(delta), store)
        left, right, cut = self._factors(name, start, stop, scratch)
        delta = ((left.to(torch.float32) @ right.to(torch.float32)) * scale).reshape(-1)[cut]
        delta = delta.to(DTYPES[self._through(name, variant)]).to(torch.float32)
        return (base.to(torch.float32) + delta).to(DTYPES[store])

    def _factors(
        self, name: str, start: int, stop: int, scratch: Scratch
    ) -> tuple[Tensor, Tensor, slice]:
        """Return factors whose product's rows cover [start, stop), and the cut of it."""
        a, b, rank = self._pairs[name]
        rows, columns = self._base.specs[name].shape
        first, last = start // columns, -(-stop // columns)
        cut = slice(start - first * columns, stop - first * columns)
        if not self._step.params.fan_in_fan_out:
            left = self._adapter.read(b, first * rank, last * rank, scratch).reshape(-1, rank)
            right = self._adapter.read(a, 0, rank * columns, scratch).reshape(rank, columns)
            return left, right, cut
        left = self._adapter.read(a, 0, rank * rows, scratch).reshape(rank, rows)[:, first:last].T
        right = self._adapter.read(b, 0, columns * rank, scratch).reshape(columns, rank).T
        return left, right, cut

    def _delta(
        self, name: str, start: int, stop: int, scratch: Scratch, *, absolute: bool = False
    ) -> Tensor:
        left, right, cut = self._factors(name, start, stop, scratch)
        left, right = left.to(torch.float64), right.to(torch.float64)
        if absolute:
            left, right = left.abs(), right.abs()
        total = left[:, :1] * right[:1]
        for k in range(1, left.shape[1]):
            # Two kernels, not addcmul: fused or not is the same only because products are exact.
            total.add_(left[:, k : k + 1] * right[k : k + 1])
        return total.reshape(-1)[cut]

    def reads(self, name: str, start: int, stop: int) -> list[tuple[Source, str, int, int]]:
        """Return the base's elements, and both factors: at most all of them."""
        found: list[tuple[Source, str, int, int]] = [(self._base, name, start, stop)]
        for factor in self._pairs.get(name, ())[:2]:
            if isinstance(factor, str):
                found.append((self._adapter, factor, 0, self._adapter.specs[factor].elements))
        return found

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return rung C's interval: a dot product of length r in fp32, in any order."""
        store = self.specs[name].dtype
        if self.deterministic or name not in self._pairs or store not in FLOAT_DTYPES:
            return None
        rank = self._pairs[name][2]
        scale = self.scale(rank)
        base = self._base.read(name, start, stop, scratch).to(torch.float64)
        delta = self._delta(name, start, stop, scratch).mul_(scale)
        size = self._delta(name, start, stop, scratch, absolute=True).mul_(abs(scale))
        steps = (rank + 4) * UNIT["F32"]
        gamma = steps / (1 - steps)
        error = size.mul_(gamma).add_((rank + 4) * TINY["F32"])
        through = self._through(name, variant)
        low, high = (_rounded(delta + side, through) for side in (-error, error))
        # The last addition rounds to fp32 before it rounds to the stored dtype.
        slack = [(base.abs() + part.abs()).mul_(2 * UNIT["F32"]) for part in (low, high)]
        return round_once(base + low - slack[0], store), round_once(base + high + slack[1], store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the base's tensor where no adapter touches it."""
        return None if name in self._pairs else self._base.alias(name)


def _rounded(values: Tensor, dtype: str) -> Tensor:
    """Round to nearest: monotonic, so the ends of an interval stay its ends."""
    return round_once(values, dtype).to(torch.float64)


def lora_merge(step: LoraMerge, inputs: Mapping[str, Source]) -> LoraMethod:
    """Bind lora_merge/v1."""
    return LoraMethod(step, inputs)
