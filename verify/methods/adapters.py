"""What LoRA and DoRA share: an adapter's factors matched to the base's tensors, and their product."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.manifest.adapter_steps import DoraMerge, LoraMerge
from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES
from parentage.manifest.wire import matches, ratio
from parentage.verify.values import Scratch, Source

_MAX_RANK: Final = 8192
MAGNITUDE: Final = ".lora_magnitude_vector"


class Pair(msgspec.Struct, frozen=True):
    """The factors of one tensor, by their names in the adapter.

    Attributes:
        a, b: lora_A (r, in) and lora_B (out, r).
        rank: r.
        scale: s, rounded to float64 once.
        magnitude: DoRA's vector (out,); empty without.
    """

    a: str
    b: str
    rank: int
    scale: float
    magnitude: str = ""


class Adapter:
    """An adapter bound to the model that it is folded into."""

    def __init__(self, step: LoraMerge | DoraMerge, inputs: Mapping[str, Source]) -> None:
        self.where = f"step {step.id}"
        self.base, self.source = (inputs[name] for name in step.inputs)
        self._params = step.params
        self.pairs = self._match(magnitudes=isinstance(step, DoraMerge))

    def engines(self) -> tuple[str, ...]:
        """Return the engines of PEFT that these dtypes tell apart."""
        found = ["peft/fp32"]
        if any(spec.dtype in {"BF16", "F16"} for spec in self.source.specs.values()):
            found.append("peft/adapter-dtype")
        if any(self.base.specs[name].dtype in {"BF16", "F16"} for name in self.pairs):
            found.append("peft/safe-merge")
        return tuple(found)

    def _match(self, *, magnitudes: bool) -> dict[str, Pair]:
        """Return pairs by base name; every adapter tensor must find its place."""
        prefix, specs = self._params.prefix, self.source.specs
        pairs: dict[str, Pair] = {}
        placed = 0
        for name in specs:
            stem = name.removeprefix(prefix).removesuffix(".lora_A.weight")
            partner = f"{prefix}{stem}.lora_B.weight"
            if name.endswith(".lora_B.weight") or (magnitudes and MAGNITUDE in name):
                continue
            if not name.startswith(prefix) or not name.endswith(".lora_A.weight"):
                raise ShapeMismatchError(
                    "adapter tensor is no LoRA pair", where=self.where, found=name
                )
            target = f"{stem}.weight"
            if target not in self.base.specs or partner not in specs:
                raise ShapeMismatchError("adapter finds no tensor", where=self.where, found=name)
            rank = self._check(target, name, partner)
            magnitude = self._magnitude(f"{prefix}{stem}", target) if magnitudes else ""
            pairs[target] = Pair(name, partner, rank, self._scale(target, rank), magnitude)
            placed += 2 + magnitudes
        if not pairs or placed != len(specs):
            raise ShapeMismatchError(
                "adapter has no pairs, or tensors without their partners", where=self.where
            )
        return pairs

    def _magnitude(self, stem: str, target: str) -> str:
        """Return the name of a magnitude vector; PEFT writes it with and without `.weight`."""
        name = next(
            (
                n
                for n in (f"{stem}{MAGNITUDE}", f"{stem}{MAGNITUDE}.weight")
                if n in self.source.specs
            ),
            "",
        )
        rows = self.base.specs[target].shape[0]
        shape = self.source.specs[name].shape if name else ()
        if shape != (rows,) or self.source.specs[name].dtype not in FLOAT_DTYPES:
            raise ShapeMismatchError(
                "no magnitude for each row",
                where=f"{self.where}: {target}",
                expected=str([rows]),
                found=str(list(shape)) if name else "none",
            )
        return name

    def _check(self, target: str, a: str, b: str) -> int:
        left, right = self.source.specs[b].shape, self.source.specs[a].shape
        shape = self.base.specs[target].shape
        if self._params.fan_in_fan_out:
            shape = shape[::-1]
        fits = len(left) == len(right) == 2 and left[1] == right[0] and (left[0], right[1]) == shape
        dtypes = {self.source.specs[a].dtype, self.source.specs[b].dtype}
        fits &= dtypes | {self.base.specs[target].dtype} <= FLOAT_DTYPES
        if not fits or not 0 < right[0] <= _MAX_RANK:
            raise ShapeMismatchError(
                "adapter does not fit",
                where=f"{self.where}: {target}",
                expected=str(list(shape)),
                found=f"{list(left)} x {list(right)}",
            )
        return right[0]

    def _scale(self, target: str, rank: int) -> float:
        text = next(
            (o.alpha for o in self._params.overrides if matches(target, o.tensors)),
            self._params.alpha,
        )
        alpha = ratio(text)
        if not self._params.rs_lora:
            return float(alpha / rank)
        with localcontext() as context:
            context.prec = 50
            exact = Decimal(alpha.numerator) / Decimal(alpha.denominator) / Decimal(rank).sqrt()
            return float(exact)

    def reads(self, name: str, start: int, stop: int) -> list[tuple[Source, str, int, int]]:
        """Return the base's elements, and at most all of what the adapter has for the tensor."""
        found: list[tuple[Source, str, int, int]] = [(self.base, name, start, stop)]
        pair = self.pairs.get(name)
        for factor in (pair.a, pair.b, pair.magnitude) if pair else ():
            if factor:
                found.append((self.source, factor, 0, self.source.specs[factor].elements))
        return found

    def factors(
        self, name: str, start: int, stop: int, scratch: Scratch
    ) -> tuple[Tensor, Tensor, slice]:
        """Return factors whose product's rows cover [start, stop), and the cut of it."""
        pair, source = self.pairs[name], self.source
        rank = pair.rank
        rows, columns = self.base.specs[name].shape
        first, last = start // columns, -(-stop // columns)
        cut = slice(start - first * columns, stop - first * columns)
        if not self._params.fan_in_fan_out:
            left = source.read(pair.b, first * rank, last * rank, scratch).reshape(-1, rank)
            right = source.read(pair.a, 0, rank * columns, scratch).reshape(rank, columns)
            return left, right, cut
        left = source.read(pair.a, 0, rank * rows, scratch).reshape(rank, rows)[:, first:last].T
        right = source.read(pair.b, 0, columns * rank, scratch).reshape(columns, rank).T
        return left, right, cut

    def product32(self, name: str, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return (B A) s as PEFT has it: in fp32, in the order of a BLAS."""
        left, right, cut = self.factors(name, start, stop, scratch)
        product = (left.to(torch.float32) @ right.to(torch.float32)) * self.pairs[name].scale
        return product.reshape(-1)[cut]

    def product64(
        self, name: str, start: int, stop: int, scratch: Scratch, *, absolute: bool = False
    ) -> Tensor:
        """Return s (B A) in float64, summed in order of k; or s times the sum of absolute terms."""
        left, right, cut = self.factors(name, start, stop, scratch)
        left, right = left.to(torch.float64), right.to(torch.float64)
        scale = self.pairs[name].scale
        if absolute:
            left, right, scale = left.abs(), right.abs(), abs(scale)
        total = left[:, :1] * right[:1]
        for k in range(1, left.shape[1]):
            # Two kernels, not addcmul: fused or not is the same only because products are exact.
            total.add_(left[:, k : k + 1] * right[k : k + 1])
        return total.reshape(-1)[cut].mul_(scale)
