"""Bytes of safetensors wrapped as torch tensors, in the dtypes that safetensors' own loader chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from parentage.manifest.errors import CannotRunError, MissingExtraError
from parentage.manifest.tensor import Tensor, TensorSpec

if TYPE_CHECKING:
    import torch

_SUFFIX: Final = ".safetensors"
#: torch's names of safetensors' dtypes; an older torch lacks some. F6 has no counterpart.
_DTYPES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}


def dtype_of(tensor: Tensor) -> torch.dtype:
    """Return torch's counterpart of a tensor's dtype.

    Raises:
        MissingExtraError: torch is not installed.
        CannotRunError: the file is no safetensors, or torch has no such dtype.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "loading needs torch, which is not installed", hint="pip install 'parentage[recompute]'"
        ) from error
    if not tensor.file.endswith(_SUFFIX):
        raise CannotRunError(
            "only safetensors are loaded", where=tensor.file, hint="parentage verify checks it"
        )
    dtype = getattr(torch, _DTYPES.get(tensor.spec.dtype, ""), None)
    if not isinstance(dtype, torch.dtype):
        raise CannotRunError(
            f"torch {torch.__version__} has no dtype for {tensor.spec.dtype}",
            where=f"{tensor.file}: {tensor.spec.name}",
        )
    return dtype


def wrap(spec: TensorSpec, data: bytearray, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor over these very bytes; safetensors are little-endian, and so are we."""
    import torch

    shape = list(spec.shape)
    if spec.dtype == "F4":
        shape[-1] //= 2  # as safetensors' own loader: two to a byte
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape)
