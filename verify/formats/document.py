"""The result's own structure as one JSON document: everything, in no words but its own."""

from __future__ import annotations

import msgspec

from parentage.verify.showing import Shown


def render(shown: Shown) -> str:
    """Return the document on one line."""
    return msgspec.json.encode(shown.document).decode() + "\n"
