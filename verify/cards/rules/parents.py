"""Rules about parents: C01, C02, C03, C07, C12, C13."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from parentage.manifest.card import Card
from parentage.manifest.errors import MalformedError
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.cards.kinds import RELATIONS
from parentage.verify.cards.names import Locator, locator, texts
from parentage.verify.cards.surroundings import ADAPTER
from parentage.verify.showing import Level

BASE: Final = "base_model"
RELATION: Final = "base_model_relation"
_MAX_NAMES: Final = 256
_MAX_ASKED: Final = 16


def missing(evidence: Evidence) -> Iterator[Hit]:
    """C01: parents that the card does not name at all."""
    if not evidence.parents or (evidence.card is None and evidence.data is not None):
        return
    names = ", ".join(_call(parent.at, parent.id) for parent in evidence.parents)
    sync = f"parentage card sync {evidence.name}"
    if evidence.card is None:
        yield Hit(
            message="no model card, and the manifest names parents",
            expected=f"{BASE}: {names}",
            found="no README.md",
            next=sync,
        )
    elif not texts(evidence.card.matter.get(BASE)):
        yield Hit(
            message="the card names no parent; the manifest does",
            where=BASE,
            expected=names,
            found="empty" if BASE in evidence.card.matter else "no such key",
            line=evidence.card.line(BASE) or 1,
            next=sync,
        )


def differ(evidence: Evidence) -> Iterator[Hit]:
    """C02: other parents than the manifest's."""
    if evidence.card is None or not (said := texts(evidence.card.matter.get(BASE))[:_MAX_NAMES]):
        return
    if not evidence.kinds.said and not evidence.parents:
        evidence.skip("parents: the manifest declares weights without a history")
        return
    unplaced = [parent.id for parent in evidence.parents if parent.at is None]
    placed = {parent.at.repo for parent in evidence.parents if parent.at is not None}
    named = {text: at.repo if (at := locator(text)) else text.lower() for text in said}
    _follow(evidence, named, placed)
    strange = [text for text, repo in named.items() if repo not in placed]
    missed = sorted(placed - set(named.values()))
    for text in strange[len(unplaced) :] if not missed else strange:
        yield Hit(
            message="the card names a parent that the manifest does not",
            where=BASE,
            expected=", ".join(_call(parent.at, parent.id) for parent in evidence.parents)
            or "none",
            found=text,
            line=_line_of(evidence.card, text),
            next=f"parentage card sync {evidence.name}, or declare what is true",
        )
    for repo in missed:
        yield Hit(
            message="the card does not name a parent that the manifest names",
            where=BASE,
            expected=repo,
            found=", ".join(said),
            line=evidence.card.line(BASE),
            next=f"parentage card sync {evidence.name}",
        )
    if not missed and len(set(named.values())) < len(evidence.parents):
        yield Hit(
            message="the card names fewer parents than the manifest",
            where=BASE,
            expected=", ".join(_call(parent.at, parent.id) for parent in evidence.parents),
            found=", ".join(said),
            line=evidence.card.line(BASE),
            next=f"parentage card sync {evidence.name}",
        )
    if unplaced:
        evidence.skip(
            f"parents without a locator, which no name can be compared with: {', '.join(unplaced)}"
        )


def _follow(evidence: Evidence, named: dict[str, str], placed: set[str]) -> None:
    """Replace names that are not the manifest's by what they lead to, where a Hub can be asked."""
    strange = [text for text, repo in named.items() if repo not in placed and locator(text)]
    if not strange or placed <= set(named.values()):
        return
    if evidence.renamed is None:
        evidence.skip("whether a repository that the card names was renamed (no Hub was asked)")
        return
    # The manifest may have the old name, and the card the new one.
    leads = {repo: evidence.renamed(repo) for repo in placed - set(named.values())}
    for text in strange[:_MAX_ASKED]:
        here = evidence.renamed(named[text]) or named[text]
        same = [repo for repo, there in leads.items() if here in {repo, there}]
        if same:
            named[text] = same[0]


