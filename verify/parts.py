"""Partial results: what one shard found out, signed by its verifier, and joined with the others.

`parentage verify --shard i/n` examines everything that a whole run does (signature, bytes, parents)
and recomputes its share of the tensors. What it found out goes into a statement of its own; `parentage
join` decides from all n of them as a whole run would. A part is a verifier's word: whoever is named as
a verifier is believed about every tensor of the share, so the publisher's key is never accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec

from parentage.attest.bundle import build
from parentage.attest.identity import Identity
from parentage.attest.opening import open_bundle
from parentage.attest.signer import Signer
from parentage.attest.statement import Subject, build_statement
from parentage.attest.trust import Trust
from parentage.manifest.digest import Profile
from parentage.manifest.errors import PartError, SignatureError
from parentage.manifest.lineage import NAMESPACE
from parentage.verify.recompute import Rules, Tried
from parentage.verify.verdict import Finding

PARTIAL: Final = f"{NAMESPACE}/partial/v0.1"
_Place = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


class StepPart(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """What a shard found out about a step.

    Attributes:
        rules: of the step.
        tensors: how many it has.
        identities: of the share's tensors of an earlier step's output, by engine and digest profile.
        tried: the share's tensors of the last step.
    """

    rules: Rules
    tensors: int
    identities: dict[str, dict[Profile, dict[str, str]]] = {}
    tried: dict[str, Tried] = {}


class Part(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """A partial result.

    Attributes:
        inputs: what every result depends on, by name (running.py).
        shard, of: which share, from 1, of how many.
        device: kind of device that it ran on.
        notes: on the parents that were given.
        steps: by id.
    """

    inputs: dict[str, str]
    shard: _Place
    of: _Place
    device: str
    notes: list[Finding] = []
    steps: dict[str, StepPart] = {}


def to_document(part: Part) -> dict[str, Any]:
    """Return a part as JSON: canonical JSON has no floats, so they are decimal strings."""
    document: dict[str, Any] = without_floats(msgspec.to_builtins(part))
    return document


def without_floats(value: Any) -> Any:  # noqa: ANN401
    """Return a document with its floats as decimal strings: canonical JSON has none."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {key: without_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_floats(item) for item in value]
    return value


def parse(document: object, where: str) -> Part:
    """Turn a parsed JSON object into a part.

    Raises:
        PartError: it is none, or says something that a part can't.
    """
    try:
        part = msgspec.convert(document, Part, strict=False)
    except msgspec.ValidationError as error:
        raise PartError(f"not a partial result: {error}", where=where) from error
    if part.shard > part.of:
        raise PartError("no such shard", where=where, found=f"{part.shard}/{part.of}")
    if to_document(part) != document:
        # What we would not write we do not read: unknown fields, other spellings of a number.
        raise PartError("partial result has unknown fields or spellings", where=where)
    return part


def sign(part: Part, subjects: Sequence[Subject], signer: Signer) -> bytes:
    """Return a signed part as one line of JSON; `subjects` are those of the release's lineage."""
    return build(build_statement(subjects, PARTIAL, to_document(part)), signer) + b"\n"


def open_part(
    data: bytes,
    where: str,
    verifiers: Trust,
    subjects: Sequence[Subject],
    publisher: Identity,
) -> Part:
    """Verify a signed part and read it.

    Args:
        data: the file.
        where: its name.
        verifiers: whose parts are believed.
        subjects: of the release's lineage; the part must be about the same.
        publisher: who signed the release.

    Raises:
        SignatureError: by another key, by the publisher's, or it does not verify.
        PartError: it is about another release, or broken.
        BundleError, StatementError: it is no signed statement.
    """
    opened = open_bundle(data.removesuffix(b"\n"), verifiers, where)
    if opened.signer == publisher:
        raise SignatureError(
            "the publisher can't verify its own release",
            where=where,
            expected="a key that did not sign the release",
            found=str(publisher),
        )
    if opened.statement.predicate_type != PARTIAL:
        raise PartError(
            "another kind of statement",
            where=where,
            expected=PARTIAL,
            found=opened.statement.predicate_type,
        )
    if opened.statement.subjects != tuple(subjects):
        raise PartError(
            "partial result of another release",
            where=where,
            expected=str([subject.sha256 for subject in subjects]),
            found=str([subject.sha256 for subject in opened.statement.subjects]),
        )
    return parse(opened.statement.predicate, where)
