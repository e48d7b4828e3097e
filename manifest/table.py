r"""`.parentage/tensors.jsonl` and `.parentage/leaves.bin`.

One canonical JSON line a tensor, sorted by the bytes of its name:

    {"dtype":"BF16","file":"model.safetensors","identity":{"ptd1-b3":"…"},"name":"…","offsets":[8,24],"shape":[2,4]}

then one a weights file, sorted by name:

    {"file":"model.safetensors","header":"<sha256>","sha256":"<sha256>","size":123}

`offsets` are absolute byte offsets in the file. `leaves.bin` is the leaves of every tensor in the
order of the lines, of the first profile present in the order ptd1-b3, ptd1-sha256.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import LEAF_BYTES, Profile
from parentage.manifest.errors import TensorTableError
from parentage.manifest.hashing import Digests
from parentage.manifest.model import Model
from parentage.manifest.tensor import BLOCKS, DTYPE_BITS, nbytes_of

TENSORS: Final = ".parentage/tensors.jsonl"
LEAVES: Final = ".parentage/leaves.bin"
MAX_TABLE: Final = 256 << 20

Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Natural = Annotated[int, msgspec.Meta(ge=0)]


class TensorLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One tensor: fields in alphabetical order, so that encoding is canonical."""

    dtype: str
    file: str
    identity: dict[str, Hex]
    name: str
    offsets: tuple[Natural, Natural]
    shape: tuple[Natural, ...]


class FileLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One weights file."""

    file: str
    header: Hex
    sha256: Hex
    size: Natural


class Table(msgspec.Struct, frozen=True):
    """A parsed table.

    Attributes:
        tensors: by name, in file order.
        files: by name.
        roots: the weights root by profile, computed from the lines.
    """

    tensors: dict[str, TensorLine]
    files: dict[str, FileLine]
    roots: dict[Profile, str]


def build(model: Model, digests: Digests) -> tuple[bytes, bytes]:
    """Return the bytes of `tensors.jsonl` and `leaves.bin`.

    `digests.files` must hold every weights file.
    """
    lines: list[bytes] = []
    leaves: list[bytes] = []
    for name in sorted(model.tensors, key=str.encode):
        tensor, found = model.tensors[name], digests.tensors[name]
        line = TensorLine(
            dtype=tensor.spec.dtype,
            file=tensor.file,
            identity=dict(sorted(found.identity.items())),
            name=name,
            offsets=(tensor.start, tensor.end),
            shape=tensor.spec.shape,
        )
        lines.append(msgspec.json.encode(line))
        leaves.append(found.leaves[_leaf_profile(found.identity)])
    for file, header in sorted(model.headers.items()):
        entry = FileLine(
            file=file,
            header=header.sha256,
            sha256=digests.files[file],
            size=model.files.files[file].size,
        )
        lines.append(msgspec.json.encode(entry))
    return b"".join(line + b"\n" for line in lines), b"".join(leaves)


def parse(data: bytes, *, where: str = TENSORS) -> Table:
    """Parse and check a table.

    Raises:
        TensorTableError: a line that is not canonical, out of order, double or inconsistent.
    """
    if len(data) > MAX_TABLE:
        raise TensorTableError("tensor table too large", where=where, found=str(len(data)))
    if not data.endswith(b"\n"):
        raise TensorTableError("tensor table is truncated", where=where, expected="a final newline")
    tensors: dict[str, TensorLine] = {}
    files: dict[str, FileLine] = {}
    for number, raw in enumerate(data[:-1].split(b"\n"), 1):
        at = f"{where}:{number}"
        line = _decode(raw, at)
        if isinstance(line, FileLine):
            _in_order(files, line.file, at)
            files[line.file] = line
            continue
        if files:
            raise TensorTableError("tensor line after a file line", where=at, found=line.name)
        _in_order(tensors, line.name, at)
        _check_tensor(line, at)
        tensors[line.name] = line
    if not tensors or not files:
        raise TensorTableError("tensor table is empty", where=where)
    for entry in tensors.values():
        if entry.file not in files or entry.offsets[1] > files[entry.file].size:
            raise TensorTableError(
                "tensor outside its file", where=f"{where}: {entry.name}", found=entry.file
            )
    return Table(tensors, files, _roots(tensors.values(), where))


def check_leaves(table: Table, leaves: bytes) -> None:
    """Check that `leaves.bin` leads to every identity of the table.

    Raises:
        TensorTableError: naming the first tensor whose leaves do not.
    """
    at = 0
    for name, line in table.tensors.items():
        profile = _leaf_profile(line.identity)
        nbytes = line.offsets[1] - line.offsets[0]
        end = at + LEAF_BYTES * digest.chunk_count(nbytes)
        found = digest.identity(profile, line.dtype, line.shape, nbytes, leaves[at:end])
        if found != line.identity[profile]:
            raise TensorTableError(
                "leaves do not lead to the tensor's identity",
                where=f"{LEAVES}: {name}",
                expected=line.identity[profile],
                found=found,
            )
        at = end
    if at != len(leaves):
        raise TensorTableError(
            "leaves.bin has the wrong length",
            where=LEAVES,
            expected=str(at),
            found=str(len(leaves)),
        )


def leaf_spans(table: Table) -> dict[str, tuple[Profile, int, int]]:
    """Return of every tensor: the profile of its leaves, and their first and last byte in `leaves.bin`."""
    found: dict[str, tuple[Profile, int, int]] = {}
    at = 0
    for name, line in table.tensors.items():
        end = at + LEAF_BYTES * digest.chunk_count(line.offsets[1] - line.offsets[0])
        found[name] = _leaf_profile(line.identity), at, end
        at = end
    return found


def _leaf_profile(identity: Iterable[str]) -> Profile:
    return digest.B3 if digest.B3 in identity else digest.SHA256


def _decode(raw: bytes, at: str) -> TensorLine | FileLine:
    kind: type[TensorLine | FileLine]
    # "name" is only in tensor lines; the round trip below refuses any other disguise.
    kind = TensorLine if b'"name":' in raw else FileLine
    try:
        line = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TensorTableError("bad line in tensor table", where=at, found=str(error)) from error
    if msgspec.json.encode(line) != raw:
        raise TensorTableError(
            "line is not canonical JSON", where=at, found=raw[:80].decode("utf-8", "replace")
        )
    return line


def _in_order(seen: dict[str, TensorLine] | dict[str, FileLine], name: str, at: str) -> None:
    last = next(reversed(seen), None)
    if last is not None and last.encode() >= name.encode():
        problem = "name stands twice" if last == name else "lines are not sorted by name"
        raise TensorTableError(problem, where=at, found=name)


def _check_tensor(line: TensorLine, at: str) -> None:
    profiles = list(line.identity)
    if not profiles or profiles != sorted(profiles) or not set(profiles) <= set(digest.PROFILES):
        raise TensorTableError("unknown or unsorted digest profile", where=at, found=str(profiles))
    if (line.dtype not in DTYPE_BITS and line.dtype not in BLOCKS) or len(line.shape) > 255:
        raise TensorTableError("unknown dtype or too many dimensions", where=at, found=line.dtype)
    nbytes = nbytes_of(line.dtype, line.shape)
    if nbytes is None:
        raise TensorTableError("shape overflows", where=at, found=f"{line.dtype} {line.shape}")
    if nbytes != line.offsets[1] - line.offsets[0]:
        raise TensorTableError("offsets do not fit dtype and shape", where=at, found=line.name)


def _roots(lines: Iterable[TensorLine], where: str) -> dict[Profile, str]:
    listed = list(lines)
    profiles = {tuple(line.identity) for line in listed}
    if len(profiles) != 1:
        raise TensorTableError("tensors carry different digest profiles", where=where)
    return {
        profile: digest.weights_root(
            profile, ((line.name, line.identity[profile]) for line in listed)
        )
        for profile in digest.PROFILES
        if profile in next(iter(profiles))
    }
