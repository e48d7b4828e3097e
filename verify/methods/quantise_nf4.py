"""quantise_nf4/v1: 4-bit NormalFloat as bitsandbytes saves it (Dettmers et al. 2023, QLoRA).

A tensor W of n elements becomes four: `W` (U8, two codes a byte, the earlier in the high half; code 7
pads an odd end), `W.absmax` (F32, one a block), `W.quant_map` (F32, the 16 levels) and
`W.quant_state.bitsandbytes__nf4` (U8, JSON). A code is how many midpoints between levels are less
than t; a NaN has code 15.

parentage-1   t = x / m in float64 with m = RN_fp32(max|x|), 0 where m is 0; midpoints exact.
bnb-0.50      fp32 (bitsandbytes/backends/default/ops.py): t = clamp(x x RN(1 / max(m, 1e-38))), and in
              a short last block m = max(m, 1e-38), stored so, and t = clamp(x / m); midpoints rounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from parentage.manifest.quantise_steps import QuantiseNf4
from parentage.manifest.tensor import TensorSpec
from parentage.verify.methods.base import check_profile
from parentage.verify.methods.quantising import Quantising
from parentage.verify.values import Scratch, Source

#: bitsandbytes/functional.py, get_4bit_type: exact in fp32.
LEVELS: Final = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_ZERO: Final = 7
_TINY: Final = 1e-38
_NAMES: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_STATE: Final = "quant_state.bitsandbytes__nf4"


class QuantiseNf4Method(Quantising):
    """A bound quantise_nf4/v1."""

    def __init__(self, step: QuantiseNf4, inputs: Mapping[str, Source]) -> None:
        profile = step.arithmetic.profile
        check_profile(step.id, profile, ("parentage-1", "bnb-0.50"))
        self._block = step.params.block
        self._ours = profile == "parentage-1"
        self.variants = (profile,)
        levels = torch.tensor(LEVELS, dtype=torch.float64 if self._ours else torch.float32)
        self._midpoints = (levels[:-1] + levels[1:]) / 2
        super().__init__(step.id, inputs[step.inputs[0]], step.params, self._become)

    def _become(self, spec: TensorSpec) -> Iterable[tuple[str, TensorSpec]]:
        n, name = spec.elements, spec.name
        yield "codes", TensorSpec(name, "U8", (-(-n // 2), 1))
        yield "absmax", TensorSpec(f"{name}.absmax", "F32", (-(-n // self._block),))
        yield "map", TensorSpec(f"{name}.quant_map", "F32", (len(LEVELS),))
        yield "state", TensorSpec(f"{name}.{_STATE}", "U8", (len(self._state(spec)),))

    def _state(self, spec: TensorSpec) -> bytes:
        state = {
            "quant_type": "nf4",
            "blocksize": self._block,
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
        }
        return json.dumps(state).encode()

    def compute(
        self, origin: str, part: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Tensor:
        """Return units [start, stop) of one of the four tensors."""
        if part == "map":
            return torch.tensor(LEVELS, dtype=torch.float32, device=scratch.device)[start:stop]
        if part == "state":
            state = bytearray(self._state(self.source.specs[origin]))
            return torch.frombuffer(state, dtype=torch.uint8).to(scratch.device)[start:stop]
        if part == "absmax":
            return self._blocks(origin, start, stop, scratch)[1]
        first, last = 2 * start // self._block, -(-2 * stop // self._block)
        values, absmax = self._blocks(origin, first, last, scratch)
        codes = self._codes(values, absmax, self._short(origin, last)).reshape(-1)
        begin = first * self._block
        length = self.source.specs[origin].elements - begin
        codes[length:] = _ZERO
        high, low = codes[2 * start - begin : 2 * stop - begin].reshape(-1, 2).unbind(1)
        return (high << 4) | low

    def _short(self, name: str, last: int) -> bool:
        """Say whether the last of some blocks is short."""
        return last * self._block > self.source.specs[name].elements

    def _blocks(self, name: str, first: int, last: int, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Return blocks [first, last), padded with zeros, and their largest magnitudes in fp32."""
        stop = min(last * self._block, self.source.specs[name].elements)
        values = self.source.read(name, first * self._block, stop, scratch)
        values = values.to(torch.float64 if self._ours else torch.float32)
        padding = last * self._block - stop
        values = torch.nn.functional.pad(values, (0, padding)).reshape(-1, self._block)
        absmax = values.abs().amax(dim=1).to(torch.float32)
        if padding and not self._ours:
            absmax[-1] = absmax[-1].clamp(min=_TINY)
        return values, absmax

    def _codes(self, values: Tensor, absmax: Tensor, short: bool) -> Tensor:  # noqa: FBT001
        largest = absmax[:, None]
        if self._ours:
            scaled = values / largest.to(torch.float64)
            scaled = torch.where(largest == 0, values, scaled)
        else:
            scaled = values * (1.0 / largest.clamp(min=_TINY))
            if short:
                scaled[-1] = values[-1] / largest[-1]
            scaled = scaled.clamp(-1, 1)
        midpoints = self._midpoints.to(values.device)
        return torch.bucketize(scaled, midpoints, out_int32=True).to(torch.uint8)


def quantise_nf4(step: QuantiseNf4, inputs: Mapping[str, Source]) -> QuantiseNf4Method:
    """Bind quantise_nf4/v1."""
    return QuantiseNf4Method(step, inputs)
