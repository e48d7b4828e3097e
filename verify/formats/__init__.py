"""Report formats: each name, and the file here that makes text of a `Shown`.

To add one: a file with `render(shown) -> str`, and a line in the table. A file is imported when it is
first asked for text.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from parentage.verify.showing import Shown


def _in(name: str) -> Callable[[Shown], str]:
    def render(shown: Shown) -> str:
        text: str = import_module(f"{__name__}.{name}").render(shown)
        return text

    return render


FORMATS: Final[dict[str, Callable[[Shown], str]]] = {
    "human": _in("human"),
    "json": _in("document"),
    "sarif": _in("sarif"),
    "junit": _in("junit"),
    "markdown": _in("markdown"),
    "github": _in("github"),
    "gitlab": _in("gitlab"),
    "quiet": _in("quiet"),
}
