"""The text of a `.mecha` recipe as instructions (sd_mecha/serialization.py, format 0.1.0)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from parentage.manifest.errors import RecipeError

_VERSION: Final = "version 0.1.0"
_COMMANDS: Final = frozenset({"dict", "literal", "model", "merge"})
_CONSTANTS: Final[dict[str, Any]] = {"null": None, "true": True, "false": False}
_MAX_LINES: Final = 4096
_MAX_ARGS: Final = 4096
_MAX_NUMBER: Final = 40


class Ref(msgspec.Struct, frozen=True):
    """The result of an earlier instruction."""

    index: int


class Call(msgspec.Struct, frozen=True):
    """One instruction: its arguments are None, booleans, numbers, texts and `Ref`s."""

    command: str
    args: list[Any]
    options: dict[str, Any]


def parse_text(text: str) -> list[Call]:
    """Parse a recipe.

    Raises:
        RecipeError: with the line.
    """
    first, *lines = text.split("\n")
    if first != _VERSION:
        raise RecipeError(
            "no sd-mecha recipe of this version", where="line 1", expected=_VERSION, found=first
        )
    if len(lines) > _MAX_LINES:
        raise RecipeError("recipe too long", expected=f"<= {_MAX_LINES} lines")
    found: list[Call] = []
    for number, line in enumerate(lines, 2):
        where = f"line {number}"
        if line.strip().startswith("#") or (not line.strip() and number == len(lines) + 1):
            continue
        command, *tokens = _tokens(line.strip(), where) or [""]
        if command not in _COMMANDS or len(tokens) > _MAX_ARGS:
            raise RecipeError("unknown instruction", where=where, found=command)
        args: list[Any] = []
        options: dict[str, Any] = {}
        for token in tokens:
            key, equals, rest = token.partition("=")
            if equals and key in options:
                raise RecipeError("argument twice", where=where, found=key)
            if equals:
                options[key] = _value(rest, len(found), where)
            else:
                args.append(_value(token, len(found), where))
        found.append(Call(command, args, options))
    return found


def _value(token: str, known: int, where: str) -> Any:  # noqa: ANN401
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    if len(token) > 1 and token[0] == token[-1] == '"':
        return token[1:-1]
    if len(token) > _MAX_NUMBER:
        raise RecipeError("not a value", where=where, found=token)
    try:
        if token.startswith("&"):
            index = int(token[1:])
            if not 0 <= index < known:
                raise RecipeError("reference to no earlier line", where=where, found=token)
            return Ref(index)
        return float(token) if set(token.lower()) & {".", "e"} else int(token)
    except ValueError as error:
        raise RecipeError("not a value", where=where, found=token) from error


def _tokens(line: str, where: str) -> list[str]:
    """Cut a line at spaces outside quotes; a backslash takes the next character as it is."""
    found: list[str] = []
    token: list[str] = []
    prefix = ""
    inside = escaped = False
    for char in line:
        if escaped:
            escaped = False
            token.append(char)
        elif char == "\\":
            escaped = True
        elif char == '"' and not inside:
            prefix, token, inside = "".join(token), [], True
        elif char == '"':
            found.append(f'{prefix}"{"".join(token)}"')
            prefix, token, inside = "", [], False
        elif char == " " and not inside:
            if token:
                found.append("".join(token))
            token = []
        else:
            token.append(char)
    if inside or escaped:
        raise RecipeError("unfinished text", where=where, found=line)
    if token:
        found.append("".join(token))
    return found
