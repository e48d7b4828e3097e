"""abliterate/v1: a direction r taken out of matrices, r shipped as data (Arditi et al. 2024).

parentage-1   r in float64, divided by sqrt(tree_sum(r r)) if it is to be normalised. Left: p_j = sum_i r_i W_ij
              in order of i; y = RN_store(W_ij - (a r_i) p_j). Right: p_i = tree_sum_j(W_ij r_j);
              y = RN_store(W_ij - p_i (a r_j)). Every operation rounded to float64, none fused.
torch-fp32    the same in fp32 by any program. The order of its dot products is unknown, so that elements are
              bounded (rung C): a dot product of length n is off by at most gamma(n) |r||W|. No scalar would do
              as a witness, since there is one product a row or column.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.manifest.edit_steps import Ablation, Abliterate
from parentage.manifest.errors import ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches, ratio
from parentage.verify.kept import Kept
from parentage.verify.methods.base import Interval, check_profile
from parentage.verify.rounding import DTYPES, TINY, UNIT, round_once
from parentage.verify.sums import tree_sum
from parentage.verify.values import Scratch, Source

_PROFILES: Final = ("parentage-1", "torch-fp32")
#: Rows and directions are held whole, and so are the products with all columns.
_MAX_WIDTH: Final = 1 << 20
_MAX_PRODUCTS: Final = 1 << 22
_PIECE: Final = 1 << 18


class Found(msgspec.Struct):
    """What is computed once for a tensor.

    Attributes:
        r: the direction, float64.
        left: r' W for each matrix, float64 (matrices, columns); None from the right.
        size: |r|' |W| likewise, where a bound needs it.
    """

    r: Tensor
    left: Tensor | None
    size: Tensor | None


class AbliterateMethod:
    """A bound abliterate/v1."""

    proven_bound = True

    def __init__(self, step: Abliterate, inputs: Mapping[str, Source]) -> None:
        check_profile(step.id, step.arithmetic.profile, _PROFILES)
        self._step = step
        self.where = f"step {step.id}"
        self._source, self._directions = (inputs[name] for name in step.inputs)
        self.variants = (step.arithmetic.profile,)
        self.deterministic = step.arithmetic.profile == "parentage-1"
        self._kept: Kept[Found] = Kept(8)
        self._rules: dict[str, Ablation] = {}
        for name, spec in self._source.specs.items():
            rule = next((r for r in step.params.rules if matches(name, r.tensors)), None)
            if rule is not None:
                self._check(spec, rule)
                self._rules[name] = rule
        if not self._rules:
            raise ShapeMismatchError("no such tensor to take a direction out of", where=self.where)
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, self._store(spec), spec.shape)
            for name, spec in self._source.specs.items()
        }

    def _store(self, spec: TensorSpec) -> str:
        store = self._step.arithmetic.store
        return store if store and spec.name in self._rules else spec.dtype

    def _check(self, spec: TensorSpec, rule: Ablation) -> None:
        r = self._directions.specs.get(rule.direction)
        left = rule.side == "left"
        length = spec.shape[-2 if left else -1] if len(spec.shape) >= 2 else -1
        floats = {spec.dtype, r.dtype if r else ""} <= FLOAT_DTYPES
        columns = spec.shape[-1] if spec.shape else 0
        products = prod(spec.shape[:-2]) * columns if left else 0
        large = max(columns, length) > _MAX_WIDTH or products > _MAX_PRODUCTS
        if r is None or not floats or r.shape != (length,) or large:
            raise ShapeMismatchError(
                "direction does not fit",
                where=f"{self.where}: {spec.name}",
                expected=f"floats, a vector of {length}, rows of <= {_MAX_WIDTH}",
                found=f"{rule.direction}: {f'{r.dtype} {list(r.shape)}' if r else 'absent'}; "
                f"{spec.dtype} {list(spec.shape)}",
            )

    def _direction(self, rule: Ablation) -> Tensor:
        scratch = Scratch(torch.device("cpu"))
        count = self._directions.specs[rule.direction].elements
        r = self._directions.read(rule.direction, 0, count, scratch).to(torch.float64, copy=True)
        if not self._step.params.normalize:
            return r
        length = tree_sum(r * r).sqrt()
        if not bool(length > 0) or not bool(length.isfinite()):
            raise ShapeMismatchError(
                "direction has no length",
                where=f"{self.where}: {rule.direction}",
                expected="finite, not zero",
                found=str(float(length)),
            )
        return r / length

    def _found(self, name: str) -> Found:
        return self._kept.get(name, lambda: self._find(name))

    def _find(self, name: str) -> Found:
        rule, shape = self._rules[name], self._source.specs[name].shape
        r = self._direction(rule)
        if rule.side == "right":
            return Found(r, None, None)
        rows, columns = shape[-2:]
        matrices = prod(shape[:-2])
        left = torch.zeros(matrices, columns, dtype=torch.float64)
        size = None if self.deterministic else torch.zeros_like(left)
        scratch = Scratch(torch.device("cpu"))
        batch = max(_PIECE // max(columns, 1), 1)
        for matrix in range(matrices):
            for first in range(0, rows, batch):
                last = min(first + batch, rows)
                begin = (matrix * rows + first) * columns
                with scratch.borrowed():
                    end = (matrix * rows + last) * columns
                    tile = self._source.read(name, begin, end, scratch).to(torch.float64)
                    terms = r[first:last, None] * tile.view(last - first, columns)
                    for row in terms:  # one kernel a row: the order is part of the profile
                        left[matrix].add_(row)
                    if size is not None:
                        size[matrix].add_(terms.abs().sum(dim=0))
        return Found(r, left, size)

    def _parts(
        self, name: str, start: int, stop: int, scratch: Scratch
    ) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
        """Return where whole rows begin, W, and the two factors of the product as columns and rows.

        The last is the sum of absolute terms behind each product, if a bound needs it.
        """
        rule, found = self._rules[name], self._found(name)
        rows, columns = self._source.specs[name].shape[-2:]
        first, last = start // columns, -(-stop // columns)
        w = self._source.read(name, first * columns, last * columns, scratch)
        w = w.to(torch.float64).view(-1, columns)
        r = found.r.to(w.device)
        scaled = r * float(ratio(rule.alpha))
        if found.left is None:
            terms = w * r
            size = terms.abs().sum(dim=1, keepdim=True)
            return first * columns, w, tree_sum(terms)[:, None], scaled[None, :], size
        # One row of products for each row of W only where the range lies in several matrices.
        one = first // rows == (last - 1) // rows
        numbers = torch.arange(first, last, device=w.device)
        matrix = numbers[:1] // rows if one else numbers // rows
        size = w if found.size is None else found.size.to(w.device)[matrix]
        across = found.left.to(w.device)[matrix]
        return first * columns, w, scaled[numbers % rows][:, None], across, size

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return the elements under one engine."""
        if name not in self._rules:
            return self._source.read(name, start, stop, scratch)
        begin, w, down, across, _ = self._parts(name, start, stop, scratch)
        store = self.specs[name].dtype
        if variant == "parentage-1":
            product = down * across
            out = round_once(torch.sub(w, product, out=product).reshape(-1), store)
        else:
            product = down.to(torch.float32) * across.to(torch.float32)
            out = (w.to(torch.float32) - product).to(DTYPES[store]).reshape(-1)
        return out[start - begin : stop - begin]

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return rung C's interval: dot products of length n in fp32, in any order, r rounded likewise.

        With a normalised r, its length is off by (n / 2 + 2) u, and it stands in the product twice.
        """
        store = self.specs[name].dtype
        if self.deterministic or name not in self._rules:
            return None
        begin, w, down, across, size = self._parts(name, start, stop, scratch)
        n = self._found(name).r.numel()
        steps = (n + 8 + (n + 6 if self._step.params.normalize else 0)) * UNIT["F32"]
        factor = down if self._rules[name].side == "left" else across
        product = down * across
        error = factor.abs() * size * (steps / (1 - steps)) + (n + 8) * TINY["F32"]
        error += (w.abs() + product.abs() + error) * (2 * UNIT["F32"])
        exact = w - product
        cut = slice(start - begin, stop - begin)
        low, high = (exact - error).reshape(-1)[cut], (exact + error).reshape(-1)[cut]
        return round_once(low, store), round_once(high, store)

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return the input's tensor where nothing is taken out."""
        return None if name in self._rules else self._source.alias(name)


def abliterate(step: Abliterate, inputs: Mapping[str, Source]) -> AbliterateMethod:
    """Bind abliterate/v1."""
    return AbliterateMethod(step, inputs)
