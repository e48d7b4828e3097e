"""Patterns: what they match, that filling undoes matching, and that no name takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parentage.manifest.errors import RecipeError
from parentage.manifest.patterns import fill, match, placeholders

PARTS = st.text("ab0_", max_size=3)


@pytest.mark.parametrize(
    ("pattern", "name", "values"),
    [
        ("a.b", "a.b", {}),
        ("a.b", "a.c", None),
        ("a", "a.b", None),
        ("l.{n}.w", "l.3.w", {"n": "3"}),
        ("l.{n}.w", "l.3.4.w", None),
        ("l.{n}.w", "l..w", {"n": ""}),
        ("{all*}", "x", {"all": "x"}),
        ("{all*}", "x.y.z", {"all": "x.y.z"}),
        ("a.{rest*}.z", "a.z", None),
        ("a.{rest*}.z", "a.b.c.z", {"rest": "b.c"}),
        ("{n}.{rest*}", "a.b.c", {"n": "a", "rest": "b.c"}),
        ("a*b", "a*b", {}),
        ("a*b", "axb", None),
    ],
)
def test_match(pattern: str, name: str, values: dict[str, str] | None) -> None:
    assert match(pattern, name) == values


@given(
    st.lists(
        st.one_of(PARTS, st.just("{n}"), st.just("{m}"), st.just("{r*}")), min_size=1, max_size=5
    ),
    st.lists(PARTS, min_size=1, max_size=7).map(".".join),
)
def test_match_is_that_of_a_regular_expression(parts: list[str], name: str) -> None:
    pattern = ".".join(parts)
    try:
        names = placeholders(pattern)
    except RecipeError:
        return
    forms = {"{n}": r"(?P<n>[^.]*)", "{m}": r"(?P<m>[^.]*)", "{r*}": r"(?P<r>.*)"}
    expected = re.fullmatch(r"\.".join(forms.get(part) or re.escape(part) for part in parts), name)

    values = match(pattern, name)

    assert values == (expected.groupdict() if expected else None)
    if values is not None:
        assert set(values) == set(names)
        assert fill(pattern, values) == name


@pytest.mark.parametrize(
    "pattern", ["{", "a{n}", "{n}b", "{N}", "{n**}", "{}", "{n}.{n}", "{a*}.{b*}"]
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(RecipeError):
        placeholders(pattern)


def test_a_hostile_name_takes_no_time() -> None:
    pattern = "{r*}." + ".".join(f"{{p{n}}}.a" for n in range(60))
    start = time.perf_counter()
    for _ in range(100):
        match(pattern, "a." * 5000)
    assert time.perf_counter() - start < 5
