"""OpenSSF Model Signing v1.0: every file of a release under one statement.

Written so that an unmodified `model_signing verify` (1.1.1) accepts it: one subject, resources in
code-point order, root = SHA-256 over the concatenated file digests. Read more strictly than the
reference tool: it accepts empty resources, duplicate and escaping names, and any ignore list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from parentage.attest.statement import Statement, Subject, build_statement
from parentage.manifest.errors import StatementError

PREDICATE: Final = "https://model_signing/signature/v1.0"
#: Exact paths. Claims are appended after signing; the cache and git files are not part of a release.
DEFAULT_IGNORES: Final = (
    ".cache/huggingface",
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".parentage/claims.jsonl",
    "model.sig",
)
#: What loaders read: ignoring one of these would leave it open to anyone.
_READ_BY_LOADERS: Final = (
    *("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.pth", "*.ckpt", "*.onnx", "*.h5", "*.msgpack"),
    *("*.pkl", "*.pickle", "*.npz", "*.py", "*.so", "*.json", "*.jinja", "*.model", "merges.txt"),
    *("vocab.*", "tokenizer*", "chat_template*", "*.jsonl", "leaves.bin"),
)
_HEX: Final = re.compile("[0-9a-f]{64}")


class Oms(msgspec.Struct, frozen=True):
    """What a model signature says.

    Attributes:
        root: the subject's digest.
        resources: SHA-256 by file name.
        ignore_paths: what the signer left out.
    """

    root: str
    resources: dict[str, str]
    ignore_paths: frozenset[str]


def build(
    name: str, digests: Mapping[str, str], *, ignore_paths: Sequence[str] = DEFAULT_IGNORES
) -> bytes:
    """Return the payload of a model signature over files with these SHA-256 digests."""
    if not digests:
        raise StatementError("an empty model can't be signed", where=name)
    ordered = sorted(digests)
    root = _root(digests[file] for file in ordered)
    predicate = {
        "resources": [
            {"name": file, "algorithm": "sha256", "digest": digests[file]} for file in ordered
        ],
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": sorted(ignore_paths),
        },
    }
    return build_statement((Subject(name, root),), PREDICATE, predicate)


def parse(statement: Statement) -> Oms:
    """Check a model signature's statement.

    Raises:
        StatementError: wrong type, nothing signed, bad or double names, a root that does not match.
    """
    if statement.predicate_type != PREDICATE:
        raise StatementError(
            "not a model signature", expected=PREDICATE, found=statement.predicate_type
        )
    if len(statement.subjects) != 1 or statement.predicate.keys() != {"resources", "serialization"}:
        raise StatementError("model signature has other fields", where="predicate")
    ignore_paths = _serialization(statement.predicate["serialization"])
    resources = _resources(statement.predicate["resources"])
    root = _root(resources.values())
    if root != statement.subjects[0].sha256:
        raise StatementError(
            "root does not match the listed files",
            where="subject",
            expected=root,
            found=statement.subjects[0].sha256,
        )
    return Oms(root, resources, ignore_paths)


def is_ignored(name: str, ignore_paths: Iterable[str]) -> bool:
    """Say whether a file is an ignored path, or lies below one."""
    if not isinstance(ignore_paths, frozenset):
        ignore_paths = frozenset(ignore_paths)
    parts = name.split("/")
    return any("/".join(parts[:depth]) in ignore_paths for depth in range(1, len(parts) + 1))


def dangerous_ignores(ignore_paths: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the files that loaders read and that the signer's own ignores leave unsigned."""
    own = frozenset(ignore_paths) - frozenset(DEFAULT_IGNORES)
    return [
        name
        for name in names
        if is_ignored(name, own)
        and any(fnmatchcase(name.rpartition("/")[2].lower(), glob) for glob in _READ_BY_LOADERS)
    ]


def _serialization(value: object) -> frozenset[str]:
    required = {"method", "hash_type", "allow_symlinks"}
    if not isinstance(value, dict) or not required <= value.keys() <= required | {"ignore_paths"}:
        raise StatementError(
            "serialization has other fields", where="serialization", found=str(value)
        )
    if value["method"] != "files" or value["hash_type"] != "sha256":
        raise StatementError(
            "serialization not read here",
            where="serialization",
            expected="files, sha256",
            found=f"{value['method']}, {value['hash_type']}",
        )
    paths = value.get("ignore_paths", [])
    if not isinstance(paths, list):
        raise StatementError("ignore_paths is not a list", where="serialization")
    for path in paths:
        _check_name(path, "ignore_paths")
    return frozenset(paths)


def _resources(value: object) -> dict[str, str]:
    if not isinstance(value, list) or not value:
        raise StatementError("nothing is signed", where="resources", expected="at least one file")
    found: dict[str, str] = {}
    for entry in value:
        # The specification lets a resource carry more fields, to be ignored.
        if not isinstance(entry, dict) or not {"name", "algorithm", "digest"} <= entry.keys():
            raise StatementError("resource lacks a field", where="resources", found=str(entry))
        name = _check_name(entry["name"], "resources")
        digest = entry["digest"]
        if (
            entry["algorithm"] != "sha256"
            or not isinstance(digest, str)
            or not _HEX.fullmatch(digest)
        ):
            raise StatementError("not a SHA-256", where=f"resources: {name}", found=str(digest))
        if name in found:
            raise StatementError("resource name stands twice", where="resources", found=name)
        found[name] = digest
    return found


def _check_name(name: object, where: str) -> str:
    parts = name.split("/") if isinstance(name, str) else [""]
    if not isinstance(name, str) or any(part in {"", ".", ".."} for part in parts) or "\0" in name:
        raise StatementError(
            "not a path inside the release", where=where, expected="a/b.c", found=str(name)
        )
    return name


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()
