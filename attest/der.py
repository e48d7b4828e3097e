"""Just enough DER to put the certificates of a timestamp in order. Nothing is decided here."""

from __future__ import annotations

from typing import Final

_CERTIFICATES: Final = 0xA0  # [0] IMPLICIT, RFC 5652, 5.1


def sorted_certificates(response: bytes) -> bytes:
    """Return a TimeStampResp whose certificates stand in DER's order of a SET.

    Not all authorities sort them (OpenSSL does not), and rfc3161-client refuses who does not. They
    are not signed as a set, and sorting moves bytes without changing a length. What is not such a
    response is returned as it is, for its parser to refuse.
    """
    try:
        token = _inside(response, 0, skip=1)  # status, token
        content = _inside(response, token, skip=1)  # contentType, [0] content
        data = _value(response, content)[0]  # SignedData
        at = _inside(response, data, skip=3)  # version, digestAlgorithms, encapContentInfo
        if response[at] != _CERTIFICATES:
            return response
        start, end = _value(response, at)
        parts = _split(response, start, end)
    except IndexError:
        return response
    return response[:start] + b"".join(sorted(parts)) + response[end:]


def _inside(data: bytes, at: int, *, skip: int) -> int:
    """Return where the element after `skip` others begins, inside the element at `at`."""
    at = _value(data, at)[0]
    for _ in range(skip):
        at = _value(data, at)[1]
    return at


def _value(data: bytes, at: int) -> tuple[int, int]:
    """Return where the value of the element at `at` begins and ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > len(data):
        raise IndexError
    return start, start + length


def _split(data: bytes, start: int, end: int) -> list[bytes]:
    parts = []
    while start < end:
        after = _value(data, start)[1]
        parts.append(data[start:after])
        start = after
    if start != end:
        raise IndexError
    return parts
