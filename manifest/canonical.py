"""The one way an object becomes bytes (RFC 8785, without floats) and bytes become an object.

Reading is strict: UTF-8, no duplicate key, no NaN or Infinity, bounded size, integers
within +-(2^53-1). Writing goes through `rfc8785`; nothing is ever re-serialised to be verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn

from parentage.manifest.errors import JsonError

MAX_BYTES: Final = 8 << 20
MAX_INT: Final = 2**53 - 1


def dumps(value: object) -> bytes:
    """Return the canonical bytes of `value` (RFC 8785; a float is an error: ratios are strings)."""
    import rfc8785

    _refuse_floats(value)
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise JsonError(f"no canonical form: {error}") from error


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise JsonError(
            "a float has no canonical form here", found=repr(value), expected="a decimal string"
        )
    if isinstance(value, dict):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_floats(item)


def loads(  # noqa: C901  (three closures, each one refusal)
    data: bytes,
    *,
    where: str,
    max_bytes: int = MAX_BYTES,
    floats: bool | Callable[[str], object] = False,
) -> Any:  # noqa: ANN401  (JSON has no narrower type)
    """Parse strict JSON.

    Args:
        data: the exact bytes.
        where: how errors name the document.
        max_bytes: refuse anything larger, before parsing.
        floats: whether a number with a fraction or exponent is allowed (never in our formats), or what
            makes a value of its text.

    Raises:
        JsonError: for anything that RFC 8259 leaves to luck.
    """
    if len(data) > max_bytes:
        raise JsonError(
            "JSON document too large",
            where=where,
            expected=f"at most {max_bytes} bytes",
            found=f"{len(data)} bytes",
        )

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in items:
            if key in found:
                raise JsonError("duplicate key in JSON object", where=where, found=key)
            found[key] = value
        return found

    def refuse(token: str) -> NoReturn:
        raise JsonError("number without an exact value in JSON", where=where, found=token)

    def integer(token: str) -> int:
        if len(token) > 17 or abs(int(token)) > MAX_INT:
            raise JsonError("integer beyond 2^53-1 in JSON", where=where, found=token)
        return int(token)

    try:
        text = data.decode("utf-8")
        return json.loads(
            text,
            object_pairs_hook=pairs,
            parse_constant=refuse,
            parse_int=integer,
            parse_float=float if floats is True else floats or refuse,
        )
    except UnicodeDecodeError as error:
        raise JsonError("JSON is not UTF-8", where=where, found=str(error)) from error
    except ValueError as error:
        raise JsonError("not valid JSON", where=where, found=str(error)) from error
    except RecursionError as error:
        raise JsonError("JSON nested too deeply", where=where) from error
