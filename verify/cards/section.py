"""The section of a card that `card sync` writes and replaces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from parentage.manifest.errors import CardError, printable
from parentage.manifest.lineage import Lineage
from parentage.verify.cards.names import Locator, locator
from parentage.verify.cards.words import in_words

BEGIN: Final = "<!-- parentage:begin -->"
END: Final = "<!-- parentage:end -->"
_BADGE: Final = "https://img.shields.io/badge/parentage-lineage_declared-blue"
_PROVES: Final = "A badge proves nothing: the commands below do."
_SAID: Final = "- recomputed: "
#: Such a line and nothing beside it: the author's own words are no verifier's.
_RECOMPUTED: Final = re.compile(
    r"- recomputed: [0-9,]+ tensors at rung [A-Z?-]+(, [0-9,]+ tensors at rung [A-Z?-]+)*"
    r" \([a-z./]{1,64}:[0-9]{1,9}\)"
)
_SHOWN: Final = 64


def find(body: str) -> tuple[int, int] | None:
    """Return where the section starts and ends in a text; None: there is none.

    Raises:
        CardError: a marker stands alone, twice, or in the wrong order.
    """
    begins, ends = body.count(BEGIN), body.count(END)
    if not begins and not ends:
        return None
    start, end = body.find(BEGIN), body.find(END)
    if begins != 1 or ends != 1 or end < start:
        raise CardError(
            "the markers of the provenance section are not one pair",
            expected=f"{BEGIN} … {END}",
            found=f"{begins} and {ends}",
            hint="take all of them out; parentage card sync writes a new section",
        )
    return start, end + len(END)


def outside(body: str, lineage: Lineage) -> str:
    """Return a text with the section's characters blanked, so that offsets and lines stay.

    A section that is not what the manifest gives is the author's text like any other.
    """
    try:
        found = find(body)
    except CardError:
        return body
    if found is None:
        return body
    start, end = found
    here = body[start:end]
    if plain(here) != plain(section_of(lineage, ())):
        return body
    return body[:start] + re.sub(r"[^\r\n]", " ", here) + body[end:]


def placed(body: str, section: str, end: str) -> str:
    """Return a text with the section in place of the one it has, or at its end.

    Args:
        body: the text.
        section: its lines end as ours do.
        end: how the text's lines end.

    Raises:
        CardError: as `find`.
    """
    written = section.replace("\n", end)
    found = find(body)
    if found is not None:
        return body[: found[0]] + written + body[found[1] :]
    gap = "" if not body else end if body.endswith(("\n", "\r")) else end * 2
    return body + gap + written + end


def plain(section: str) -> list[str]:
    """Return a section's lines without what verifiers' statements add to it."""
    return [line for line in _lines(section) if not _RECOMPUTED.fullmatch(line)]


def recomputed(section: str) -> list[str]:
    """Return a section's lines that say what verifiers' statements say."""
    return [line for line in _lines(section) if _RECOMPUTED.fullmatch(line)]


def line_of(said: str) -> str:
    """Return the line for what a verifier's statement says."""
    return f"{_SAID}{_md(said)}"


def _lines(section: str) -> list[str]:
    return [line for line in re.split("\r\n|\r|\n", section) if line]


def section_of(lineage: Lineage, rungs: Sequence[str]) -> str:
    """Return the section, from marker to marker: parents, recipe, and how to check both.

    Args:
        lineage: the manifest.
        rungs: what verifiers' statements say, in sentences.
    """
    lines = [
        BEGIN,
        "<!-- written by `parentage card sync`; what stands between these markers is replaced -->",
        "## Provenance",
        "",
        f"[![parentage: lineage declared]({_BADGE})](.parentage/claims.jsonl) {_PROVES}",
        "",
        *_parents(lineage),
        *_recipe(lineage),
        *map(line_of, rungs),
        *([""] if rungs else []),
        "To check it, with the publisher's key and the parents' weights:",
        "",
        "```console",
        *_commands(lineage),
        "```",
        END,
    ]
    return "\n".join(lines)


def _parents(lineage: Lineage) -> list[str]:
    roots = ", ".join(f"`{profile}:{root}`" for profile, root in lineage.weights.root.items())
    lines = [f"Weights of this release: {roots}", ""]
    if not lineage.parents:
        return [*lines, "The manifest names no parents.", ""]
    lines += ["| parent | repository | commit | weights | licence |", "|---|---|---|---|---|"]
    for parent in lineage.parents:
        at = locator(parent.uri)
        weights = "<br>".join(f"`{profile}:{root}`" for profile, root in parent.weights.items())
        cells = (
            _md(parent.id),
            _md(at.repo) if at else "not on a Hub",
            f"`{at.revision}`" if at and at.is_pinned else "none: it can be moved",
            weights,
            _md(parent.license) or "not said",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _recipe(lineage: Lineage) -> list[str]:
    words = in_words(lineage)
    if not words:
        return ["The manifest declares these weights without a history.", ""]
    lines = ["What was done to them, step by step:", ""]
    lines += [f"{number}. {_md(text)}" for number, text in enumerate(words[:_SHOWN], 1)]
    if len(words) > _SHOWN:
        lines.append(f"{_SHOWN + 1}. and {len(words) - _SHOWN} more steps, in the manifest")
    return [*lines, ""]


def _commands(lineage: Lineage) -> list[str]:
    lines = ["parentage verify . --key release.pub" + (" \\" if lineage.parents else "")]
    for parent in lineage.parents:
        lines.append(f"    --parent {parent.id}={_place(locator(parent.uri))} \\")
    if lineage.parents:
        lines[-1] = lines[-1].removesuffix(" \\")
    return [*lines, "parentage card check . --key release.pub"]


def _place(at: Locator | None) -> str:
    if at is None:
        return "FOLDER"
    return f"hf://{at.repo}@{at.revision}" if at.is_pinned else f"hf://{at.repo}"


def _md(text: str) -> str:
    """Escape a text from the manifest for a line or a cell of markdown."""
    return re.sub(r"([\\`*_\[\]<>|#!~&$])", r"\\\1", printable(text, 600))
