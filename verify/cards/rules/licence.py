"""C05: a licence that is less strict than a parent's."""

from __future__ import annotations

from collections.abc import Iterator

from parentage.manifest.card import Card
from parentage.verify.cards import licences
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.cards.names import Named, texts
from parentage.verify.showing import Level

KEY = "license"


def differs(evidence: Evidence) -> Iterator[Hit]:
    """C05: no licence, an unknown one, or one of a milder class than a parent's."""
    card = evidence.card
    if card is None:
        return
    licensed = [parent for parent in evidence.parents if parent.license]
    if bare := [parent.id for parent in evidence.parents if not parent.license]:
        evidence.skip(f"licences of parents that the manifest gives none: {', '.join(bare)}")
    said = said_in(card)
    if not said:
        if licensed:
            yield _without(card, licensed, evidence.name)
        return
    for parent in licensed:
        if not licences.same(said, parent.license):
            yield from _compare(card, parent, said, evidence.name)


def said_in(card: Card) -> str:
    """Return the card's licence, where it is `other` by its name; empty: none."""
    matter = card.matter
    said = (texts(matter.get(KEY)) or [""])[0]
    return (texts(matter.get("license_name")) or [said])[0] if said.lower() == "other" else said


def _without(card: Card, licensed: list[Named], name: str) -> Hit:
    misspelt = "licence" in card.matter
    return Hit(
        message="the card has a key that no one reads: licence"
        if misspelt
        else "the card names no licence",
        where="licence" if misspelt else KEY,
        expected=f"{KEY}: at least as strict as {', '.join(sorted({p.license for p in licensed}))}",
        found=str(card.matter.get("licence")) if misspelt else "no such key",
        line=card.line("licence") or 1,
        next=f"parentage card sync {name}",
    )


def _compare(card: Card, parent: Named, said: str, name: str) -> Iterator[Hit]:
    own, theirs = licences.class_of(said), licences.class_of(parent.license)
    line = card.line(KEY)
    expected = f"{parent.license} of parent {parent.id}"
    if own is None or theirs is None or own == theirs == licences.RESTRICTED:
        unknown = [n for n, rank in ((said, own), (parent.license, theirs)) if rank is None]
        yield Hit(
            message="licences that can't be compared"
            + (
                f": not in the table: {', '.join(unknown)}"
                if unknown
                else ": both have their own terms"
            ),
            where=KEY,
            expected=expected,
            found=said,
            line=line,
            next="read both, and set this rule's level",
            at_most=Level.WARNING,
        )
    elif own < theirs:
        yield Hit(
            message="the card's licence is less strict than a parent's",
            where=KEY,
            expected=f"{expected} ({licences.CLASSES[theirs]})",
            found=f"{said} ({licences.CLASSES[own]})",
            line=line,
            next=f"parentage card sync {name}",
        )
