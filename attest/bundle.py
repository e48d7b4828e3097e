"""Sigstore bundles v0.3 with one DSSE envelope and exactly one signature.

Closed: an unknown field is an error. How the signature is checked is material.py's.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

import msgspec

from parentage.attest import material
from parentage.attest.envelope import PAYLOAD_TYPE, legacy_pae, pae, strict_b64decode
from parentage.attest.material import KeyHint, Material, fields
from parentage.manifest import canonical
from parentage.manifest.errors import BundleError, JsonError, SignatureError

if TYPE_CHECKING:  # reading a bundle needs no keys
    from parentage.attest.signer import AnySigner

#: Where bundles lie in a release: one of them, and one a line.
MODEL_SIG: Final = "model.sig"
CLAIMS: Final = ".parentage/claims.jsonl"
#: A second signature over what `model.sig` signs: ML-DSA-65 (additional.py).
MODEL_MLDSA: Final = ".parentage/model.mldsa.sigstore.json"
MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BUNDLE: Final = 64 << 20


class Bundle(msgspec.Struct, frozen=True):
    """A parsed bundle. Its payload is not to be believed: `opening.open_bundle` verifies it.

    Attributes:
        payload: exact bytes that were signed.
        payload_type: always in-toto here.
        signature: as its algorithm writes it; DER for ECDSA.
        material: how it is checked, as the bundle says.
        data: the bundle itself.
        legacy: signed as model_signing 0.2 did; set by whoever was asked to read such.
    """

    payload: bytes
    payload_type: str
    signature: bytes
    material: Material
    data: bytes
    legacy: bool = False

    @property
    def hint(self) -> str:
        """Which key, as the bundle says; empty where it is no key's."""
        return self.material.kind.hint if isinstance(self.material.kind, KeyHint) else ""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return (legacy_pae if self.legacy else pae)(self.payload_type, self.payload)

    def require_ecdsa(self, where: str) -> None:
        """Refuse a model signature that other tools could not verify: OMS takes ECDSA only.

        The shape is looked at, after the signature was verified: those of other algorithms are not
        two numbers in DER.

        Raises:
            SignatureError: it is of another algorithm.
        """
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        try:
            decode_dss_signature(self.signature)
        except ValueError as error:
            raise SignatureError(
                "OpenSSF Model Signing takes ECDSA keys only",
                where=where,
                expected="an ECDSA signature, DER",
                found=f"{len(self.signature)} bytes of something else",
            ) from error


def parse(data: bytes, where: str, *, legacy: bool = False) -> Bundle:
    """Parse a bundle; `legacy`: also the key as raw bytes, as model_signing up to 1.0.1 wrote it.

    Raises:
        BundleError: naming the field that breaks the format.
    """
    try:
        document = canonical.loads(data, where=where, max_bytes=MAX_BUNDLE)
    except JsonError as error:
        raise BundleError(f"bundle: {error.what}", where=where, found=error.found) from error
    top = fields(document, where, ("mediaType", "verificationMaterial", "dsseEnvelope"))
    if top["mediaType"] != MEDIA_TYPE:
        raise BundleError(
            "bundle of another type", where=where, expected=MEDIA_TYPE, found=str(top["mediaType"])
        )
    envelope = fields(
        top["dsseEnvelope"], f"{where}: dsseEnvelope", ("payload", "payloadType", "signatures")
    )
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise BundleError(
            "payload of another type",
            where=where,
            expected=PAYLOAD_TYPE,
            found=str(envelope["payloadType"]),
        )
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        count = len(signatures) if isinstance(signatures, list) else "no list"
        raise BundleError(
            "bundle must have exactly one signature", where=where, expected="1", found=str(count)
        )
    signature = fields(signatures[0], f"{where}: signature", ("sig",), optional=("keyid",))
    if not isinstance(signature.get("keyid", ""), str | None):
        raise BundleError("keyid is not text", where=where)
    return Bundle(
        payload=strict_b64decode(envelope["payload"], f"{where}: payload"),
        payload_type=PAYLOAD_TYPE,
        signature=strict_b64decode(signature["sig"], f"{where}: sig"),
        material=material.parse(
            top["verificationMaterial"], f"{where}: verificationMaterial", legacy=legacy
        ),
        data=data,
    )


def build(payload: bytes, signer: AnySigner) -> bytes:
    """Sign a payload and return the bundle as one line of JSON."""
    from parentage.attest.signer import BundleSigner

    if isinstance(signer, BundleSigner):
        return signer.bundle(payload)
    signature = signer.sign(payload)
    document = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": signature.material,
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature.value).decode(), "keyid": ""}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()
