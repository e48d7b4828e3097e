"""C04: training that the card claims and the manifest does not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from parentage.manifest.card import Card
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.cards.names import texts
from parentage.verify.cards.section import outside
from parentage.verify.cards.training_words import training_in
from parentage.verify.showing import Level

_SHOWN: Final = 3
_READ: Final = 1 << 18
_GENERATED: Final = "generated_from_trainer"
_NEXT: Final = "say what was done, or declare the training as a step of the recipe"


def claimed(evidence: Evidence) -> Iterator[Hit]:
    """C04: words, data sets and tags of training, where no step trains."""
    card, kinds = evidence.card, evidence.kinds
    if card is None or kinds.trains:
        return
    if kinds.opaque:
        evidence.skip(
            "training that the card claims: the recipe has a step that can't be seen into"
        )
        return
    expected = "no training step" if kinds.said else "weights without a history"
    # Whoever only observed weights, or folded an adapter in, contradicts nothing.
    most = Level.ERROR if kinds.said and not kinds.folds else Level.WARNING
    if sets := texts(card.matter.get("datasets")):
        yield Hit(
            message="the card names data sets that it was trained on; the manifest declares no training",
            where="datasets",
            expected=expected,
            found=", ".join(sets[:5]),
            line=card.line("datasets"),
            next=_NEXT,
            at_most=most,
        )
    if _GENERATED in texts(card.matter.get("tags")):
        yield Hit(
            message="the card says that a trainer made it; the manifest declares no training",
            where="tags",
            expected=expected,
            found=_GENERATED,
            line=card.line("tags"),
            next=_NEXT,
            at_most=most,
        )
    yield from _sentences(evidence, card, expected, most)


def _sentences(evidence: Evidence, card: Card, expected: str, most: Level) -> Iterator[Hit]:
    body = outside(card.text[card.body :], evidence.authority.lineage)
    if len(body) > _READ:
        evidence.skip(
            f"the card's text beyond its first {_READ:,} characters, for words of training"
        )
        body = body[:_READ]
    names = {
        name for p in evidence.parents if p.at for name in (p.at.repo, p.at.repo.split("/")[1])
    }
    names |= {parent.id for parent in evidence.parents}
    said = list(training_in(body, [name for name in names if len(name) > 2]))
    for one in islice((s for s in said if s.claims), _SHOWN):
        yield Hit(
            message="the card says that this model was trained; the manifest declares no training",
            where="text",
            expected=expected,
            found=one.sentence,
            line=card.line_at(card.body + one.offset),
            next=_NEXT,
            at_most=most,
        )
    if not any(one.claims for one in said):
        for one in said[:1]:
            yield Hit(
                message="the card speaks of training; the manifest declares none",
                where="text",
                expected=expected,
                found=one.sentence,
                line=card.line_at(card.body + one.offset),
                next=f"if it was this model's: {_NEXT}",
                at_most=Level.WARNING,
            )
