"""An answer is exactly what was asked for: this file, this range, these bytes, the next page of this list."""

from __future__ import annotations

import re
from typing import Final

from parentage.manifest.errors import HubAnswerError, HubContentError, HubUnreachableError
from parentage.verify.sources.listed import Content, Listed
from parentage.verify.sources.place import HubPlace
from parentage.verify.sources.web import Answer, PassingError, address

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_NEXT: Final = re.compile(r'<([^<>]{1,4096})>\s*;\s*rel="?next"?')


def check_head(place: HubPlace, listed: Listed, answer: Answer) -> None:
    """Check that what an answer says of itself is what is listed at this commit.

    Raises:
        HubContentError: another commit, digest or size.
    """
    linked = answer.headers.get("x-linked-etag", "").strip('W/"')
    digest = listed.sha256 or listed.blob_oid
    said = {
        "commit": (place.revision, answer.headers.get("x-repo-commit", place.revision)),
        "digest": (digest, linked or digest),
        "size": (str(listed.size), answer.headers.get("x-linked-size", str(listed.size))),
    }
    for name, (expected, found) in said.items():
        if expected != found:
            raise HubContentError(
                "the file changed between listing and reading",
                where=f"{place}: {listed.path}",
                expected=f"{name} {expected}",
                found=f"{name} {found}",
                hint="ask again at a commit: the Hub must not change what a commit holds",
            )


def check_whole(listed: Listed, answer: Answer) -> None:
    """Check that an answer announces a whole file.

    Raises:
        HubAnswerError: part of it, or another size.
    """
    length = answer.headers.get("content-length")
    if answer.status != 200 or (length is not None and length != str(listed.size)):
        raise HubAnswerError(
            "the Hub sends something else than the file",
            where=listed.path,
            expected=f"HTTP 200, {listed.size} bytes",
            found=f"HTTP {answer.status}, {length} bytes",
        )


def check_range(listed: Listed, answer: Answer, start: int, stop: int) -> None:
    """Check that an answer announces exactly bytes [start, stop) of a file of the listed size.

    Raises:
        HubAnswerError: anything else.
    """
    text = answer.headers.get("content-range", "")
    found = _CONTENT_RANGE.fullmatch(text)
    expected = f"bytes {start}-{stop - 1}/{listed.size}"
    wanted = (start, stop - 1, listed.size)
    if answer.status == 206 and found and tuple(map(int, found.groups())) == wanted:
        return
    problem = (
        "the server ignores Range" if answer.status == 200 else "the server sends another range"
    )
    raise HubAnswerError(
        problem,
        where=f"{listed.path} at {address(answer.url)}",
        expected=f"HTTP 206, {expected}",
        found=f"HTTP {answer.status}, {text or 'no Content-Range'}",
        hint="read from a Hub or mirror that serves ranges: HF_ENDPOINT",
    )


def check_content(place: HubPlace, listed: Listed, content: Content) -> None:
    """Compare what came with what is listed.

    Raises:
        HubContentError: other bytes.
    """
    if content.found != content.expected:
        raise HubContentError(
            "the Hub gave other bytes than it lists for this file",
            where=f"{place}: {listed.path}",
            expected=content.expected,
            found=content.found,
            hint="try again; if it stays, the mirror or the cache in between is broken",
        )


def all_of(data: bytes, size: int, listed: Listed) -> bytes:
    """Return what came, if it is all.

    Raises:
        PassingError: less.
    """
    if len(data) != size:
        raise PassingError(
            HubUnreachableError(
                "the answer ended early",
                where=listed.path,
                expected=f"{size} bytes",
                found=f"{len(data)} bytes",
            )
        )
    return data


def next_page(answer: Answer, base: str) -> str | None:
    """Return where a list goes on; None: it is at its end.

    Raises:
        HubAnswerError: at another place than this list's.
    """
    link = answer.headers.get("link", "")
    found = _NEXT.search(link[:8192])
    if found is None:
        return None
    if not found[1].startswith(f"{base}?"):
        raise HubAnswerError(
            "the Hub's list goes on elsewhere",
            where=base,
            expected=f"{base}?…",
            found=address(found[1]),
        )
    return found[1]
