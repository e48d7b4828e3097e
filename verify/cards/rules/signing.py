"""Rules about what was signed: C08, C09."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

from parentage.manifest import canonical, table
from parentage.manifest.card import README, Card, digests_of
from parentage.manifest.errors import MalformedError
from parentage.manifest.files import FileSet, open_files
from parentage.manifest.hashing import hash_model
from parentage.manifest.header import MAX_HEADER
from parentage.manifest.model import model_of
from parentage.manifest.table import TENSORS, FileLine
from parentage.verify.cards import lfs
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.showing import Level

_SHOWN: Final = 8


def card_changed(evidence: Evidence) -> Iterator[Hit]:
    """C08: a card that is not the signed one; which part changed, where that can be told."""
    signed = evidence.authority.resources
    if not signed:
        return
    if README not in signed:
        if evidence.data is not None:
            yield Hit(message="the card was added after signing: it is not signed", line=1)
        return
    if evidence.data is None:
        yield Hit(message="the card was signed, and is gone", found="no README.md")
        return
    found = hashlib.sha256(evidence.data).hexdigest()
    if found == signed[README]:
        return
    hit = Hit(
        message="the card was changed after signing",
        expected=f"sha256 {signed[README]}",
        found=f"sha256 {found}",
        line=1,
        next=f"put it back, or sign again: parentage declare {evidence.name}, parentage sign "
        f"{evidence.name}; what stood there: --signed-card FILE (git show REV:README.md)",
    )
    yield _told(evidence, hit)


def _told(evidence: Evidence, hit: Hit) -> Hit:
    """Say more of a change, where digests of the signed card's parts or the card itself are at hand."""
    card = evidence.card
    then = _parts(evidence)
    if card is None or then is None or evidence.data is None:
        return hit
    body, matter = then
    now = digests_of(card, evidence.data)
    keys = sorted(
        key for key in matter.keys() | now.matter.keys() if matter.get(key) != now.matter.get(key)
    )
    replace = {field: getattr(hit, field) for field in Hit.__struct_fields__}
    if not keys:
        same = body == now.body
        replace["message"] = (
            "the card's spelling was changed after signing, nothing that it says"
            if same
            else "the card's text was changed after signing; its metadata is as signed"
        )
        return Hit(**{**replace, "line": card.line_at(card.body), "at_most": Level.NOTE})
    replace["message"] = "the card's metadata was changed after signing"
    replace["where"] = ", ".join(keys[:_SHOWN])
    replace["line"] = next((line for key in keys if (line := card.line(key))), 1)
    old = evidence.signed_card
    if old is not None:
        replace["expected"] = _values(old, keys)
        replace["found"] = _values(card, keys)
    return Hit(**replace)


def _parts(evidence: Evidence) -> tuple[str, Mapping[str, str]] | None:
    if evidence.signed_card is not None:
        digests = digests_of(evidence.signed_card, evidence.signed_card.text.encode())
        return digests.body, digests.matter
    if evidence.record is not None:
        return evidence.record.body, evidence.record.matter
    return None


def _values(card: Card, keys: list[str]) -> str:
    shown = [
        f"{key}: {canonical.dumps(card.matter[key]).decode()}"
        if key in card.matter
        else f"{key}: none"
        for key in keys[:_SHOWN]
    ]
    return "; ".join(shown)


def weights_changed(evidence: Evidence) -> Iterator[Hit]:
    """C09: weights files of another size or header than the manifest's; their bytes are not read."""
    lines = {line.file: line for line in evidence.authority.files}
    if not lines:
        evidence.skip("weights: there is no tensor table")
        return
    if evidence.weights is None:
        evidence.skip("the weights, which were not fetched: parentage verify --level remote")
        return
    present = evidence.folder.sizes(lines)
    for name, line in lines.items():
        yield from _of_file(evidence, line, present.get(name))
    if evidence.weights:
        yield from _bytes(evidence)
        return
    evidence.skip(
        "bytes of the weights: only sizes and headers were compared (--weights reads them)"
    )


def _of_file(evidence: Evidence, line: FileLine, size: int | None) -> Iterator[Hit]:
    """Compare one weights file, or the pointer in its place, with its line of the tensor table."""
    name = line.file
    if size is None:
        yield _weights("a weights file of the manifest is missing", name, line.sha256, "absent")
    elif (pointer := lfs.in_place(evidence.folder, name, size)) is not None:
        evidence.skip(f"{name}: a Git LFS pointer lies in its place (git lfs pull)")
        if pointer.sha256 != line.sha256:
            message = "a weights file's Git LFS pointer is of another file"
            yield _weights(message, name, f"sha256 {line.sha256}", f"sha256 {pointer.sha256}")
    elif size != line.size:
        message = "a weights file is not of the size that the manifest says"
        yield _weights(message, name, f"{line.size:,} bytes", f"{size:,} bytes")
    elif name.endswith(".safetensors"):
        with evidence.folder.open(name) as files:
            header = _header(files, name)
        if header != line.header:
            yield _weights(
                "a weights file's header is not the manifest's", name, line.header, header
            )


def _bytes(evidence: Evidence) -> Iterator[Hit]:
    """Compare every tensor's identity with the tensor table's."""
    with open_files(evidence.folder.root) as files:
        try:
            model = model_of(files)
            claimed = table.parse(files.files[TENSORS].read_small(table.MAX_TABLE))
        except MalformedError as error:
            yield _weights(f"weights can't be read: {error.what}", error.where, "", error.found)
            return
        profiles = tuple(claimed.roots)
        tensors = hash_model(model, profiles=profiles, files=()).tensors
    here = {name: dict(found.identity) for name, found in tensors.items()}
    there = {name: line.identity for name, line in claimed.tensors.items()}
    differing = sorted(n for n in here.keys() | there.keys() if here.get(n) != there.get(n))
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        yield _weights(
            f"{len(differing):,} of {len(there):,} tensors are not the manifest's",
            ", ".join(differing[:_SHOWN]) + more,
            str(there.get(differing[0], "absent")),
            str(here.get(differing[0], "absent")),
        )


def _weights(message: str, name: str, expected: str, found: str) -> Hit:
    return Hit(
        message=message,
        where=name,
        expected=expected,
        found=found,
        file="",
        next="put the declared weights back, or declare and sign again",
    )


def _header(files: FileSet, name: str) -> str:
    """Return the SHA-256 of a safetensors header, or what stands there instead."""
    file = files.files[name]
    length = int.from_bytes(file.read_at(0, min(8, file.size)), "little")
    if length > min(MAX_HEADER, file.size - 8):
        return f"a header of {length:,} bytes"
    return hashlib.sha256(file.read_at(0, 8 + length)).hexdigest()
