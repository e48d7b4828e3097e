"""Whose weights are these: tensors compared with known ones by identity, whatever they are called.

Identities are digests, so this needs no torch and reads every file once. What a tensor's bytes are
equal to may be chance where they hold next to nothing (all zeros, all ones): those are counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import CHUNK
from parentage.manifest.errors import UsageError, printable
from parentage.manifest.hashing import Digests, Progress, hash_model
from parentage.manifest.model import Model
from parentage.verify.sources.cached import name_of
from parentage.verify.weights import open_weights

SCHEMA: Final = "https://parentage.dev/identify/v0.1"
_SHOWN: Final = 20


class Match(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A tensor of the suspect that known weights have, too.

    Attributes:
        tensor: its name in the suspect.
        known: its name there.
        how: "same": name, dtype, shape and bytes; "renamed": all but the name; "reshaped": dtype
            and bytes only.
        constant: whether all of its elements are equal.
        bytes: how many it has.
    """

    tensor: str
    known: str
    how: str
    constant: bool
    bytes: int


class Overlap(msgspec.Struct, kw_only=True, rename="camel"):
    """What the suspect has in common with some known weights.

    Attributes:
        known: as they were named.
        root: weights root of the known weights.
        identical: whether the two weights roots are one: every name, dtype, shape and byte.
        tensors, bytes: of the suspect, found there.
        telling_bytes: of those, the ones in tensors that are not constant.
        matches: tensor by tensor.
    """

    known: str
    root: str
    identical: bool
    tensors: int
    bytes: int
    telling_bytes: int
    matches: list[Match]


class Identification(msgspec.Struct, kw_only=True, rename="camel"):
    """Whose weights a suspect is made of, the largest overlap first.

    Attributes:
        schema: version of this structure.
        suspect: as it was named.
        root: its weights root.
        tensors, bytes: how much it has.
        overlaps: one for each of the known weights.
    """

    schema: str = SCHEMA
    suspect: str = ""
    root: str = ""
    tensors: int = 0
    bytes: int = 0
    overlaps: list[Overlap] = []

    @property
    def identified(self) -> bool:
        """Whether the suspect is, whole, tensors of one of the known weights."""
        return any(
            found.identical or bool(found.tensors == self.tensors and found.telling_bytes)
            for found in self.overlaps
        )