def relation(evidence: Evidence) -> Iterator[Hit]:
    """C03: another relation than the recipe's."""
    card, kinds = evidence.card, evidence.kinds
    if card is None or not evidence.parents or not kinds.said:
        return
    said = card.matter.get(RELATION)
    expected = " or ".join(word for word in RELATIONS if word in kinds.allowed) or "none"
    steps = ", ".join(_op(step) for step in evidence.authority.lineage.recipe.steps[:6])
    if said is None:
        if not kinds.best or (kinds.best == "finetune" and len(evidence.parents) == 1):
            return  # what the Hub takes it for where nothing is said
        tagged = kinds.best in texts(card.matter.get("tags"))
        yield Hit(
            message=f"the card does not say that this is a {kinds.best}; the Hub guesses",
            where=RELATION,
            expected=f"{kinds.best} ({steps})",
            found="no such key",
            line=card.line(BASE) or 1,
            next=f"parentage card sync {evidence.name}",
            at_most=Level.WARNING if tagged else Level.ERROR,
        )
    elif not isinstance(said, str) or said not in kinds.allowed:
        yield Hit(
            message="the card's relation to its parents is not the recipe's",
            where=RELATION,
            expected=f"{expected} ({steps})",
            found=str(said),
            line=card.line(RELATION),
            next=f"parentage card sync {evidence.name}",
        )


def adapter(evidence: Evidence) -> Iterator[Hit]:
    """C07: an adapter's config that names another base, or another revision of it."""
    try:
        config = evidence.folder.read_json(ADAPTER)
    except MalformedError as error:
        yield Hit(
            message=f"can't be read: {error.what}",
            file=ADAPTER,
            found=error.found,
            at_most=Level.WARNING,
        )
        return
    if config is None:
        return
    said, revision = config.get("base_model_name_or_path"), config.get("revision")
    placed = [parent.at for parent in evidence.parents if parent.at is not None]
    if not isinstance(said, str) or not said or not placed:
        evidence.skip(f"{ADAPTER}: it or the manifest names no base on a Hub")
        return
    at = locator(said)
    expected = ", ".join(_call(place, "") for place in placed)
    if at is None or at.repo not in {place.repo for place in placed}:
        yield Hit(
            message="the adapter's config names another base than the manifest",
            where="base_model_name_or_path",
            expected=expected,
            found=said,
            file=ADAPTER,
            # A path of the machine that trained it says nothing of a repository.
            at_most=Level.ERROR if at is not None else Level.WARNING,
        )
        return
    pinned = Locator(at.repo, revision) if isinstance(revision, str) and revision else None
    if pinned is None or not pinned.is_pinned:
        evidence.skip(f"{ADAPTER}: it names no commit of its base")
    elif all(place.revision != revision for place in placed if place.repo == at.repo):
        yield Hit(
            message="the adapter's config names another commit of its base than the manifest",
            where="revision",
            expected=expected,
            found=pinned.revision,
            file=ADAPTER,
        )


def moving(evidence: Evidence) -> Iterator[Hit]:
    """C12: a parent's locator that can be moved."""
    for parent in evidence.parents:
        if parent.at is not None and parent.at.is_pinned:
            continue
        yield Hit(
            message="the manifest names no commit of a parent: its place can be moved"
            if parent.at
            else "the manifest does not say where a parent is found",
            where=f"parent {parent.id}",
            expected="pkg:huggingface/org/name@<commit of 40 hex digits>",
            found=_call(parent.at, "no repository of a Hub"),
            file="",
            next="declare with the commit; the digest of the weights holds in any case",
        )


def tags(evidence: Evidence) -> Iterator[Hit]:
    """C13: what the Hub made of the card."""
    if evidence.hub_tags is None:
        evidence.skip("what the Hub made of the card (its tags)")
        return
    placed = {parent.at.repo for parent in evidence.parents if parent.at is not None}
    relations: Counter[str] = Counter()
    repos: set[str] = set()
    for tag in evidence.hub_tags:
        prefix, _, rest = tag.partition(":")
        word, _, repo = rest.partition(":")
        if prefix == BASE and word in RELATIONS and repo:
            relations[word] += 1
            repos.add(repo.lower())
    if placed and repos != placed:
        yield _tagged("the Hub shows other parents than the manifest", placed, repos)
    if evidence.kinds.said and not set(relations) <= evidence.kinds.allowed:
        yield _tagged(
            "the Hub shows another relation than the recipe's",
            evidence.kinds.allowed,
            set(relations),
        )


def _tagged(message: str, expected: set[str] | frozenset[str], found: set[str]) -> Hit:
    return Hit(
        message=message,
        where="tags of the Hub",
        expected=", ".join(sorted(expected)) or "none",
        found=", ".join(sorted(found)) or "none",
        next="the Hub reads the card again with every commit: parentage card check",
    )


def _call(at: Locator | None, otherwise: str) -> str:
    if at is None:
        return otherwise
    return f"{at.repo}@{at.revision}" if at.revision else at.repo


def _line_of(card: Card, text: str) -> int:
    value = card.matter.get(BASE)
    index = value.index(text) if isinstance(value, list) else 0
    return card.line(BASE, index)


def _op(step: object) -> str:
    return str(type(step).__struct_config__.tag)  # type: ignore[attr-defined]  # every step has one
