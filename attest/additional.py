"""An additional signature: ML-DSA-65 beside ECDSA, for the day on which ECDSA is broken.

Bundles have one signature, so this is a bundle of its own, over the bytes that `model.sig` signs.
It is one more claim (`claims.read_claims`): where nobody demands it, its absence is no fault.
"""

from __future__ import annotations

from typing import Final

import msgspec

from parentage.attest import bundle
from parentage.attest.bundle import MODEL_MLDSA
from parentage.attest.claims import Claims
from parentage.attest.identity import Identity
from parentage.attest.opening import Opened, open_bundle
from parentage.attest.signer import Signer
from parentage.attest.trust import Trust
from parentage.manifest.errors import SignatureError, SigningKeyError

ALGORITHM: Final = "ml-dsa-65"


class Beside(msgspec.Struct, frozen=True):
    """Who signs beside the signer of `model.sig`.

    Attributes:
        signer: with an ML-DSA-65 key.
        trust: opens its bundles again before anything is written.
    """

    signer: Signer
    trust: Trust

    def __post_init__(self) -> None:
        """Refuse another kind of key before anything is hashed."""
        if self.signer.algorithm != ALGORITHM:
            raise SigningKeyError(
                "an additional signature is by another kind of key",
                where="--also-key",
                expected=ALGORITHM,
                found=self.signer.algorithm,
                hint=f"parentage keygen --type {ALGORITHM}",
            )

    def sign(self, payload: bytes, where: str) -> bytes:
        """Return a bundle over a payload that somebody else signed, too."""
        data = bundle.build(payload, self.signer)
        open_bundle(data, self.trust, where)
        return data


def additional_signers(signature: Opened, claims: Claims) -> tuple[Identity, ...]:
    """Return who else signed exactly what `model.sig` signs, each once."""
    found = dict.fromkeys(
        claim.opened.signer
        for claim in claims.opened
        if claim.opened.payload == signature.payload and claim.opened.signer != signature.signer
    )
    return tuple(found)


def require_additional(signature: Opened, claims: Claims) -> tuple[Identity, ...]:
    """Return the additional signers where somebody demands that there is one.

    Raises:
        SignatureError: there is none, and why not.
    """
    found = additional_signers(signature, claims)
    if not found:
        why = [line.why for line in claims.unopened if line.where == MODEL_MLDSA]
        others = [claim.where for claim in claims.opened if claim.where == MODEL_MLDSA]
        raise SignatureError(
            "no additional signature",
            where=MODEL_MLDSA,
            expected="a bundle by another trusted key over the bytes that model.sig signs",
            found=", ".join(why) or ("a bundle over other bytes" if others else "none"),
            hint="the publisher can add one: parentage sign --also-key",
        )
    return found
