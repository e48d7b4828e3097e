"""What rules look at, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from parentage.manifest.card import README, Card, Digests
from parentage.verify.cards.authority import Authority
from parentage.verify.cards.kinds import Kinds
from parentage.verify.cards.names import Named
from parentage.verify.cards.surroundings import Folder
from parentage.verify.showing import Level

#: From the mildest to the worst.
_ORDER: Final = (Level.NOTE, Level.WARNING, Level.ERROR)


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule found.

    Attributes:
        message: what is wrong.
        where: key or sentence, for people.
        expected: what the manifest says; `found`: what the card says.
        next: what helps.
        file, line: where it stands.
        at_most: the worst that this case may be, whatever the rule's level is.
    """

    message: str
    where: str = ""
    expected: str = ""
    found: str = ""
    next: str = ""
    file: str = README
    line: int = 0
    at_most: Level = Level.ERROR


Renamed = Callable[[str], str | None]
"""Takes "org/name" and returns the name that it leads to; None: it can't be had."""


class Evidence(msgspec.Struct, kw_only=True):
    """A release's card, its manifest, and what lies beside them.

    Attributes:
        folder: the release.
        name: that commands call it by.
        data, card: README.md as bytes and as read; None: there is none, or it can't be read.
        authority: the manifest.
        kinds: what its recipe does.
        parents: its parents, with their places.
        record: digests of the signed card's parts, where the signature holds them.
        signed_card: the signed card itself, where it was given.
        hub_tags: that the Hub gives the repository; None: nobody asked.
        renamed: asks where a name of a repository leads by now; None: nobody to ask.
        weights: whether to read the weights, too; None: they are not here.
        not_checked: sentences; rules add to it.
    """

    folder: Folder
    name: str
    data: bytes | None
    card: Card | None
    authority: Authority
    kinds: Kinds
    parents: tuple[Named, ...]
    record: Digests | None = None
    signed_card: Card | None = None
    hub_tags: Sequence[str] | None = None
    renamed: Renamed | None = None
    weights: bool | None = False
    not_checked: list[str] = msgspec.field(default_factory=list)

    def skip(self, sentence: str) -> None:
        """Say what was not looked at."""
        if sentence not in self.not_checked:
            self.not_checked.append(sentence)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of cards.

    Attributes:
        id: stable, C01 to C13.
        slug: its name in words.
        level: by default.
        contradicts: whether what it finds contradicts manifest or signature. Otherwise an error of it
            is a policy's no.
        help: one sentence.
        compares: what with what.
        remedy: what to do.
        look: finds it.
    """

    id: str
    slug: str
    level: Level
    contradicts: bool
    help: str
    compares: str
    remedy: str
    look: Callable[[Evidence], Iterator[Hit]]


Levels = Mapping[str, Level | None]


def milder(one: Level, other: Level) -> Level:
    """Return the milder of two levels."""
    return min(one, other, key=_ORDER.index)
