"""Checks of where weights come from: parents and licences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from parentage.manifest.lineage import Parent
from parentage.manifest.wire import matches
from parentage.verify.gates.facts import Facts
from parentage.verify.gates.reasons import Reason, by_rule, reason
from parentage.verify.verdict import Verdict

_LOCATOR: Final = re.compile(
    r"(?:pkg:huggingface/|hf://|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)/*([^@?#]+)",
    re.IGNORECASE,
)
_OR: Final = re.compile(r"\s+or\s+")
_AND: Final = re.compile(r"\s+and\s+|\s+with\s+|,")


def denied(facts: Facts) -> Iterator[Reason]:
    """Look for denied roots among the release, its parents and outputs of steps; for names among parents."""
    roots = {rule.root for rule in facts.rules.parents.deny if rule.root is not None}
    repos = tuple(rule.repo.lower() for rule in facts.rules.parents.deny if rule.repo is not None)
    for what, found in _roots(facts):
        for root in sorted(roots & found):
            yield reason(
                "parent-denied", Verdict.DENIED, f"{what} is denied", where=what, found=root
            )
    for parent in _parents(facts):
        if repos and matches(repo_of(parent.uri), repos):
            yield reason(
                "parent-denied",
                Verdict.DENIED,
                f"parent {parent.id} is denied",
                where=f"parent {parent.id}",
                found=parent.uri,
            )


def not_allowed(facts: Facts) -> Iterator[Reason]:
    """Where roots are allowed by name, others are not."""
    allowed = set(facts.rules.parents.allow)
    for parent in _parents(facts):
        if allowed and not allowed & set(parent.weights.values()):
            yield reason(
                "parent-not-allowed",
                Verdict.DENIED,
                f"parent {parent.id} is not among those allowed",
                where=f"parent {parent.id}",
                expected="a root of parents.allow",
                found=", ".join(parent.weights.values()),
            )


def licence_denied(facts: Facts) -> Iterator[Reason]:
    """Each licence that is given passes."""
    rules = facts.rules.licences
    allow, deny = _names(rules.allow), _names(rules.deny)
    for what, licence in _licences(facts):
        if licence and not passes(licence, allow, deny):
            yield reason(
                "licence-denied",
                Verdict.DENIED,
                f"the licence of {what} is not let through",
                where=what,
                expected=", ".join(sorted(allow)) or f"none of {', '.join(sorted(deny))}",
                found=licence,
            )


def licence_unknown(facts: Facts) -> Iterator[Reason]:
    """Who allows some licences can't let pass what has none."""
    for what, licence in _licences(facts):
        if not licence:
            yield from by_rule(
                facts.rules.licences.unknown,
                "licence-unknown",
                f"{what} has no licence",
                where=what,
                hint="license: in the card, or in the lineage's parent",
            )


def passes(licence: str, allow: frozenset[str], deny: frozenset[str]) -> bool:
    """Say whether a licence, or an SPDX expression of several, is let through.

    One side of an OR is enough, and all of an AND is needed. In parentheses, which are not read, every
    name must pass.
    """
    text = licence.strip().lower()
    if "(" in text or ")" in text:
        choices = [
            [part for one in _OR.split(re.sub(r"[()]", " ", text)) for part in _AND.split(one)]
        ]
    else:
        choices = [_AND.split(one) for one in _OR.split(text)]
    named = [{part.strip() for part in choice if part.strip()} for choice in choices]
    return any(names and not names & deny and (not allow or names <= allow) for names in named)


def repo_of(uri: str) -> str:
    """Return "org/name" of a locator, in small letters, however it is written; else all of it."""
    found = _LOCATOR.match(unquote(uri.strip()))
    if not found:
        return uri.strip("/").lower()
    parts = [part for part in found[1].lower().split("/") if part not in {"", "."}]
    return "/".join(parts[:2])


def _names(licences: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in licences)


def _parents(facts: Facts) -> tuple[Parent, ...]:
    return facts.lineage.parents if facts.lineage is not None else ()


def _licences(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.lineage is None:
        return
    yield "the release", facts.licence
    for parent in facts.lineage.parents:
        yield f"parent {parent.id}", parent.license


def _roots(facts: Facts) -> Iterator[tuple[str, set[str]]]:
    yield "the release", set(facts.report.root.values())
    if facts.lineage is None:
        return
    yield "the release as signed", set(facts.lineage.weights.root.values())
    for parent in facts.lineage.parents:
        yield f"parent {parent.id}", set(parent.weights.values())
    for step in facts.lineage.recipe.steps:
        yield f"the output of step {step.id}", set((step.output or {}).values())
