"""Where fetched files are kept, and which repository a folder there holds.

<cache>/hub/<host>-<8 hex of the endpoint>/<org>--<name>/<commit>/…       the files
                                                        /<commit>.json    the Hub's list of them
                                                        /<commit>.parts/  what is not whole yet
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from parentage.verify.sources.place import HubPlace


def root() -> Path:
    """Return where fetched files are kept: PARENTAGE_CACHE, else the user's cache folder."""
    own = os.environ.get("PARENTAGE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "parentage"


def folder_of(place: HubPlace, endpoint: str) -> Path:
    """Return where the files of a repository at a commit are kept."""
    host = (urlsplit(endpoint).netloc or "hub").replace(":", "_")
    mark = hashlib.sha256(endpoint.encode()).hexdigest()[:8]
    return root() / "hub" / f"{host}-{mark}" / place.repo.replace("/", "--") / place.revision


def place_of(folder: Path) -> HubPlace | None:
    """Return which repository a folder of this cache holds; None: it is no such folder."""
    try:
        parts = folder.absolute().relative_to((root() / "hub").absolute()).parts
    except ValueError:
        return None
    # No name has "--" in it, so this reads one way only.
    org, split, name = parts[1].partition("--") if len(parts) == 3 else ("", "", "")
    found = HubPlace(f"{org}/{name}", parts[2]) if split else None
    return found if found is not None and found.is_pinned else None


def name_of(path: Path) -> str:
    """Return how reports call a path: by the place that it was fetched from, if it was."""
    place = place_of(path)
    return str(place) if place is not None else str(path)
