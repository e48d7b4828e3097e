"""Do these bytes match what was signed: every file, every tensor, every header."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from parentage.attest.bundle import CLAIMS, MODEL_SIG
from parentage.attest.coverage import Cover, Share, cover_of, dangerous_ignores, is_ignored
from parentage.attest.oms import Oms
from parentage.manifest import table
from parentage.manifest.digest import Profile, weights_root
from parentage.manifest.hashing import Digests, Progress, hash_model
from parentage.manifest.model import Model
from parentage.manifest.table import Table, TensorLine
from parentage.verify.verdict import Finding, finding

_SHOWN = 20
_CARD = "README.md"


class Coverage(msgspec.Struct, kw_only=True):
    """What was looked at, of how much.

    Attributes:
        files: on disk, without the bundles.
        files_signed, files_ignored, files_unsigned: which the signature covers, an ignore path leaves
            out, or neither.
        bytes, bytes_signed, bytes_ignored, bytes_unsigned: their sizes.
        tensors, tensor_bytes: what the weights hold.
        tensors_checked: whose identity was compared.
        file_hashes: whether weights files were also compared by SHA-256.
    """

    files: int = 0
    files_signed: int = 0
    files_ignored: int = 0
    files_unsigned: int = 0
    bytes: int = 0
    bytes_signed: int = 0
    bytes_ignored: int = 0
    bytes_unsigned: int = 0
    tensors: int = 0
    tensor_bytes: int = 0
    tensors_checked: int = 0
    file_hashes: bool = False

    @classmethod
    def of(cls, cover: Cover) -> Coverage:
        """Return the coverage of files, before any tensor was looked at."""
        shares = (cover.covered, cover.ignored, cover.unsigned)
        return cls(
            files=sum(share.files for share in shares),
            files_signed=cover.covered.files,
            files_ignored=cover.ignored.files,
            files_unsigned=cover.unsigned.files,
            bytes=sum(share.bytes for share in shares),
            bytes_signed=cover.covered.bytes,
            bytes_ignored=cover.ignored.bytes,
            bytes_unsigned=cover.unsigned.bytes,
        )

    def describe(self) -> str:
        """Return the coverage line."""
        if not self.files:
            return "nothing: no file was compared"
        covered = Cover(
            Share(self.files_signed, self.bytes_signed),
            Share(self.files_ignored, self.bytes_ignored),
            Share(self.files_unsigned, self.bytes_unsigned),
        )
        tensors = f"; {self.tensors_checked} of {self.tensors} tensors" if self.tensors else ""
        return covered.describe() + tensors


class Integrity(msgspec.Struct):
    """The result of the integrity check."""

    coverage: Coverage
    findings: list[Finding] = msgspec.field(default_factory=list)
    digests: Digests | None = None


def check_files(model: Model, signed: Oms) -> Integrity:
    """Compare names and sizes of what is on disk with what was signed."""
    result = Integrity(Coverage())
    on_disk = model.files.files
    ignored = {name for name in on_disk if is_ignored(name, signed.ignore_paths)}
    present = set(on_disk) - ignored
    # Bundles are signed themselves; lines of claims come and go.
    sizes = {n: file.size for n, file in on_disk.items() if n not in {MODEL_SIG, CLAIMS}}
    result.coverage = Coverage.of(cover_of(sizes, present & set(signed.resources), ignored))
    result.findings += check_names(on_disk, signed)
    return result


def check_names(names: Collection[str], signed: Oms) -> list[Finding]:
    """Compare the names of files, wherever they are, with what was signed."""
    present = {name for name in names if not is_ignored(name, signed.ignore_paths)}
    found = [
        finding(
            "ignored-content",
            "a file that loaders read is not signed: the signer ignores it",
            where=name,
        )
        for name in dangerous_ignores(signed.ignore_paths, sorted(names))
    ]
    found += [
        finding("file-missing", "signed file is missing", where=name)
        for name in sorted(set(signed.resources) - present)
    ]
    found += [
        finding(
            "file-unsigned",
            "file is not covered by the signature",
            where=name,
            hint="remove it",
        )
        for name in sorted(present - set(signed.resources))
    ]
    return found


def check_bytes(
    result: Integrity,
    model: Model,
    signed: Oms,
    claimed: Table,
    *,
    profiles: Sequence[Profile],
    whole_files: bool,
    threads: int | None,
    progress: Progress | None,
    known: Digests | None = None,
) -> None:
    """Compare every byte: weights by tensor identity and header digest, other files by SHA-256.

    No gap is allowed in a safetensors file, so identities and header cover all of its bytes;
    `whole_files` compares their SHA-256 as well. What is `known` is not hashed again.
    """
    signed_here = set(signed.resources) & set(model.files.files)
    plain = signed_here - set(model.headers)
    hashed = plain | (signed_here & set(model.headers) if whole_files else set())
    known = known or Digests({}, {}, {})
    left = hashed - set(known.files)
    rest = hash_model(
        _without(model, known), profiles=profiles, files=left, threads=threads, progress=progress
    )
    digests = _together(known, rest, profiles)
    result.digests = digests
    cover = result.coverage
    cover.tensors, cover.tensor_bytes = len(model.tensors), model.nbytes
    cover.file_hashes = whole_files
    compare_files(result, signed, digests.files)
    compare_weights_files(result, model, signed, claimed)
    _check_tensors(result, model, claimed, digests)


def _without(model: Model, known: Digests) -> Model:
    """Return the weights files whose tensors are still to be hashed: whole files, as they are read."""
    left = {t.file for name, t in model.tensors.items() if name not in known.tensors}
    return Model(
        model.files,
        {name: header for name, header in model.headers.items() if name in left},
        {name: tensor for name, tensor in model.tensors.items() if tensor.file in left},
    )


def _together(known: Digests, rest: Digests, profiles: Sequence[Profile]) -> Digests:
    if not known.tensors and not known.files:
        return rest
    tensors = {**known.tensors, **rest.tensors}
    named = {name: found.identity for name, found in tensors.items()}
    roots = {p: weights_root(p, ((name, i[p]) for name, i in named.items())) for p in profiles}
    return Digests(tensors, {**known.files, **rest.files}, roots)


def check_beside(
    result: Integrity,
    model: Model,
    signed: Oms,
    claimed: Table,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Compare what is no tensor: other files by SHA-256, weights files by size and header digest."""
    plain = (set(signed.resources) & set(model.files.files)) - set(model.headers)
    none = Model(model.files, {}, {})
    digests = hash_model(none, profiles=(), files=plain, threads=threads, progress=progress)
    result.coverage.tensors, result.coverage.tensor_bytes = len(model.tensors), model.nbytes
    compare_files(result, signed, digests.files)
    compare_weights_files(result, model, signed, claimed)
    compare_names(result, model, claimed)


