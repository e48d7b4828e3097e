"""Trigonometry to 50 digits: libm's last bit differs between machines, a Decimal's does not."""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import Context, Decimal, localcontext
from typing import Final

_DIGITS: Final = 50
_END: Final = Decimal(10) ** -(_DIGITS + 5)


def digits() -> AbstractContextManager[Context]:
    """Return a context that computes with 50 digits."""
    return localcontext(prec=_DIGITS)


def sin(x: Decimal) -> Decimal:
    """Return sin x for |x| of a few pi, by its Taylor series."""
    term = total = x
    n = 1
    while abs(term) > _END:
        term *= -x * x / ((n + 1) * (n + 2))
        total += term
        n += 2
    return total


def cos(x: Decimal) -> Decimal:
    """Return cos x for |x| of a few pi, by its Taylor series."""
    term = total = Decimal(1)
    n = 0
    while abs(term) > _END:
        term *= -x * x / ((n + 1) * (n + 2))
        total += term
        n += 2
    return total


def acos(c: Decimal) -> Decimal:
    """Return the arc cosine, 2 atan(sqrt((1-c)/(1+c))), for c in (-1, 1]."""
    x = ((1 - c) / (1 + c)).sqrt()
    halvings = 0
    while x > Decimal("0.1"):  # until the series is fast
        x = x / (1 + (1 + x * x).sqrt())
        halvings += 1
    term = total = x
    n = 1
    while abs(term) > _END:
        term *= -x * x
        total += term / (n + 2)
        n += 2
    return total * Decimal(2 ** (halvings + 1))
