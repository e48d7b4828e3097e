"""Report formats: each name, and the file here that makes text of a `Shown`.

To add one: a file with `render(shown) -> str`, and a line in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from parentage.verify.formats import (
    document,
    github,
    gitlab,
    human,
    junit,
    markdown,
    quiet,
    sarif,
)
from parentage.verify.showing import Shown

FORMATS: Final[dict[str, Callable[[Shown], str]]] = {
    "human": human.render,
    "json": document.render,
    "sarif": sarif.render,
    "junit": junit.render,
    "markdown": markdown.render,
    "github": github.render,
    "gitlab": gitlab.render,
    "quiet": quiet.render,
}
