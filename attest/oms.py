"""OpenSSF Model Signing v1.0: every file of a model under one statement.

Written so that an unmodified `model_signing verify` (1.1.1) accepts it: one subject, resources in
code-point order, root = SHA-256 over the concatenated digests. Read more strictly than the reference
tool, which accepts empty resources, duplicate and escaping names, and any ignore list; and more widely
where the specification is wider: shards, BLAKE2b and BLAKE3, extra fields that are to be ignored.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec

from parentage.attest.coverage import DEFAULT_IGNORES
from parentage.attest.oms_names import ONE_FILE, by_file, check_name
from parentage.attest.statement import MAX_PAYLOAD, Statement, Subject, build_statement
from parentage.manifest.errors import StatementError
from parentage.manifest.ranges import HEX_DIGITS, Algorithm

PREDICATE: Final = "https://model_signing/signature/v1.0"
Method = Literal["files", "shards"]
#: The specification's default.
SHARD_BYTES: Final = 1_000_000_000
_MAX_SHARD: Final = 1 << 50
_REQUIRED: Final = {"method", "hash_type", "allow_symlinks"}
_OPTIONAL: Final = {"shard_size", "ignore_paths"}


class Oms(msgspec.Struct, frozen=True, kw_only=True):
    """What a model signature says.

    Attributes:
        root: the subject's digest.
        resources: digest in hex by resource name, as listed: a file, or `file:start:end`.
        files: names of its resources by file, in the order of their bytes.
        method: whether files or shards were hashed.
        hash_type: by which algorithm.
        shard_size: bytes of a shard; 0 for files.
        allow_symlinks: whether links stand for what they lead to.
        ignore_paths: what the signer left out.
    """

    root: str
    resources: dict[str, str]
    files: dict[str, tuple[str, ...]]
    method: Method = "files"
    hash_type: Algorithm = "sha256"
    shard_size: int = 0
    allow_symlinks: bool = False
    ignore_paths: frozenset[str] = frozenset()


def build(
    name: str,
    digests: Mapping[str, str],
    *,
    ignore_paths: Sequence[str] = DEFAULT_IGNORES,
    hash_type: Algorithm = "sha256",
    shard_size: int = 0,
    allow_symlinks: bool = False,
) -> bytes:
    """Return the payload of a model signature.

    Args:
        name: of the model; nothing depends on it.
        digests: in hex, by resource name.
        ignore_paths: what is left out.
        hash_type: algorithm of the digests.
        shard_size: bytes of a shard; 0 where whole files were hashed.
        allow_symlinks: whether links were followed.

    Raises:
        StatementError: no resources, or more than a statement holds.
    """
    if not digests:
        raise StatementError("an empty model can't be signed", where=name)
    ordered = sorted(digests)
    root = root_of(digests[resource] for resource in ordered)
    serialization: dict[str, Any] = {
        "method": "shards" if shard_size else "files",
        "hash_type": hash_type,
        "allow_symlinks": allow_symlinks,
        "ignore_paths": sorted(ignore_paths),
    }
    if shard_size:
        serialization["shard_size"] = shard_size
    predicate = {
        "resources": [
            {"name": resource, "algorithm": hash_type, "digest": digests[resource]}
            for resource in ordered
        ],
        "serialization": serialization,
    }
    payload = build_statement((Subject(name, root),), PREDICATE, predicate)
    if len(payload) > MAX_PAYLOAD:
        raise StatementError(
            "more files or shards than one statement holds",
            where=name,
            expected=f"at most {MAX_PAYLOAD} bytes",
            found=f"{len(digests)} resources, {len(payload)} bytes",
            hint="larger shards: --shard-size",
        )
    return payload


def parse(statement: Statement) -> Oms:
    """Check a model signature's statement.

    Raises:
        StatementError: wrong type, nothing signed, bad or double names, a root that does not match.
    """
    if statement.predicate_type != PREDICATE:
        raise StatementError(
            "not a model signature", expected=PREDICATE, found=statement.predicate_type
        )
    if len(statement.subjects) != 1:
        raise StatementError("model signature has other fields", where="subject", expected="one")
    return read_predicate(statement.predicate, statement.subjects[0].sha256)


def read_predicate(predicate: dict[str, Any], root: str | None) -> Oms:
    """Check a predicate and that its resources lead to `root`; None: nothing says one.

    Raises:
        StatementError: nothing signed, bad or double names, or another root.
    """
    if predicate.keys() != {"resources", "serialization"}:
        raise StatementError(
            "model signature has other fields",
            where="predicate",
            expected="resources, serialization",
            found=", ".join(sorted(predicate)),
        )
    said = _serialization(predicate["serialization"])
    resources = _resources(predicate["resources"], said)
    computed = root_of(resources.values())
    if root not in {computed, None}:
        raise StatementError(
            "root does not match the listed files",
            where="subject",
            expected=computed,
            found=str(root),
        )
    files = by_file(resources, said.shard_size)
    return msgspec.structs.replace(said, root=computed, resources=resources, files=files)


def require_plain(signed: Oms) -> None:
    """Refuse what a release's signature may not be: tensors are compared with files by SHA-256.

    Raises:
        StatementError: shards, another algorithm, or links.
    """
    if signed.method != "files" or signed.hash_type != "sha256" or signed.allow_symlinks:
        links = ", links" if signed.allow_symlinks else ""
        raise StatementError(
            "a release's model.sig is over files, by SHA-256, without links",
            where="serialization",
            expected="files, sha256",
            found=f"{signed.method}, {signed.hash_type}{links}",
            hint="parentage oms verify checks the files alone",
        )


def _serialization(value: object) -> Oms:
    if not isinstance(value, dict) or not _REQUIRED <= value.keys() <= _REQUIRED | _OPTIONAL:
        raise StatementError(
            "serialization has other fields",
            where="serialization",
            expected=", ".join(sorted(_REQUIRED)),
            found=str(value),
        )
    method, hash_type, links = value["method"], value["hash_type"], value["allow_symlinks"]
    known = method in ["files", "shards"] and hash_type in [*HEX_DIGITS]
    if not known or not isinstance(links, bool):
        raise StatementError(
            "serialization not read here",
            where="serialization",
            expected="files or shards; " + ", ".join(HEX_DIGITS),
            found=f"{method}, {hash_type}, {links}",
        )
    paths = value.get("ignore_paths", [])
    if not isinstance(paths, list):
        raise StatementError("ignore_paths is not a list", where="serialization")
    for path in paths:
        check_name(path, "ignore_paths")
    return Oms(
        root="",
        resources={},
        files={},
        method=cast("Method", method),
        hash_type=cast("Algorithm", hash_type),
        shard_size=_shard_size(value),
        allow_symlinks=links,
        ignore_paths=frozenset(paths),
    )


def _shard_size(value: dict[str, Any]) -> int:
    if (value["method"] == "shards") != ("shard_size" in value):
        raise StatementError(
            "shard_size belongs to shards, and to nothing else", where="serialization"
        )
    size = value.get("shard_size", 0)
    # The reference tool writes 1000000000.0.
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if type(size) is not int or not (0 < size <= _MAX_SHARD or value["method"] == "files"):
        raise StatementError("not a shard size", where="serialization", found=str(size))
    return size


def _resources(value: object, said: Oms) -> dict[str, str]:
    if not isinstance(value, list) or not value:
        raise StatementError("nothing is signed", where="resources", expected="at least one file")
    digits = re.compile(f"[0-9a-f]{{{HEX_DIGITS[said.hash_type]}}}")
    found: dict[str, str] = {}
    for entry in value:
        # The specification lets a resource carry more fields, to be ignored.
        if not isinstance(entry, dict) or not {"name", "algorithm", "digest"} <= entry.keys():
            raise StatementError("resource lacks a field", where="resources", found=str(entry))
        name, digest, algorithm = entry["name"], entry["digest"], entry["algorithm"]
        if name != ONE_FILE and said.method == "files":
            check_name(name, "resources")
        if not isinstance(name, str) or not isinstance(digest, str):
            raise StatementError("resource is not text", where="resources", found=str(entry))
        if algorithm not in _spellings(said) or not digits.fullmatch(digest):
            raise StatementError(
                f"not a {said.hash_type} digest",
                where=f"resources: {name}",
                expected=f"{said.hash_type}, {HEX_DIGITS[said.hash_type]} hex digits",
                found=f"{algorithm} {digest}",
            )
        if name in found:
            raise StatementError("resource name stands twice", where="resources", found=name)
        found[name] = digest
    return found


def _spellings(said: Oms) -> list[str]:
    """Return the names of the algorithm in use: the specification's, and the reference tool's."""
    if said.method == "files":
        return [said.hash_type]
    return [said.hash_type, f"{said.hash_type}-sharded-{said.shard_size}"]


def root_of(digests: Iterable[str]) -> str:
    """Return the root: SHA-256 over raw digests in this order, whatever hash they are of."""
    return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests)).hexdigest()
