"""FP8 as safetensors has it: F8_E4M3 is torch's float8_e4m3fn, F8_E5M2 its float8_e5m2 (OCP OFP8)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from parentage.verify.rounding import to_odd

FP8: Final[dict[str, torch.dtype]] = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
LARGEST: Final = {"F8_E4M3": 448.0, "F8_E5M2": 57344.0}
#: Quiet NaN with no payload; E4M3 has one NaN of each sign and no infinity.
_NAN: Final = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7E}


def round_fp8(exact: Tensor, dtype: str, *, saturate: bool = False) -> Tensor:
    """Round float64 values to FP8 once, to nearest, ties to even; return the bytes.

    Beyond the largest finite number: infinity (NaN in E4M3, of either sign), or that number if
    `saturate`. The fp32 in between is rounded to odd, so torch's own rounding is the only one.
    """
    missing = exact.isnan()
    if saturate:
        exact = exact.clamp(-LARGEST[dtype], LARGEST[dtype])
    found = to_odd(exact).to(FP8[dtype]).view(torch.uint8)
    if dtype == "F8_E4M3":
        missing = missing | (found & 0x7F == 0x7F)
    found[missing] = _NAN[dtype]
    return found


def widen(stored: Tensor, dtype: str) -> Tensor:
    """Return the values of FP8 bytes in fp32, exactly."""
    return stored.view(FP8[dtype]).to(torch.float32)
