"""Why a policy believes a claim, or not: one entry a bundle of a release."""

from __future__ import annotations

import msgspec

from parentage.attest.bundle import MODEL_SIG
from parentage.attest.claims import Claim, Unopened, read_claims
from parentage.attest.identity import Identity
from parentage.attest.opening import open_bundle
from parentage.attest.policy import Role
from parentage.attest.roles import Believed
from parentage.attest.statements.shared import sha256
from parentage.manifest.errors import MalformedError, SignatureError, UnsignedError, printable
from parentage.manifest.files import FileSet

_MAX_SIG = 64 << 20


class Explained(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One bundle.

    Attributes:
        where: file and line.
        predicate_type: what kind of claim; empty where the signature did not verify.
        payload: SHA-256 of what was signed: how statements name each other.
        signer: who signed, as far as it was verified.
        roles: that the signer fills.
        why: why not: by role and member, or what stopped the verification.
    """

    where: str
    predicate_type: str = ""
    payload: str = ""
    signer: str = ""
    roles: list[Role] = []
    why: list[str] = []


def explain(files: FileSet, believed: Believed) -> list[Explained]:
    """Return who signed each bundle of a release, and in which role.

    Raises:
        UnsignedError: there is no bundle.
    """
    claims = read_claims(files, believed)
    found = [_opened(claim, believed) for claim in claims.opened]
    found += [_unopened(line) for line in claims.unopened]
    found.sort(key=lambda entry: int(entry.where.rpartition(":")[2]))
    if MODEL_SIG in files.files:
        found.insert(0, _signature(files, believed))
    if not found:
        raise UnsignedError("no claims here", where=str(files.root), expected=MODEL_SIG)
    return found


def _signature(files: FileSet, believed: Believed) -> Explained:
    data = files.files[MODEL_SIG].read_small(_MAX_SIG)
    try:
        opened = open_bundle(data, believed.everyone, MODEL_SIG)
    except (MalformedError, SignatureError) as error:
        return _unopened(Unopened(MODEL_SIG, b"", f"{error.what}: {error.found}"))
    return _opened(Claim(MODEL_SIG, opened, believed.roles_of(opened.signer)), believed)


def _opened(claim: Claim, believed: Believed) -> Explained:
    who = claim.opened.signer
    return Explained(
        where=claim.where,
        predicate_type=printable(claim.opened.statement.predicate_type),
        payload=sha256(claim.opened.payload),
        signer=printable(str(who), 400),
        roles=sorted(claim.roles),
        why=_why_not(who, believed, claim.roles),
    )


def _why_not(who: Identity, believed: Believed, roles: frozenset[Role]) -> list[str]:
    """Say for each member that might have been meant why it is not."""
    found = []
    for seat in believed.seats:
        if seat.role in roles:
            continue
        why = seat.why_not(who) or "publishes, so it is not counted here"
        found.append(printable(f"{seat.role}: {seat.member}: {why}", 600))
    return found


def _unopened(line: Unopened) -> Explained:
    return Explained(where=line.where, why=[printable(line.why, 400)])
