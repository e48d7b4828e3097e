"""The only way from bundle bytes to a payload: the signature is verified first."""

from __future__ import annotations

import msgspec

from parentage.attest import bundle
from parentage.attest.keys import PublicKey
from parentage.attest.statement import Statement, parse_statement
from parentage.attest.trust import TrustedKeys


class Opened(msgspec.Struct, frozen=True):
    """A verified statement.

    Attributes:
        payload: the signed bytes.
        statement: parsed from them.
        signer: the trusted key that signed.
    """

    payload: bytes
    statement: Statement
    signer: PublicKey


def open_bundle(data: bytes, trust: TrustedKeys, where: str) -> Opened:
    """Verify a bundle and hand over its statement.

    Raises:
        BundleError: the format is broken.
        SignatureError: another key, or the signature does not verify.
        StatementError: verified, and not a statement.
    """
    # (1) parse the bundle: closed format, one signature, our payload type
    parsed = bundle.parse(data, where)
    # (2) choose the key from the trust list; the hint only selects, it proves nothing
    key = trust.find(parsed.hint, where)
    # (3) verify over the pre-authentication encoding of the exact bytes
    key.verify(parsed.signature, parsed.signed_bytes)
    # (4) only now look at the payload
    return Opened(parsed.payload, parse_statement(parsed.payload, where), key)