def identify(
    suspect: Path,
    against: Sequence[Path],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Identification:
    """Compare a suspect's weights, tensor by tensor, with known ones.

    Args:
        suspect: a folder or file in any format that we read.
        against: known weights, likewise.
        threads: of the digest pass.
        progress: told of the bytes done.

    Raises:
        UsageError: nothing to compare with, or a path does not exist.
        MalformedError: weights that break a rule of their format.
    """
    if not against:
        raise UsageError("nothing to compare with", hint="--against FOLDER")
    with ExitStack() as stack:
        model, digests = _open(suspect, stack, threads, progress)
        result = Identification(
            suspect=name_of(suspect),
            root=digests.roots[digest.B3],
            tensors=len(model.tensors),
            bytes=model.nbytes,
        )
        constant: dict[str, bool] = {}
        for path in against:
            known, theirs = _open(path, stack, threads, progress)
            matches = _matches(model, digests, known, theirs, constant)
            root = theirs.roots[digest.B3]
            result.overlaps.append(
                Overlap(
                    known=name_of(path),
                    root=root,
                    identical=root == result.root,
                    tensors=len(matches),
                    bytes=sum(m.bytes for m in matches),
                    telling_bytes=sum(m.bytes for m in matches if not m.constant),
                    matches=matches,
                )
            )
    result.overlaps.sort(key=lambda found: (-found.identical, -found.telling_bytes, -found.bytes))
    return result


def _open(
    path: Path, stack: ExitStack, threads: int | None, progress: Progress | None
) -> tuple[Model, Digests]:
    if not path.exists():
        raise UsageError("no such file or folder", where=str(path))
    model = stack.enter_context(open_weights(path))
    return model, hash_model(model, threads=threads, progress=progress)


def _matches(
    model: Model,
    digests: Digests,
    known: Model,
    theirs: Digests,
    constant: dict[str, bool],
) -> list[Match]:
    by_identity: dict[str, str] = {}
    by_bytes: dict[tuple[str, int, bytes], str] = {}
    for name, found in theirs.tensors.items():
        by_identity.setdefault(found.identity[digest.B3], name)
        by_bytes.setdefault(_content(known, name, theirs), name)
    matches: list[Match] = []
    for name, found in digests.tensors.items():
        identity = found.identity[digest.B3]
        same = name in theirs.tensors and theirs.tensors[name].identity[digest.B3] == identity
        renamed = by_identity.get(identity)
        reshaped = by_bytes.get(_content(model, name, digests))
        other = name if same else renamed or reshaped
        if other is None:
            continue
        if name not in constant:
            constant[name] = _constant(model, name)
        how = "same" if same else "renamed" if renamed else "reshaped"
        nbytes = model.tensors[name].spec.nbytes
        matches.append(
            Match(tensor=name, known=other, how=how, constant=constant[name], bytes=nbytes)
        )
    return matches


def _content(model: Model, name: str, digests: Digests) -> tuple[str, int, bytes]:
    """Return what stays when a tensor gets another shape: leaves have no place in a tensor."""
    spec = model.tensors[name].spec
    return spec.dtype, spec.nbytes, digests.tensors[name].leaves[digest.B3]


def _constant(model: Model, name: str) -> bool:
    """Say whether all elements of a tensor have the same bytes."""
    tensor = model.tensors[name]
    unit, nbytes, file = tensor.spec.unit, tensor.spec.nbytes, model.file_of(tensor)
    if nbytes == 0:
        return True
    piece = file.read_at(tensor.start, unit) * (CHUNK // unit)
    for at in range(0, nbytes, len(piece)):
        size = min(len(piece), nbytes - at)
        if file.read_at(tensor.start + at, size) != piece[:size]:
            return False
    return True


def to_text(found: Identification) -> str:
    """Return an identification for people."""
    partly = "PARTLY" if any(overlap.tensors for overlap in found.overlaps) else "NOT"
    word = "IDENTIFIED" if found.identified else f"{partly} IDENTIFIED"
    lines = [f"{word}  {printable(found.suspect)}"]
    lines += ["", f"  {found.tensors} tensors, {found.bytes:,} bytes, weights ptd1-b3 {found.root}"]
    for overlap in found.overlaps:
        lines += ["", *_overlap(found, overlap)]
    return "\n".join(lines)


def _overlap(found: Identification, overlap: Overlap) -> list[str]:
    name = printable(overlap.known)
    if overlap.identical:
        return [f"  = the weights of {name}, byte for byte, under the same names"]
    if not overlap.tensors:
        return [f"  - nothing in common with {name}"]
    counts: Mapping[str, int] = {
        how: sum(m.how == how for m in overlap.matches) for how in ("same", "renamed", "reshaped")
    }
    ways = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
    flat = sum(m.constant for m in overlap.matches)
    lines = [
        f"  ~ {overlap.tensors} of {found.tensors} tensors and {overlap.bytes:,} of {found.bytes:,} bytes "
        f"are those of {name}: {ways}"
        + (f" ({flat} of them constant, which proves little)" if flat else "")
    ]
    for match in overlap.matches[:_SHOWN]:
        also = "" if match.how == "same" else f" = {printable(match.known)} ({match.how})"
        lines.append(f"      {printable(match.tensor)}{also}, {match.bytes:,} bytes")
    if len(overlap.matches) > _SHOWN:
        lines.append(f"      and {len(overlap.matches) - _SHOWN} more (--json lists all)")
    return lines
