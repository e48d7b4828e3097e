"""DSSE: the bytes that are really signed, and strict base64."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from parentage.manifest.errors import BundleError

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE v1's pre-authentication encoding; lengths count bytes, not characters."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def legacy_pae(payload_type: str, payload: bytes) -> bytes:
    """Return what model_signing 0.2 signed instead: a capital V, and Python's spelling of the bytes."""
    return f"DSSEV1 {len(payload_type)} {payload_type} {len(payload)} {payload!r}".encode()


def strict_b64decode(text: object, where: str) -> bytes:
    """Decode standard base64 that has exactly one spelling.

    Raises:
        BundleError: not text, white space, wrong alphabet or padding, stray bits.
    """
    if not isinstance(text, str):
        raise BundleError("not base64 text", where=where, found=type(text).__name__)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BundleError("not base64", where=where, found=str(error)) from error
    if base64.b64encode(data).decode() != text:
        raise BundleError("base64 is not canonical", where=where)
    return data
