"""The only way from bundle bytes to a payload: the signature is verified first."""

from __future__ import annotations

import msgspec

from parentage.attest import bundle
from parentage.attest.identity import Identity
from parentage.attest.statement import Statement, parse_statement
from parentage.attest.trust import Trust


class Opened(msgspec.Struct, frozen=True):
    """A verified statement.

    Attributes:
        payload: the signed bytes.
        statement: parsed from them.
        signer: who signed, and is trusted.
    """

    payload: bytes
    statement: Statement
    signer: Identity


def open_bundle(data: bytes, trust: Trust, where: str) -> Opened:
    """Verify a bundle and hand over its statement.

    Raises:
        BundleError: the format is broken.
        SignatureError: another key, or the signature does not verify.
        StatementError: verified, and not a statement.
    """
    # (1) parse the bundle: closed format, one signature, our payload type
    parsed = bundle.parse(data, where)
    # (2) find out who signed the pre-authentication encoding of the exact bytes, and that we trust them
    signer = trust.check(parsed, where)
    # (3) only now look at the payload
    return Opened(parsed.payload, parse_statement(parsed.payload, where), signer)
