"""What a property of a parser asserts: a value, or an error with a name; nothing else comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from parentage.manifest.errors import ParentageError

T = TypeVar("T")


def value_or_named_error(
    call: Callable[[], T],
    error: type[ParentageError] | tuple[type[ParentageError], ...] = ParentageError,
) -> T | None:
    """Return what a call gives, or None where it refuses by name: any other exception fails the test."""
    try:
        return call()
    except error as caught:
        refused = caught
    assert refused.what
    assert refused.code != ParentageError.code
    assert all(c.isprintable() for c in refused.describe().replace("\n", ""))
    assert json.dumps(refused.as_dict())
    return None
