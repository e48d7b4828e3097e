"""What the types of layout steps can't say: placeholders that fit, inputs that are inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from parentage.manifest.errors import RecipeError
from parentage.manifest.layout_steps import (
    Assemble,
    Chunk,
    Concatenate,
    Layout,
    Stack,
    Unstack,
)
from parentage.manifest.patterns import placeholders
from parentage.manifest.wire import check_inputs


def _check_assemble(step: Assemble, where: str) -> None:
    check_inputs(step.inputs, {entry.input for entry in step.params.tensors}, where)
    for entry in step.params.tensors:
        _fits({*_held(entry.source, where)}, {*_held(entry.to, where)}, where)


def _check_layout(step: Layout, where: str) -> None:
    for number, rule in enumerate(step.params.rules):
        at = f"{where}: rule {number}"
        match rule:
            case Concatenate():
                for pattern in rule.source:
                    _fits({*_held(pattern, at)}, {*_held(rule.to, at)}, at)
            case Chunk():
                for pattern in rule.to:
                    _fits({*_held(rule.source, at)}, {*_held(pattern, at)}, at)
                if rule.sizes and len(rule.sizes) != len(rule.to):
                    raise RecipeError(
                        "wrong number of sizes",
                        where=at,
                        expected=str(len(rule.to)),
                        found=str(len(rule.sizes)),
                    )
            case Stack():
                _numbered(rule.source, rule.to, at)
            case Unstack():
                _numbered(rule.to, rule.source, at)
            case _:
                pass


def _numbered(many: str, one: str, where: str) -> None:
    """Check that `many` has every placeholder of `one`, and one more: the number."""
    more, fewer = {*_held(many, where)}, {*_held(one, where)}
    if len(more - fewer) != 1 or fewer - more:
        raise RecipeError(
            "stacks are numbered by one placeholder",
            where=where,
            expected="one that the stacked name lacks",
            found=f"{many}, {one}",
        )
    if "{" + next(iter(more - fewer)) + "*}" in many:
        raise RecipeError("a number is one part of a name", where=where, found=many)


def _fits(source: set[str], target: set[str], where: str) -> None:
    if source != target:
        raise RecipeError(
            "names have different placeholders",
            where=where,
            expected=", ".join(sorted(source)) or "none",
            found=", ".join(sorted(target)) or "none",
        )


def _held(pattern: str, where: str) -> list[str]:
    try:
        return placeholders(pattern)
    except RecipeError as error:
        raise RecipeError(
            error.what, where=where, expected=error.expected, found=error.found
        ) from error


LAYOUT_CHECKS: Final[dict[type, Callable[[Any, str], None]]] = {
    Assemble: _check_assemble,
    Layout: _check_layout,
}
