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
_TIE: Final = {"F8_E4M3": 464.0, "F8_E5M2": 61440.0}
#: Quiet NaN with no payload; E4M3 has one NaN of each sign and no infinity.
_NAN: Final = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7E}
_BEYOND: Final = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7C}


def round_fp8(exact: Tensor, dtype: str, *, saturate: bool = False, signed: bool = False) -> Tensor:
    """Round float64 values to FP8 once, to nearest, ties to even; return the bytes.

    Beyond the largest finite number: infinity (NaN in E4M3), or that number if `saturate`; torch
    itself does now one, now the other (2.13 saturates E4M3). Within, torch rounds fp32 correctly, and
    rounding to odd before makes it the only rounding. NaN is quiet and positive; if `signed`, all
    ones with its sign, as torch has it.
    """
    largest = LARGEST[dtype]
    size = exact.abs()
    # Half a step beyond the largest: a tie goes to the even pattern, which 448 is and 57344 is not.
    beyond = size > _TIE[dtype] if dtype == "F8_E4M3" else size >= _TIE[dtype]
    found = to_odd(exact.clamp(-largest, largest)).to(FP8[dtype]).view(torch.uint8)
    sign = exact.signbit().to(torch.uint8) << 7
    missing = exact.isnan()
    if not saturate:
        found = torch.where(beyond, sign | _BEYOND[dtype], found)
        missing |= beyond if dtype == "F8_E4M3" else False
    nan = sign | 0x7F if signed else torch.full_like(sign, _NAN[dtype])
    return torch.where(missing, nan, found)


def widen(stored: Tensor, dtype: str) -> Tensor:
    """Return the values of FP8 bytes in fp32, exactly."""
    return stored.view(FP8[dtype]).to(torch.float32)
