"""The only way from bundle bytes to a payload: the signature is verified first."""

from __future__ import annotations

from datetime import datetime

import msgspec

from parentage.attest import bundle
from parentage.attest.identity import Identity
from parentage.attest.statement import Statement, parse_statement
from parentage.attest.trust import Trust, time_of


class Opened(msgspec.Struct, frozen=True):
    """A verified statement.

    Attributes:
        payload: the signed bytes.
        statement: parsed from them.
        signer: who signed, and is trusted.
        time: a moment at which the signature existed, if somebody trusted proves one.
    """

    payload: bytes
    statement: Statement
    signer: Identity
    time: datetime | None = None


def open_bundle(data: bytes, trust: Trust, where: str, *, ecdsa: bool = False) -> Opened:
    """Verify a bundle and hand over its statement; with `ecdsa`, only one by such a signature.

    Raises:
        BundleError: the format is broken.
        SignatureError: by nobody trusted, or signature or timestamp do not verify.
        StatementError: verified, and not a statement.
    """
    # (1) parse the bundle: closed format, one signature, our payload type
    parsed = bundle.parse(data, where)
    # (2) find out who signed the pre-authentication encoding of the exact bytes, and that we trust them
    signer = trust.check(parsed, where)
    if ecdsa:
        parsed.require_ecdsa(where)
    time = time_of(trust, parsed, where)
    # (3) only now look at the payload
    return Opened(parsed.payload, parse_statement(parsed.payload, where), signer, time)
