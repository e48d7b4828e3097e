"""Changes to a card's text, key by key: what the author wrote stays where and as it is.

Nothing is dumped anew: a value is replaced in its place, an item goes into its list, a missing key is
written before the closing line. Comments, order, quotes and line ends stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from parentage.manifest.card import Card, read_card
from parentage.manifest.errors import CardError

#: Texts that YAML, in any version, reads as nothing but themselves, in a list in brackets too.
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_/-]*(?:\.[A-Za-z0-9_/-]+)*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_BLANK: Final = re.compile(r"[ \t]*(?:#[^\r\n]*)?")


def with_text(card: Card, key: str, value: str) -> Card:
    """Return the card with a text as a key's value.

    Raises:
        CardError: the value stands in a style that can't be edited.
    """
    return _with(card, key, _quoted(value))


def with_list(card: Card, key: str, values: Sequence[str]) -> Card:
    """Return the card with a list as a key's value: items that stay stand as they do, new ones follow.

    Raises:
        CardError: the value stands in a style that can't be edited.
    """
    current = card.matter.get(key)
    if not isinstance(current, list) or not current or card.spans[(key,)].style == "flow":
        if current is None and key not in card.matter:
            lines = [f"{key}:", *(f"- {_quoted(value)}" for value in values)]
            return _added(card, lines)
        return _with(card, key, f"[{', '.join(map(_quoted, values))}]")
    for value in values:
        if value not in current:
            card = _with_item(card, key, value)
    for index in reversed(range(len(current))):
        # Twice in the list, and once in what it should be: the first one stays.
        if current[:index].count(current[index]) >= values.count(current[index]):
            card = _without_item(card, key, index)
    return card


def with_body(card: Card, body: str) -> Card:
    """Return the card with another text after its front matter."""
    return _read(card.text[: card.body] + body)


def line_end(text: str) -> str:
    """Return how the lines of a text end."""
    found = re.search("\r\n|\r|\n", text)
    return found[0] if found else "\n"


def _with(card: Card, key: str, yaml: str) -> Card:
    if key in card.matter:
        return _in_place(card, (key,), yaml)
    return _added(card, [f"{key}: {yaml}"])


def _added(card: Card, lines: list[str]) -> Card:
    """Add lines to the end of the front matter, which is made where there is none."""
    text, end = card.text, line_end(card.text)
    if not card.has_matter:
        return _read("".join(line + end for line in ["---", *lines, "---"]) + text)
    if () in card.spans and card.spans[()].style == "flow":
        raise CardError(
            "front matter in braces can't be edited",
            where=f"line {card.line_at(card.start)}",
            hint="write one key a line",
        )
    keys = [at for path, at in card.starts.items() if len(path) == 1]
    first = min(keys, default=card.start)
    indent = text[:first].rpartition("\n")[2].rpartition("\r")[2] if keys else ""
    added = "".join(indent + line + end for line in lines)
    # Before the empty lines that mergekit leaves at the end.
    rest = text[card.start : card.end]
    at = _line_after(text, card.start + len(rest.rstrip())) if rest.strip() else card.end
    return _read(text[:at] + added + text[at:])


def _in_place(card: Card, path: tuple[str | int, ...], yaml: str) -> Card:
    span = card.spans[path]
    if span.style in {"|", ">"}:
        raise CardError(
            "a value in a block can't be edited",
            where=f"line {card.line(*path)}",
            found=f"{path[0]}: {span.style}",
            hint=f"write {path[0]} on one line",
        )
    start, end = span.start, span.end
    if span.style == "block":
        # What ends a block is the next key: comments and empty lines before it are not the list's.
        start, end = _block(card, start, end)
    before = card.text[:start]
    space = "" if before.endswith((" ", "\t")) else " "
    return _read(before + space + yaml + card.text[end:])


def _block(card: Card, start: int, end: int) -> tuple[int, int]:
    """Return from a key's colon to the end of the last line of its list or mapping."""
    text = card.text
    start = len(text[:start].rstrip())
    lines = re.split("(\r\n|\r|\n)", text[start:end])
    while len(lines) > 1 and _BLANK.fullmatch(lines[-1]):
        lines = lines[:-2]
    return start, start + len("".join(lines))


def _with_item(card: Card, key: str, value: str) -> Card:
    """Add an item after the last of a list in lines."""
    end = len(card.matter[key]) - 1
    if not isinstance(card.matter[key][end], str) or card.spans[(key, end)].style in {"|", ">"}:
        raise CardError("a list that can't be edited", where=f"line {card.line(key, end)}")
    last = card.starts[(key, end)]
    dash = card.text.rindex("-", 0, last)
    indent = card.text[:dash].rpartition("\n")[2].rpartition("\r")[2]
    at = _line_after(card.text, card.spans[(key, end)].end)
    added = f"{indent}- {_quoted(value)}{line_end(card.text)}"
    return _read(card.text[:at] + added + card.text[at:])


def _without_item(card: Card, key: str, index: int) -> Card:
    """Take an item's line out; one that is no text on one line can't be."""
    span = card.spans[(key, index)]
    start = card.text.rindex("-", 0, card.starts[(key, index)])
    start -= len(card.text[:start].rpartition("\n")[2].rpartition("\r")[2])
    end = _line_after(card.text, span.end)
    if not isinstance(card.matter[key][index], str) or span.style in {"|", ">"}:
        raise CardError("an item that can't be edited", where=f"line {card.line(key, index)}")
    return _read(card.text[:start] + card.text[end:])


def _line_after(text: str, at: int) -> int:
    found = re.compile("\r\n|\r|\n").search(text, at)
    return found.end() if found else len(text)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def _read(text: str) -> Card:
    return read_card(text.encode())
