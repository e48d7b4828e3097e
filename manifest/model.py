"""Shards and index become one list of tensors: the weights of a release.

The weights are, in this order: the shards of `model.safetensors.index.json`; else the one top-level
`*.safetensors`; else all top-level ones, provided that no tensor name stands in two of them.
Weights files elsewhere in the folder are ordinary files, covered by their SHA-256. Where there are no
safetensors, the top-level `*.gguf`, else `*.onnx`, are the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from parentage.manifest import canonical
from parentage.manifest.cursor import ReadAt
from parentage.manifest.errors import FileSetError, MalformedError, ShardIndexError
from parentage.manifest.files import FileSet, OpenFile, open_files
from parentage.manifest.gguf import read_gguf
from parentage.manifest.header import Header, read_header
from parentage.manifest.onnx import read_onnx
from parentage.manifest.tensor import Tensor

INDEX_SUFFIX: Final = ".safetensors.index.json"
_MAX_INDEX: Final = 64 << 20
#: Formats of weights by the end of a file's name, the preferred one first.
READERS: Final[Mapping[str, Callable[[ReadAt, int, str], Header]]] = {
    ".safetensors": read_header,
    ".gguf": read_gguf,
    ".onnx": read_onnx,
}
#: What torch.save writes: only torch can read it, and only as a parent (verify/pickles.py).
PICKLED: Final = (".pt", ".pth", ".bin", ".ckpt")


class Model(msgspec.Struct, frozen=True):
    """The weights of a release: its files, headers and tensors.

    Attributes:
        files: every file of the release.
        headers: of each weights file, by name.
        tensors: by name.
    """

    files: FileSet
    headers: Mapping[str, Header]
    tensors: Mapping[str, Tensor]

    def __enter__(self) -> Self:
        """Return itself; leaving closes every file."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close every file."""
        self.files.close()

    @property
    def root(self) -> Path:
        """The folder or file that was opened."""
        return self.files.root

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.end - tensor.start for tensor in self.tensors.values())

    def file_of(self, tensor: Tensor) -> OpenFile:
        """Return the open file that holds `tensor`."""
        return self.files.files[tensor.file]


def open_model(path: Path) -> Model:
    """Open a folder, Hub cache snapshot or single file and read its headers.

    Raises:
        UsageError: `path` does not exist.
        FileSetError, HeaderError, ShardIndexError: the files break a rule.
    """
    files = open_files(path)
    try:
        return model_of(files)
    except BaseException:
        files.close()
        raise


def model_of(files: FileSet) -> Model:
    """Read the headers of the weights among `files`."""
    index = sorted(name for name in files.files if _is_top(name) and name.endswith(INDEX_SUFFIX))
    if len(index) > 1:
        raise ShardIndexError("more than one shard index", found=", ".join(index))
    weight_map = read_index(files.files[index[0]]) if index else None
    names = sorted(set(weight_map.values())) if weight_map is not None else _weights_files(files)
    headers: dict[str, Header] = {}
    tensors: dict[str, Tensor] = {}
    for name in names:
        file = files.files.get(name)
        if file is None:
            raise ShardIndexError("shard named by the index is missing", where=index[0], found=name)
        headers[name] = _reader(name)(file.read_at, file.size, name)
        for tensor in headers[name].tensors:
            if tensor.spec.name in tensors:
                raise MalformedError(
                    "the same tensor in two files",
                    where=tensor.spec.name,
                    found=f"{tensors[tensor.spec.name].file}, {name}",
                )
            tensors[tensor.spec.name] = tensor
    if weight_map is not None:
        _check_map(weight_map, tensors, index[0])
    if not tensors:
        raise FileSetError("the weights hold no tensor", where=str(files.root))
    return Model(files, headers, tensors)


def _weights_files(files: FileSet) -> list[str]:
    for suffix in READERS:
        names = sorted(n for n in files.files if _is_top(n) and n.endswith(suffix))
        if names:
            return names
    pickled = [n for n in files.files if _is_top(n) and n.endswith(PICKLED)]
    hint = "a pickle is read as a parent only; parentage merge writes it as safetensors"
    raise FileSetError(
        "no safetensors weights here",
        where=str(files.root),
        expected="model.safetensors, or shards with an index (or .gguf, .onnx)",
        found=", ".join(pickled[:3]),
        hint=hint if pickled else "",
    )


def _reader(name: str) -> Callable[[ReadAt, int, str], Header]:
    """Return the reader of a file by its name; a shard that an index names is safetensors."""
    return next((r for suffix, r in READERS.items() if name.endswith(suffix)), read_header)


def _is_top(name: str) -> bool:
    return "/" not in name


def read_index(file: OpenFile) -> dict[str, str]:
    """Return the shard of every tensor, as a shard index says.

    Raises:
        JsonError, ShardIndexError: it is none, or names a file elsewhere.
    """
    document = canonical.loads(
        file.read_small(_MAX_INDEX), where=file.name, max_bytes=_MAX_INDEX, floats=True
    )
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ShardIndexError("index has no weight_map", where=file.name)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or "/" in shard or "\\" in shard or shard in {"", ".", ".."}:
            raise ShardIndexError(
                "index names a file outside the release",
                where=f"{file.name}: {tensor}",
                expected="the plain name of a file beside it",
                found=str(shard),
            )
    return weight_map


def _check_map(weight_map: dict[str, str], tensors: dict[str, Tensor], where: str) -> None:
    for name in sorted(set(weight_map) | set(tensors)):
        said = weight_map.get(name, "not listed")
        found = tensors[name].file if name in tensors else "in no shard"
        if said != found:
            raise ShardIndexError(
                "index and shards disagree", where=f"{where}: {name}", expected=said, found=found
            )
