"""From a model signature's bytes to what it says: signed by somebody trusted, and read by the rules.

The specification lets subject and resources carry more than ours do, so its statements are read here
and not by `parse_statement`. Releases before 1.0 of the reference tool are read only when asked for.
"""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.attest import bundle, oms
from parentage.attest.identity import Identity
from parentage.attest.oms import Oms
from parentage.attest.statement import read_fields
from parentage.attest.trust import Trust
from parentage.manifest.errors import SignatureError, StatementError

#: Of model_signing 0.2: digests in the subjects, and nothing in the predicate.
LEGACY_PREDICATE: Final = "https://model_signing/Digests/v0.1"
#: What model_signing 1.0.0 meant where it says nothing about serialization.
_UNSAID: Final = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}


class OpenedOms(msgspec.Struct, frozen=True):
    """A verified model signature.

    Attributes:
        payload: the signed bytes.
        oms: what they say.
        signer: who signed, and is trusted.
        legacy: whether it has a form that is read only when asked for.
    """

    payload: bytes
    oms: Oms
    signer: Identity
    legacy: bool


def open_oms(data: bytes, trust: Trust, where: str, *, legacy: bool = False) -> OpenedOms:
    """Verify a model signature and read it.

    Args:
        data: the bundle.
        trust: who may have signed.
        where: how errors name it.
        legacy: also read what releases 0.2.0 to 1.0.1 of model_signing wrote.

    Raises:
        BundleError, SignatureError, StatementError.
    """
    parsed = bundle.parse(data, where, legacy=legacy)
    old = False
    try:
        signer = trust.check(parsed, where)
    except SignatureError:
        if not legacy:
            raise
        signer = trust.check(msgspec.structs.replace(parsed, legacy=True), where)
        old = True
    parsed.require_ecdsa(where)
    signed, unusual = read(parsed.payload, where, legacy=legacy)
    return OpenedOms(parsed.payload, signed, signer, old or unusual)


def read(payload: bytes, where: str, *, legacy: bool = False) -> tuple[Oms, bool]:
    """Parse a model signature's payload; say, too, whether it has one of the forms before 1.1.

    Raises:
        StatementError: it is no in-toto statement, no model signature, or breaks a rule.
    """
    # The reference tool writes shard sizes as 1000000000.0.
    document = read_fields(payload, where, floats=True)
    kind, predicate = document["predicateType"], document["predicate"]
    if kind == LEGACY_PREDICATE and legacy:
        return _digests(document["subject"], where), True
    if kind != oms.PREDICATE:
        raise StatementError(
            "not a model signature",
            where=where,
            expected=oms.PREDICATE,
            found=str(kind),
            hint="--legacy-oms" if kind == LEGACY_PREDICATE else "",
        )
    if not isinstance(predicate, dict):
        raise StatementError("predicate is not an object", where=where)
    subjects = _subjects(document["subject"], where)
    if len(subjects) != 1:
        raise StatementError(
            "a model signature has one subject", where=where, found=str(len(subjects))
        )
    unsaid = legacy and predicate.keys() == {"resources"}
    if unsaid:
        predicate = {**predicate, "serialization": _UNSAID}
    return oms.read_predicate(predicate, subjects[0][1]), unsaid


def _subjects(value: object, where: str) -> list[tuple[str, str]]:
    """Return name and SHA-256 of each subject; other fields and digests are to be ignored."""
    if not isinstance(value, list) or not value:
        raise StatementError("statement without a subject", where=where)
    found: list[tuple[str, str]] = []
    for entry in value:
        name = entry.get("name") if isinstance(entry, dict) else None
        digests = entry.get("digest") if isinstance(entry, dict) else None
        digest = digests.get("sha256") if isinstance(digests, dict) else None
        if not isinstance(name, str) or not name or not isinstance(digest, str):
            raise StatementError(
                "subject without a name or a SHA-256", where=where, found=str(entry)
            )
        found.append((name, digest))
    return found


def _digests(subjects: object, where: str) -> Oms:
    """Read the form of 0.2, in which each file is a subject and nothing says what was left out."""
    resources = [
        {"name": name, "algorithm": "sha256", "digest": digest}
        for name, digest in _subjects(subjects, where)
    ]
    return oms.read_predicate({"resources": resources, "serialization": _UNSAID}, None)
