"""What checks look at: gathered while a release's files are open, so that what was hashed is what is judged."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from parentage.attest.bundle import CLAIMS, MODEL_SIG
from parentage.attest.coverage import DEFAULT_IGNORES, is_ignored
from parentage.manifest import canonical
from parentage.manifest.card import MAX_CARD, README, read_card
from parentage.manifest.errors import MalformedError
from parentage.manifest.files import FileSet, OpenFile
from parentage.manifest.lineage import Lineage
from parentage.verify.claimed import Claimed
from parentage.verify.gates.policy import Rules
from parentage.verify.report import Report
from parentage.verify.sources.remote_files import RemoteFile

#: Bytes at the start of a file that are looked at.
HEAD: Final = 1024
_MAX_CONFIG: Final = 4 << 20
#: What has transformers load classes from a repository, this one or another.
_CODE: Final = frozenset({"auto_map", "custom_pipelines"})
#: Where sentence-transformers lists classes; those that are not its own are imported from anywhere.
_MODULES: Final = "modules.json"
_OWN_MODULES: Final = "sentence_transformers."
#: Large files whose beginnings are asked of a Hub.
_MOST_REQUESTS: Final = 256


class FileFact(msgspec.Struct, frozen=True, kw_only=True):
    """One file.

    Attributes:
        size: bytes.
        head: its first bytes.
        is_weights: whether tensors of the table are in it.
        is_ignored: whether the signer left it out, beyond what everyone does.
        asks_for_code: whether it is a config that names code to run; None: it can't be read.
    """

    size: int
    head: bytes
    is_weights: bool = False
    is_ignored: bool = False
    asks_for_code: bool | None = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a check may ask.

    Attributes:
        rules: of the gate.
        report: of the verification.
        files: by name; None: the folder could not be opened.
        lineage: as signed; None: no signature verified.
        licence: that the card gives the release; empty: none.
        unread: files whose beginnings were not read.
    """

    rules: Rules
    report: Report
    files: dict[str, FileFact] | None
    lineage: Lineage | None
    licence: str
    unread: int = 0


class Gathered(msgspec.Struct, frozen=True):
    """What was seen of the files."""

    files: dict[str, FileFact]
    lineage: Lineage | None
    licence: str
    unread: int


def gather(files: FileSet, claimed: Claimed) -> Gathered:
    """Look at the files of a release whose signature verified.

    Raises:
        HubError: they are on a Hub, and a subclass names what is in the way.
    """
    own = frozenset(claimed.oms.ignore_paths) - frozenset(DEFAULT_IGNORES)
    return _gathered(files, frozenset(claimed.table.files), own, claimed.found.lineage)


def gather_unsigned(files: FileSet) -> Gathered:
    """Look at files that nobody's signature covers, to say what else is wrong."""
    return _gathered(files, frozenset(), frozenset(), None)


def _gathered(
    files: FileSet, weights: frozenset[str], ignores: frozenset[str], lineage: Lineage | None
) -> Gathered:
    found: dict[str, FileFact] = {}
    asked = unread = 0
    for name, file in sorted(files.files.items()):
        if name in {MODEL_SIG, CLAIMS}:
            continue
        # Weights were read by their format; on a Hub, every other large file's beginning is a request.
        reads = name not in weights
        if reads and isinstance(file, RemoteFile) and not file.is_whole:
            asked += 1
            reads = asked <= _MOST_REQUESTS
            unread += not reads
        found[name] = FileFact(
            size=file.size,
            head=file.read_at(0, min(HEAD, file.size)) if reads else b"",
            is_weights=name in weights,
            is_ignored=is_ignored(name, ignores),
            asks_for_code=_asks_for_code(file, reads=reads),
        )
    return Gathered(found, lineage, _licence(files), unread)


def _asks_for_code(file: OpenFile, *, reads: bool) -> bool | None:
    name = file.name
    if not name.endswith(("config.json", "model_index.json", _MODULES)):
        return False
    if file.size > _MAX_CONFIG or not reads:
        return None
    try:
        document = canonical.loads(
            file.read_small(_MAX_CONFIG), where=name, max_bytes=_MAX_CONFIG, floats=True
        )
    except MalformedError:
        return None
    return _names_code(document) or (name.endswith(_MODULES) and _names_modules(document))


def _names_code(document: Any) -> bool:  # noqa: ANN401  (JSON)
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if _CODE & value.keys():
                return True
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


def _names_modules(document: Any) -> bool:  # noqa: ANN401  (JSON)
    entries = document if isinstance(document, list) else [document]
    named = [entry.get("type") if isinstance(entry, dict) else None for entry in entries]
    return not all(isinstance(kind, str) and kind.startswith(_OWN_MODULES) for kind in named)


def _licence(files: FileSet) -> str:
    if README not in files.files:
        return ""
    try:
        matter = read_card(files.files[README].read_small(MAX_CARD)).matter
    except MalformedError:
        return ""
    found = matter.get("license")
    if found == "other":
        found = matter.get("license_name") or found
    if isinstance(found, list):
        found = " AND ".join(map(str, found))
    return found if isinstance(found, str) else ""
