"""A results file as its readers see it: what its bytes are, and values taken from it without luck.

Numbers keep their text: a reader never sees a float.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import RecipeError, ResultsError, printable

MAX_RESULTS: Final = 64 << 20
_MAX_NAME: Final = 512
_ZIP: Final = b"PK\x03\x04"
#: What zipfile and its decompressors raise of what is broken.
_NOT_UNPACKED: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError),
    *(RuntimeError, EOFError, ValueError, OSError, OverflowError),
)
#: The one member that an inspect_ai log needs read.
HEADER: Final = "header.json"
#: The largest and smallest numbers that have a decimal text in a statement.
_HIGHEST, _LOWEST = 39, -60


class Document(msgspec.Struct, frozen=True):
    """A results file.

    Attributes:
        kind: "json", "zip" (its header), "card" (front matter), "yaml" or "text".
        value: of JSON and YAML; the text of anything else.
        where: how errors name it.
    """

    kind: str
    value: Any
    where: str

    def has(self, *keys: str, kinds: tuple[str, ...] = ("json",)) -> bool:
        """Say whether it is of one of these kinds, and an object with all of these keys."""
        return self.kind in kinds and isinstance(self.value, dict) and {*keys} <= self.value.keys()


def read_file(path: Path) -> bytes:
    """Return the bytes of a results file.

    Raises:
        ResultsError: it can't be read, or is too large.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_RESULTS + 1)
    except OSError as error:
        raise ResultsError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_RESULTS:
        raise ResultsError(
            "results file too large", where=str(path), expected=f"<= {MAX_RESULTS} bytes"
        )
    return data


def open_document(data: bytes, where: str) -> Document:
    """Find out by its content what a results file is.

    Raises:
        ResultsError, JsonError: it breaks the format that it begins as.
    """
    if data.startswith(_ZIP):
        return Document("zip", _json(_header(data, where), where), where)
    start = data.lstrip()[:1]
    if start in {b"{", b"["}:
        return Document("json", _json(data, where), where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ResultsError("results file is not text", where=where, found=str(error)) from error
    if text.startswith("---"):
        return Document("card", _yaml(_front(text, where).encode(), where), where)
    if text.partition("\n")[0].count(",") >= 3:
        return Document("text", text, where)
    return Document("yaml", _yaml(data, where), where)


def _json(data: bytes, where: str) -> Any:  # noqa: ANN401
    return canonical.loads(data, where=where, max_bytes=MAX_RESULTS, floats=Decimal)


def _yaml(data: bytes, where: str) -> object:
    from parentage.manifest.strict_yaml import parse_yaml

    try:
        return parse_yaml(data, where=where)
    except RecipeError as error:
        raise ResultsError(error.what, where=where, found=error.found) from error


def _front(text: str, where: str) -> str:
    head = text.removeprefix("---").lstrip(" \r").removeprefix("\n")
    front, end, _ = head.partition("\n---")
    if not end:
        raise ResultsError("front matter has no end", where=where, expected="---")
    return front


def _header(data: bytes, where: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = [entry for entry in archive.infolist() if entry.filename == HEADER]
            if not held or held[-1].file_size > MAX_RESULTS:
                raise ResultsError("log has no header, or one too large", where=where)
            with archive.open(held[-1]) as stream:  # the last one holds
                return stream.read(MAX_RESULTS + 1)
    except _NOT_UNPACKED as error:
        raise ResultsError(
            f"log can't be unpacked: {error}",
            where=where,
            hint="inspect log convert --to json --output-dir . FILE",
        ) from error


def number(value: object, where: str) -> str:
    """Return a number's exact decimal text: "0.4375", never "4.375e-1".

    Raises:
        ResultsError: it is no number, or far beyond what any score is.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str, Decimal)):
        raise ResultsError("not a number", where=where, found=repr(value))
    try:
        exact = Decimal(value)
    except InvalidOperation as error:
        raise ResultsError("not a number", where=where, found=str(value)) from error
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or exact.adjusted() > _HIGHEST or exponent < _LOWEST:
        raise ResultsError("number without a decimal text", where=where, found=str(value))
    return format(exact, "f")


def is_number(value: object) -> bool:
    """Say whether a JSON value is a number."""
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def table(value: object, where: str) -> dict[str, Any]:
    """Return an object.

    Raises:
        ResultsError: it is something else.
    """
    if not isinstance(value, dict):
        raise ResultsError("not an object", where=where, found=type(value).__name__)
    return value


def rows(value: object, where: str) -> list[Any]:
    """Return a list.

    Raises:
        ResultsError: it is something else.
    """
    if not isinstance(value, list):
        raise ResultsError("not a list", where=where, found=type(value).__name__)
    return value


def name(value: object, where: str) -> str:
    """Return a name: text of 1 to 512 characters.

    Raises:
        ResultsError: it is none.
    """
    found = word(value, where)
    if not found:
        raise ResultsError("a name is missing", where=where)
    return found


def word(value: object, where: str) -> str:
    """Return what may be absent, as text; numbers as they stand.

    Raises:
        ResultsError: it is a list, an object, or longer than 512 characters.
    """
    if value is None:
        return ""
    if isinstance(value, (dict, list, bool)) or len(str(value)) > _MAX_NAME:
        raise ResultsError("not a name", where=where, found=printable(str(value)))
    return str(value)


def count(value: object) -> int | None:
    """Return a number of samples, where it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def get(value: object, *path: str) -> Any:  # noqa: ANN401
    """Return what lies at a path of keys; None where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
