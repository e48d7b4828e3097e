"""What `torch.save` wrote, read by `torch.load(weights_only=True)` alone, and only as somebody's parent.

torch maps the archive and runs its own restricted unpickler; the tensors are then written into an
unnamed temporary safetensors file, and that is what is hashed and computed with. Values that are no
tensors are passed over. A tensor's name is its path of keys, joined by "."; what all paths begin
with is dropped ("state_dict" of a checkpoint).
"""

from __future__ import annotations

import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import torch
from torch import Tensor

from parentage.manifest import atomic
from parentage.manifest.errors import FileSetError, PickleError
from parentage.manifest.files import FileSet, OpenFile, open_files
from parentage.manifest.header import read_header
from parentage.manifest.model import PICKLED, Model
from parentage.manifest.tensor import TensorSpec
from parentage.manifest.writer import header_bytes

_MAX_VALUES: Final = 1_000_000
_MAX_DEPTH: Final = 32
_MAX_PICKLE: Final = 64 << 20
_MAX_ENTRIES: Final = 1_000_000
_PIECE: Final = 1 << 22
#: A tied tensor stands in a pickle once and under two names; more than that is a bomb.
_MAX_GROWTH: Final = 4

_DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
#: What torch's unpickler raises on files that are not what they say (torch/_weights_only_unpickler.py).
_UNREADABLE: Final = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError),
    *(AttributeError, AssertionError, OverflowError, MemoryError, zipfile.BadZipFile),
)


