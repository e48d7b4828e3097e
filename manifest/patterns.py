"""Names with placeholders: `model.layers.{n}.mlp.{rest*}` names the tensors of every layer's MLP.

A name is cut at its dots. `{n}` stands for one part, `{rest*}` for one or more (once in a pattern), so
that a match is found in one pass whatever the name.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec

from parentage.manifest.errors import RecipeError

Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})(\*?)\}")


def placeholders(pattern: str) -> list[str]:
    """Return the placeholders of a pattern, without their stars.

    Raises:
        RecipeError: a brace that is no placeholder, one twice, or two with a star.
    """
    found: list[str] = []
    starred = 0
    for part in pattern.split("."):
        held = _PLACEHOLDER.fullmatch(part)
        if held is None and ("{" in part or "}" in part):
            raise RecipeError("not a placeholder", expected="{n} or {rest*}", found=part)
        if held is not None:
            found.append(held[1])
            starred += bool(held[2])
    if starred > 1 or len(set(found)) != len(found):
        raise RecipeError("ambiguous pattern", expected="each once, one star", found=pattern)
    return found


def match(pattern: str, name: str) -> dict[str, str] | None:
    """Return what the placeholders of a pattern stand for in a name; None: no match."""
    parts, words = pattern.split("."), name.split(".")
    values: dict[str, str] = {}
    spare = len(words) - len(parts)
    for part in parts:
        held = _PLACEHOLDER.fullmatch(part)
        starred = held is not None and bool(held[2])
        width = 1 + spare if starred else 1
        if not 1 <= width <= len(words):
            return None
        taken, words = ".".join(words[:width]), words[width:]
        if held is not None:
            values[held[1]] = taken
        elif taken != part:
            return None
    return None if words else values


def fill(pattern: str, values: dict[str, str]) -> str:
    """Return the name that a pattern gives where placeholders stand for `values`."""
    return ".".join(
        values[held[1]] if (held := _PLACEHOLDER.fullmatch(part)) else part
        for part in pattern.split(".")
    )
