"""A model card: front matter that the Hub reads, and text that people read.

The front matter is found as huggingface_hub finds it (`REGEX_YAML_BLOCK`): after white space, from a
line `---` to the next. Bounded, and every key has a line. `.parentage/card.json` keeps digests of the
card's parts; it is signed as every file is, so that a later reader can say which part of a signed card
was changed without having that card.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from parentage.manifest import atomic, canonical
from parentage.manifest.errors import CardError, JsonError, YamlError
from parentage.manifest.strict_yaml import Keys, Marked, Span, parse_marked

README: Final = "README.md"
RECORD: Final = ".parentage/card.json"
MAX_CARD: Final = 4 << 20
MAX_RECORD: Final = 1 << 20
#: Characters; a card with all of MTEB's scores has a quarter of that.
MAX_MATTER: Final = 1 << 20
SCHEMA: Final = "https://parentage.dev/card-digests/v0.1"
#: Lines end as in YAML 1.2, and nowhere else: U+2028 is text.
_END: Final = re.compile("\r\n|\r|\n")
_Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class Card(msgspec.Struct, frozen=True):
    """A model card as read.

    Attributes:
        text: all of it.
        matter: the front matter; no key where there is none.
        starts: offset in `text` of each key, by path.
        spans: where in `text` each value stands, by path.
        start, end: the front matter's YAML, as offsets in `text`; both -1: there is none.
        body: offset of what follows.
    """

    text: str
    matter: dict[str, Any]
    starts: dict[Keys, int]
    spans: dict[Keys, Span]
    start: int
    end: int
    body: int

    @property
    def has_matter(self) -> bool:
        """Whether there is any front matter."""
        return self.start >= 0

    def line(self, *path: str | int) -> int:
        """Return the line (from 1) of a key, or of the nearest one above it that stands here; 0: none."""
        while path:
            if path in self.starts:
                return self.line_at(self.starts[path])
            path = path[:-1]
        return 0

    def line_at(self, offset: int) -> int:
        """Return the line (from 1) that holds an offset."""
        return len(_END.findall(self.text, 0, offset)) + 1


class Digests(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Digests of a card's parts: what `.parentage/card.json` says.

    Attributes:
        schema: version of this structure.
        file: SHA-256 of the whole card.
        body: SHA-256 of what follows the front matter.
        matter: SHA-256 of each key's value, as canonical JSON.
    """

    schema: str
    file: _Hex
    body: _Hex
    matter: dict[str, _Hex]

    def to_json(self) -> bytes:
        """Return the canonical bytes of the record."""
        return canonical.dumps(msgspec.to_builtins(self)) + b"\n"


def read_card(data: bytes, *, where: str = README) -> Card:
    """Read a card.

    Raises:
        CardError: too large, not UTF-8, or front matter that is not YAML, or no mapping.
    """
    if len(data) > MAX_CARD:
        raise CardError(
            "card too large",
            where=where,
            expected=f"at most {MAX_CARD:,} bytes",
            found=f"{len(data):,} bytes",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CardError("card is not UTF-8", where=where, found=str(error)) from error
    if text.startswith("\ufeff"):
        raise CardError(
            "card starts with a byte order mark, so that the Hub's client sees no front matter",
            where=where,
            hint="save it as UTF-8 without a byte order mark",
        )
    found = _find_matter(text)
    if found is None:
        return Card(text, {}, {}, {}, -1, -1, 0)
    start, end, body = found
    marked = _read_matter(text[start:end], where)
    starts = {path: at + start for path, at in marked.starts.items()}
    spans = {
        path: Span(span.start + start, span.end + start, span.style)
        for path, span in marked.spans.items()
    }
    return Card(text, marked.value, starts, spans, start, end, body)


def digests_of(card: Card, data: bytes) -> Digests:
    """Return the digests of a card and its parts."""
    return Digests(
        schema=SCHEMA,
        file=hashlib.sha256(data).hexdigest(),
        body=hashlib.sha256(card.text[card.body :].encode()).hexdigest(),
        matter={
            key: hashlib.sha256(canonical.dumps(value)).hexdigest()
            for key, value in card.matter.items()
        },
    )


def record(folder: Path) -> None:
    """Write `.parentage/card.json` for the card of a release, as it lies there now.

    Where there is no card, or none that can be read, a record of an earlier one is taken away: it would
    be signed, and wrong.

    Raises:
        WriteFailedError: the folder can't be written.
    """
    card, target = folder / README, folder / RECORD
    data = b""
    if card.is_file() and not card.is_symlink():
        with card.open("rb") as stream:
            data = stream.read(MAX_CARD + 1)
    try:
        digests = digests_of(read_card(data), data).to_json() if data else b""
    except CardError:
        digests = b""
    with atomic.reporting(target):
        if not digests:
            target.unlink(missing_ok=True)
            return
        target.parent.mkdir(exist_ok=True)
    atomic.write_bytes(target, digests)


def read_record(data: bytes, *, where: str = RECORD) -> Digests:
    """Read `.parentage/card.json`.

    Raises:
        CardError: it is something else.
    """
    try:
        document = canonical.loads(data, where=where, max_bytes=MAX_RECORD)
        record = msgspec.convert(document, Digests)
    except (JsonError, msgspec.ValidationError) as error:
        raise CardError("not the digests of a card", where=where, found=str(error)) from error
    if record.schema != SCHEMA:
        raise CardError(
            "digests of a card in another version",
            where=where,
            expected=SCHEMA,
            found=record.schema,
        )
    return record


def _find_matter(text: str) -> tuple[int, int, int] | None:
    """Return start and end of the YAML, and where the text after it starts."""
    start = -1
    at = 0
    empty: tuple[int, int, int] | None = None
    while at < len(text):
        end = _END.search(text, at)
        line = text[at : end.start() if end else len(text)]
        after = end.end() if end else len(text)
        if start < 0:
            if line.strip() and (line.lstrip() != "---" or end is None):
                return None
            if line.strip():
                start = after
        # Not before a lone CR: there the client reads on.
        elif line.rstrip(" \t") == "---" and (end is None or end[0] != "\r"):
            if at > start:
                return start, at, after
            # A block of no line is one after CR LF, and there only if nothing else ends it.
            empty = (start, start, after) if text[:start].endswith("\r\n") else None
        at = after
    return empty


def _read_matter(yaml: str, where: str) -> Marked:
    try:
        marked = parse_marked(yaml, where=f"{where}: front matter", limit=MAX_MATTER)
    except YamlError as error:
        raise CardError(
            f"front matter: {error.what}",
            where=error.where,
            expected=error.expected,
            found=error.found,
        ) from error
    if marked.value is None:
        return Marked({}, {}, {})
    if not isinstance(marked.value, dict):
        raise CardError("front matter is no mapping", where=where)
    return marked