def open_pickled(path: Path) -> Model:
    """Open a .pt, .pth, .bin or .ckpt file, or a folder whose weights are one or shards of one.

    Raises:
        PickleError: it wants code to run, is in the format before torch 1.6, or holds what is no
            plain tensor.
        FileSetError: the folder has several.
        WriteFailedError: no room for the temporary file.
    """
    with open_files(path) as files:
        tensors: dict[str, Tensor] = {}
        names = _choose(files)
        for name in names:
            for key, tensor in _load(files.files[name]).items():
                if key in tensors:
                    raise PickleError("the same tensor in two files", where=key, found=name)
                tensors[key] = tensor
        size = sum(files.files[name].size for name in names)
        specs = _specs(tensors, size, path)
        with atomic.reporting(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as stream:
            _write(stream, specs, tensors)
            descriptor = os.dup(stream.fileno())
    file = OpenFile(names[0], descriptor, os.fstat(descriptor).st_size)
    opened = FileSet(path, {file.name: file})
    try:
        header = read_header(file.read_at, file.size, file.name)
    except BaseException:
        opened.close()
        raise
    return Model(opened, {file.name: header}, {t.spec.name: t for t in header.tensors})


def _choose(files: FileSet) -> list[str]:
    """Return the pickles that are the weights: all shards, or the one of its usual name, or the one."""
    found = sorted(n for n in files.files if "/" not in n and n.endswith(PICKLED))
    shards = [n for n in found if re.fullmatch(r"pytorch_model-\d{5}-of-\d{5}\.bin", n)]
    usual = [n for n in found if n == "pytorch_model.bin"]
    chosen = shards or usual or found
    if not shards and len(chosen) != 1:
        raise FileSetError(
            "which of these are the weights?",
            where=str(files.root),
            expected="one .pt or .bin file",
            found=", ".join(chosen[:5]),
            hint="name the file itself",
        )
    return chosen


def _load(file: OpenFile) -> dict[str, Tensor]:
    _check_archive(file)
    try:
        # By descriptor: what was opened and checked is what is mapped.
        loaded = torch.load(
            f"/proc/self/fd/{file.descriptor}", map_location="cpu", weights_only=True, mmap=True
        )
    except _UNREADABLE as error:
        text = str(error)
        wanted = re.search(r"GLOBAL (\S+)", text)
        if wanted is not None:
            raise PickleError(
                "the pickle wants code to run; weights need none",
                where=file.name,
                expected="tensors, numbers and text",
                found=wanted.group(1),
            ) from error
        raise PickleError(
            "torch.load(weights_only=True) refuses it",
            where=file.name,
            found=f"{type(error).__name__}: {text.partition(chr(10))[0]}",
        ) from error
    return _named(loaded, file.name)


def _check_archive(file: OpenFile) -> None:
    """Check the archive before torch maps it: its format, and that nothing in it is compressed."""
    try:
        with (
            open(file.descriptor, "rb", closefd=False) as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise PickleError(
            "not an archive of torch.save",
            where=file.name,
            expected="the zip format of torch 1.6 and later",
            found=str(error),
            hint="torch.save(torch.load(FILE, weights_only=True), NEW)",
        ) from error
    if len(entries) > _MAX_ENTRIES:
        raise PickleError("too many entries", where=file.name, found=str(len(entries)))
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > file.size:
            raise PickleError(
                "compressed entry", where=f"{file.name}: {entry.filename}", expected="stored"
            )
        if entry.filename.endswith(".pkl") and entry.file_size > _MAX_PICKLE:
            raise PickleError("pickle too large", where=file.name, found=str(entry.file_size))


def _named(loaded: object, where: str) -> dict[str, Tensor]:
    found = _walk(loaded, where)
    if not found:
        raise PickleError("the pickle holds no tensor", where=where)
    shared = _shared([keys[:-1] for keys in found])
    named: dict[str, Tensor] = {}
    for keys, tensor in found.items():
        name = ".".join(keys[shared:])
        if name in named or not name:
            raise PickleError("two tensors get one name, or one none", where=where, found=name)
        named[name] = tensor
    return named


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """Return how many keys all paths begin with."""
    columns = zip(*paths, strict=False)
    return next((i for i, keys in enumerate(columns) if len(set(keys)) > 1), min(map(len, paths)))


def _walk(loaded: object, where: str) -> dict[tuple[str, ...], Tensor]:
    """Return the tensors in containers by their path of keys; bounded, for a pickle can be a knot."""
    found: dict[tuple[str, ...], Tensor] = {}
    pending: list[tuple[tuple[str, ...], object]] = [((), loaded)]
    seen = 0
    while pending:
        keys, value = pending.pop()
        seen += 1
        if len(keys) > _MAX_DEPTH or seen + len(pending) > _MAX_VALUES:
            raise PickleError("too many values, or nested too deeply", where=where)
        if isinstance(value, Tensor):
            found[keys] = value
            continue
        inner: Iterable[tuple[object, object]] = ()
        if isinstance(value, Mapping):
            inner = value.items()
        elif isinstance(value, list | tuple):
            inner = enumerate(value)
        for key, part in inner:
            if not isinstance(key, str | int):
                raise PickleError("key is no text", where=where, found=type(key).__name__)
            pending.append(((*keys, str(key)), part))
    return found


def _specs(tensors: Mapping[str, Tensor], size: int, path: Path) -> list[TensorSpec]:
    """Return the specs in order of names, after checking that the values are really there."""
    specs: list[TensorSpec] = []
    for name in sorted(tensors):
        tensor, where = tensors[name], f"{path}: {name}"
        dtype = _DTYPES.get(tensor.dtype)
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if dtype is None or not plain or tensor.is_quantized:
            raise PickleError(
                "no plain tensor", where=where, found=f"{tensor.dtype} {tensor.layout}"
            )
        spec = TensorSpec(name, dtype, tuple(tensor.shape))
        if spec.nbytes > tensor.untyped_storage().nbytes() or spec.nbytes > size:
            raise PickleError(
                "tensor is larger than what is stored of it",
                where=where,
                expected=f"at most {min(tensor.untyped_storage().nbytes(), size)} bytes",
                found=f"{spec.nbytes} bytes",
            )
        specs.append(spec)
    total = sum(spec.nbytes for spec in specs)
    if total > _MAX_GROWTH * size:
        raise PickleError(
            "tensors share their bytes too often",
            where=str(path),
            expected=f"at most {_MAX_GROWTH} times the file's {size} bytes",
            found=f"{total} bytes",
        )
    return specs


def _write(stream: BinaryIO, specs: Sequence[TensorSpec], tensors: Mapping[str, Tensor]) -> None:
    stream.write(header_bytes(specs, {}))
    for spec in specs:
        tensor = tensors[spec.name].detach().resolve_conj().resolve_neg()
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        for at in range(0, flat.numel(), _PIECE):
            # numpy may be absent; a copy into a buffer that Python owns works everywhere.
            piece = bytearray(min(_PIECE, flat.numel() - at))
            torch.frombuffer(piece, dtype=torch.uint8).copy_(flat[at : at + len(piece)])
            stream.write(piece)
    stream.flush()
