"""Commands run in this process, and what they are expected to end with."""

from __future__ import annotations

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]


def ok(result: tuple[int, str, str]) -> str:
    """Return what a command printed, which must have ended well."""
    assert result[0] == 0, result
    return result[1]
