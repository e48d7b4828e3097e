"""Write into a card what its manifest says, and leave everything else as its author wrote it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.attest.trust import Trust
from parentage.manifest.card import MAX_CARD, README, Card, read_card
from parentage.manifest.card_text import line_end, with_body, with_list, with_text
from parentage.manifest.errors import CardError
from parentage.verify.cards import licences, section
from parentage.verify.cards.authority import Authority, find_authority
from parentage.verify.cards.kinds import Kinds, kinds_of
from parentage.verify.cards.names import Named, locator, parents_of, texts
from parentage.verify.cards.rules.licence import KEY as LICENSE
from parentage.verify.cards.rules.licence import said_in
from parentage.verify.cards.rules.parents import BASE, RELATION
from parentage.verify.cards.surroundings import ADAPTER, Folder

TAG: Final = "parentage"
_HUB_ID: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


class Synced(msgspec.Struct, frozen=True):
    """A card as it should be.

    Attributes:
        before, after: bytes of README.md; `before` is empty where there was none.
        keys: of the front matter that are changed.
        notes: what was left to the author, in sentences.
    """

    before: bytes
    after: bytes
    keys: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the card has to be written."""
        return self.before != self.after


def plan(folder: Path, trust: Trust | None = None) -> Synced:
    """Return the card of a release as its manifest has it; nothing is written.

    Raises:
        UnsignedError: there is no manifest.
        CardError: as `synced`.
    """
    at = Folder(folder)
    authority = find_authority(at, trust)
    kinds = kinds_of(authority.lineage, is_adapter=at.has(ADAPTER))
    data = at.read(README, MAX_CARD)
    return synced(data, authority, kinds, parents_of(authority.lineage))


def synced(
    data: bytes | None, authority: Authority, kinds: Kinds, parents: tuple[Named, ...]
) -> Synced:
    """Return a card with the manifest's parents, relation, licence, tag and section in it.

    Args:
        data: of README.md; None: there is none yet.
        authority: the manifest.
        kinds: what its recipe does.
        parents: its parents.

    Raises:
        CardError: the card can't be read, or holds a value in a style that can't be edited.
    """
    before = data or b""
    card = read_card(before)
    notes: list[str] = []
    said: dict[str, Any] = {
        BASE: _bases(card, parents, notes),
        RELATION: _relation(card, kinds, parents),
        LICENSE: _license(card, parents, notes),
        "tags": _tags(card),
    }
    wanted = {key: v for key, v in said.items() if v is not None and v != card.matter.get(key)}
    edited = card
    for key, want in wanted.items():
        edit: Callable[..., Card] = with_list if isinstance(want, list) else with_text
        edited = edit(edited, key, want)
    body = edited.text[edited.body :]
    written = section.section_of(authority.lineage, authority.recomputed)
    edited = with_body(edited, section.placed(body, written, line_end(edited.text)))
    _check(card, edited, wanted)
    return Synced(before, edited.text.encode(), tuple(wanted), tuple(notes))


def _check(card: Card, edited: Card, wanted: dict[str, Any]) -> None:
    """Refuse an edit that would say anything else than was meant."""
    expected = card.matter | wanted
    if edited.matter != expected:
        keys = [
            key for key in expected | edited.matter if expected.get(key) != edited.matter.get(key)
        ]
        raise CardError(
            "front matter in a style that can't be edited",
            where=README,
            found=", ".join(keys),
            hint="write these keys one a line, or by hand as parentage card check says",
        )


def _bases(card: Card, parents: tuple[Named, ...], notes: list[str]) -> str | list[str] | None:
    """Return the parents in the author's order and spelling, then those that are missing."""
    said = texts(card.matter.get(BASE))
    placed = list(dict.fromkeys(parent.at.repo for parent in parents if parent.at is not None))
    unplaced = sum(parent.at is None for parent in parents)
    if unplaced:
        notes.append(f"{BASE}: {unplaced} parents have no place on a Hub; name them yourself")
    if not parents:
        return None
    kept: list[str] = []
    for text in said:
        at = locator(text)
        if at is not None and at.repo in placed:
            placed.remove(at.repo)
            kept.append(text)
        elif unplaced:
            unplaced -= 1
            kept.append(text)
    names = kept + placed
    if not names:
        return None
    single = len(names) == 1 and not isinstance(card.matter.get(BASE), list)
    return names[0] if single else names


def _relation(card: Card, kinds: Kinds, parents: tuple[Named, ...]) -> str | None:
    said = card.matter.get(RELATION)
    if not parents or (isinstance(said, str) and said in kinds.allowed):
        return None
    return kinds.best or None


def _license(card: Card, parents: tuple[Named, ...], notes: list[str]) -> str | None:
    """Return the strictest parent's licence, unless the author's is as strict, or can't be compared."""
    ranked = [(licences.class_of(p.license), p.license) for p in parents if p.license]
    if not ranked:
        return None
    said = said_in(card)
    own = licences.class_of(said)
    unknown = [name for rank, name in ranked if rank is None]
    if unknown or (said and own is None):
        notes.append(
            f"{LICENSE}: not in the table of licences, so it is left to you: "
            f"{', '.join(unknown or [said])}"
        )
        return None
    rank, strictest = max((rank or 0, name) for rank, name in ranked)
    if said and own is not None and own >= rank:
        return None
    name = licences.hub_id(strictest)
    if not _HUB_ID.fullmatch(name):
        notes.append(f"{LICENSE}: an expression that the Hub has no id for: {strictest}")
        return None
    return name


def _tags(card: Card) -> list[Any]:
    value = card.matter.get("tags")
    said = value if isinstance(value, list) else texts(value)
    return said if TAG in said else [*said, TAG]
