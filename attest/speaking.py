"""Add statements to a release: what number a status gets, and how a line is appended."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from parentage.attest import bundle
from parentage.attest.bundle import CLAIMS
from parentage.attest.claims import MAX_CLAIMS, Claim
from parentage.attest.heard import is_about
from parentage.attest.opening import open_bundle
from parentage.attest.policy import Role
from parentage.attest.signer import AnySigner
from parentage.attest.statements import status
from parentage.attest.statements.shared import About, Digest, sha256
from parentage.attest.trust import Trust
from parentage.manifest import atomic
from parentage.manifest.errors import FileSetError, StatementError, UnsignedError, UsageError

_SPEAKERS: Final = frozenset({Role.PUBLISHER, Role.SUCCESSOR, Role.RECOVERY})


def following(release: About, claims: Iterable[Claim]) -> tuple[int, Digest | None]:
    """Return the sequence of the next status of a release, and the status that it follows.

    Raises:
        UsageError: there is no higher sequence.
    """
    numbers: dict[str, int] = {}
    for claim in claims:
        if claim.opened.statement.predicate_type == status.TYPE and claim.roles & _SPEAKERS:
            try:
                about, found = status.parse(claim.opened.statement, claim.where)
            except StatementError:
                continue
            if is_about(found, about, release):
                numbers[sha256(claim.opened.payload)] = found.sequence
    if not numbers:
        return 1, None
    last = max(numbers, key=lambda payload: (numbers[payload], payload))
    if numbers[last] == 2**53 - 1:
        raise UsageError(
            "no sequence is left after the last status",
            where=last,
            hint="say that the key was stolen, by recovery: parentage withdraw --reason key-compromise",
        )
    return numbers[last] + 1, Digest(sha256=last)


def announcements(release: Path, claims: Iterable[Claim]) -> list[bytes]:
    """Return the lines of a release that announce replacements, to be carried along to the next."""
    wanted = set()
    for claim in claims:
        if claim.opened.statement.predicate_type == status.TYPE and claim.roles & _SPEAKERS:
            try:
                _, found = status.parse(claim.opened.statement, claim.where)
            except StatementError:
                continue
            if found.state == "superseded":
                wanted.add(claim.sha256)
    with (release / CLAIMS).open("rb") as stream:
        lines = stream.read(MAX_CLAIMS).split(b"\n")
    return [line + b"\n" for line in lines if hashlib.sha256(line).hexdigest() in wanted]


def sign(payload: bytes, signer: AnySigner, trust: Trust) -> bytes:
    """Sign a statement, and open it again before anybody sees it. One line, with its end.

    Raises:
        SignatureError: the signer's signature does not verify.
    """
    line = bundle.build(payload, signer)
    open_bundle(line, trust, "what was signed")
    return line.rstrip(b"\n") + b"\n"


def append(release: Path, lines: Sequence[bytes]) -> None:
    """Add lines to a release's claims, all or none; what is there stays, byte for byte.

    Raises:
        UnsignedError: the release has no claims.
        FileSetError: they are a link, into a cache for instance, or would grow too large.
        WriteFailedError: nothing was changed.
    """
    path = release / CLAIMS
    if path.is_symlink():
        raise FileSetError(
            "claims are a link, and what it leads to is not this release's",
            where=str(path),
            hint="-o FILE writes the statement elsewhere",
        )
    if not path.is_file():
        raise UnsignedError("no claims to add to", where=str(path), hint="-o FILE")
    with atomic.alone(path.parent):
        with path.open("rb") as stream:
            data = stream.read(MAX_CLAIMS + 1)
        if data and not data.endswith(b"\n"):
            data += b"\n"
        data += b"".join(lines)
        if len(data) > MAX_CLAIMS:
            raise FileSetError(
                "claims would be too large", where=str(path), expected=f"<= {MAX_CLAIMS} bytes"
            )
        atomic.write_bytes(path, data)
