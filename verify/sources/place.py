"""Names of places: `hf://org/name@revision` and `pkg:huggingface/org/name@revision`; the rest are paths.

A place is where weights may be found, never what they are: the weights root is the identity (DESIGN 2).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from parentage.manifest.errors import UsageError

SCHEMES: Final = ("hf://", "pkg:huggingface/")
#: huggingface_hub's rule for names (utils/_validators.py): no "--" or "..", 96 characters a part.
_PART: Final = re.compile(
    r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9._-]{0,94}[A-Za-z0-9_]|[A-Za-z0-9_]"
)
#: git-check-ref-format, narrowed: nothing that a URL or a shell would read otherwise.
_REVISION: Final = re.compile(r"(?!.*(\.\.|//|@\{))[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT: Final = re.compile("[0-9a-f]{40}")


class HubPlace(msgspec.Struct, frozen=True):
    """A repository of a Hub, and which state of it.

    Attributes:
        repo: "org/name".
        revision: a branch, tag, "refs/pr/3" or commit; empty: `main`.
    """

    repo: str
    revision: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which can't be moved."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubPlace:
        """Return the same repository at a commit."""
        return HubPlace(self.repo, commit)

    @property
    def purl(self) -> str:
        """Its package URL, as lineages write it."""
        return f"pkg:huggingface/{self.repo}" + (f"@{self.revision}" if self.revision else "")

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_place(text: str) -> bool:
    """Say whether a text names a place rather than a path."""
    return text.startswith(SCHEMES)


def parse_place(text: str) -> HubPlace:
    """Read the name of a place.

    Raises:
        UsageError: another scheme, or no name of a repository or revision.
    """
    scheme = next((scheme for scheme in SCHEMES if text.startswith(scheme)), None)
    rest = text.removeprefix(scheme or "")
    repo, at, revision = rest.partition("@")
    parts = repo.split("/")
    named = len(parts) == 2 and all(_PART.fullmatch(part) for part in parts)
    if scheme is None or not named or (at and not _REVISION.fullmatch(revision)):
        raise UsageError(
            "not a repository of a Hub",
            expected="hf://org/name or hf://org/name@revision",
            found=text,
        )
    return HubPlace(repo, revision)
