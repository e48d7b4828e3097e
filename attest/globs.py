"""Patterns of identities: `*` inside a path segment or after the `@`, and nothing else is special.

The whole identity must match. Before the first `@` a `*` stands for characters other than `/` and `@`;
after it, for any but `@`. So `https://github.com/acme/*/.github/workflows/release.yml@refs/tags/*` can
match no other owner, workflow or kind of ref. There are no regular expressions.
"""

from __future__ import annotations

import re
from typing import Final

from parentage.manifest.errors import PolicyError

#: Each `*` after the first multiplies the work of a match.
_MOST: Final = 4
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://([^/]*)(.*)", re.DOTALL)


def check(pattern: str, where: str) -> None:
    """Refuse a pattern that leaves open who it is.

    Raises:
        PolicyError: a `*` in a scheme, host or mail domain, two in one segment, more than four, or no
            fixed text.
    """
    found = _URI.fullmatch(pattern)
    host = found[1] if found else pattern.partition("@")[2]
    if found is None and "*" in pattern and "@" not in pattern:
        host = pattern  # neither a URI nor an address: only exact text is clear
    crowded = pattern.count("*") > _MOST or any(
        part.count("*") > 1 for part in re.split("[/@]", pattern)
    )
    if "*" in host or crowded or not pattern.replace("*", "").strip("@/"):
        raise PolicyError(
            "pattern leaves open who it is",
            where=where,
            expected="`*` inside a path segment, in the name of a mail address, or after a URI's @",
            found=pattern,
        )


def matches(pattern: str, identity: str) -> bool:
    """Say whether a pattern names an identity; one with control characters is nobody's."""
    if not identity.isprintable():
        return False
    before, at, after = pattern.partition("@")
    expression = _expression(before, "[^/@]*") + re.escape(at) + _expression(after, "[^@]*")
    return re.fullmatch(expression, identity, re.DOTALL) is not None


def _expression(text: str, star: str) -> str:
    return star.join(re.escape(part) for part in text.split("*"))
