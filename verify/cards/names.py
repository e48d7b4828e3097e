"""How one repository is called in a card, a manifest, an adapter's config and a tag."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from parentage.manifest.lineage import Lineage

_REPO: Final = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_COMMIT: Final = re.compile("[0-9a-f]{40}")
_PURL: Final = "pkg:huggingface/"
_HF: Final = "hf://"
_URLS: Final = ("https://huggingface.co/", "https://hf.co/")


class Locator(msgspec.Struct, frozen=True):
    """A repository of a Hub, and a revision of it.

    Attributes:
        repo: "org/name" in small letters: the Hub tells no other two apart.
        revision: as it stands; empty: none is named.
    """

    repo: str
    revision: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit."""
        return _COMMIT.fullmatch(self.revision) is not None


class Named(msgspec.Struct, frozen=True):
    """A parent of the manifest, and where it is found.

    Attributes:
        id: that the recipe calls it by.
        license: that the manifest gives it.
        at: repository and revision; None: the manifest names none on a Hub.
    """

    id: str
    license: str
    at: Locator | None


def locator(text: str) -> Locator | None:
    """Read a package URL, an `hf://` place, a Hub address or an id; None: a path, or no repository."""
    rest = text.strip()
    for prefix in (_PURL, _HF, *_URLS):
        rest = rest.removeprefix(prefix)
    rest, _, _ = rest.partition("?")
    repo, _, revision = rest.partition("@")
    return Locator(repo.lower(), revision) if _REPO.fullmatch(repo) else None


def parents_of(lineage: Lineage) -> tuple[Named, ...]:
    """Return the parents of a manifest with their places."""
    return tuple(Named(p.id, p.license, locator(p.uri)) for p in lineage.parents)


def texts(value: Any) -> list[str]:  # noqa: ANN401  (a YAML value)
    """Return what is a text or a list of texts in YAML as a list; anything else in it is passed over."""
    listed = value if isinstance(value, list) else [value]
    return [item for item in listed if isinstance(item, str) and item.strip()]
