"""The small files of a release that are compared with its manifest; weights are not opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from parentage.manifest import canonical
from parentage.manifest.errors import FileSetError, UsageError
from parentage.manifest.files import FileSet, allowed_roots, open_one

ADAPTER: Final = "adapter_config.json"
CONFIG: Final = "config.json"
MERGEKIT: Final = "mergekit_config.yml"
SCORES: Final = ".eval_results"
_SMALL: Final = 1 << 20
_MAX_SCORES: Final = 256


class Folder:
    """A release on disk, read file by file; links lead nowhere that a release's may not."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError("no such folder", where=str(root))
        self.root = root
        self._allowed = allowed_roots(root)

    def has(self, name: str) -> bool:
        """Say whether there is such a file."""
        return (self.root / name).is_file()

    def read(self, name: str, limit: int = _SMALL) -> bytes | None:
        """Return a file's bytes; None where there is none.

        Raises:
            FileSetError: larger than `limit`, a special file, or a link out of the release.
        """
        if not self.has(name):
            return None
        with self.open(name) as files:
            return files.files[name].read_small(limit)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return a JSON object; None where there is no such file.

        Raises:
            FileSetError, JsonError: too large, not strict JSON, or no object.
        """
        data = self.read(name)
        if data is None:
            return None
        document = canonical.loads(data, where=name, floats=True)
        if not isinstance(document, dict):
            raise FileSetError("not a JSON object", where=name)
        return document

    def open(self, *names: str) -> FileSet:
        """Open those of these files that are there."""
        opened = FileSet(self.root)
        try:
            for name in names:
                if self.has(name):
                    opened.files[name] = open_one(name, self.root / name, self._allowed)
        except BaseException:
            opened.close()
            raise
        return opened

    def sizes(self, names: Mapping[str, object]) -> dict[str, int]:
        """Return the size of each of these files that is there."""
        return {n: (self.root / n).stat().st_size for n in names if self.has(n)}

    def score_files(self) -> list[str]:
        """Return the names of the Hub's result files, sorted.

        Raises:
            FileSetError: too many.
        """
        folder = self.root / SCORES
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            names = [f"{SCORES}/{e.name}" for e in entries if e.name.endswith((".yaml", ".yml"))]
        if len(names) > _MAX_SCORES:
            raise FileSetError("too many files", where=SCORES, expected=f"<= {_MAX_SCORES}")
        return sorted(names)