def tensor_finding(line: TensorLine, found: Mapping[Profile, str]) -> Finding | None:
    """Compare the identities of one tensor with the signed ones; None: it is the signed tensor."""
    for profile, identity in found.items():
        if identity != line.identity.get(profile):
            return finding(
                "tensor-digest",
                "tensor is not the signed one",
                where=f"{line.file}: {line.name}",
                expected=f"{profile} {line.identity.get(profile)}",
                found=f"{profile} {identity}",
            )
    return None


def file_finding(name: str, signed: str, found: str) -> Finding:
    """Return the finding for a file whose SHA-256 is another."""
    return finding(
        "file-digest",
        "file is not the signed one",
        where=name,
        expected=f"sha256 {signed}",
        found=f"sha256 {found}",
        hint="parentage card check says which part of the card" if name == _CARD else "",
    )


def compare_files(result: Integrity, signed: Oms, digests: Mapping[str, str]) -> None:
    """Compare files with what was signed, by SHA-256."""
    for name, found in sorted(digests.items()):
        if name in signed.resources and found != signed.resources[name]:
            result.findings.append(file_finding(name, signed.resources[name], found))


def compare_weights_files(result: Integrity, model: Model, signed: Oms, claimed: Table) -> None:
    """Compare weights files with the signed table, by size and header digest, and it with the signature."""
    for name in sorted(set(claimed.files) | set(model.headers)):
        if name not in claimed.files or name not in model.headers:
            result.findings.append(
                finding(
                    "weights-files", "weights file not in both folder and tensor table", where=name
                )
            )
            continue
        line = claimed.files[name]
        if line.sha256 != signed.resources.get(name):
            result.findings.append(
                finding(
                    "table-contradicts-signature",
                    "tensor table and model.sig name different contents for one file",
                    where=name,
                    expected=str(signed.resources.get(name)),
                    found=line.sha256,
                )
            )
        if line.header != model.headers[name].sha256 or line.size != model.files.files[name].size:
            result.findings.append(
                finding(
                    "header-digest",
                    "safetensors header or size is not the signed one",
                    where=name,
                    expected=f"{line.header} ({line.size} bytes)",
                    found=f"{model.headers[name].sha256} ({model.files.files[name].size} bytes)",
                )
            )


def compare_names(result: Integrity, model: Model, claimed: Table) -> None:
    """Compare which tensors there are with those of the signed table."""
    for name in sorted(set(claimed.tensors) - set(model.tensors)):
        result.findings.append(finding("tensor-missing", "signed tensor is missing", where=name))
    for name in sorted(set(model.tensors) - set(claimed.tensors)):
        result.findings.append(finding("tensor-unsigned", "tensor is not in the table", where=name))


def _check_tensors(result: Integrity, model: Model, claimed: Table, digests: Digests) -> None:
    compare_names(result, model, claimed)
    wrong: list[Finding] = []
    for name in sorted(set(model.tensors) & set(claimed.tensors)):
        other = tensor_finding(claimed.tensors[name], digests.tensors[name].identity)
        result.coverage.tensors_checked += 1
        if other is not None:
            wrong.append(other)
    result.findings += wrong[:_SHOWN]
    if len(wrong) > _SHOWN:
        result.findings.append(
            finding("tensor-digest", f"and {len(wrong) - _SHOWN} more tensors", where=table.TENSORS)
        )
