"""Parents fetched from where a lineage says that they are; what they are is said by their root alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from parentage.manifest.errors import ParentageError, UsageError
from parentage.manifest.hashing import Progress
from parentage.manifest.lineage import Lineage, Parent
from parentage.verify.sources import spool
from parentage.verify.sources.place import parse_place
from parentage.verify.verdict import Finding, finding


def fetched_parents(
    lineage: Lineage, given: Iterable[str | None], *, progress: Progress | None = None
) -> tuple[list[tuple[str, Path]], list[Finding]]:
    """Bring the parents that were not given by id; of those that can't be had, say why.

    Args:
        lineage: whose signature verified.
        given: ids of parents that are at hand.
        progress: told of the bytes fetched.

    Returns:
        Ids and folders, and notes.
    """
    found: list[tuple[str, Path]] = []
    notes: list[Finding] = []
    known = set(given)
    for parent in lineage.parents:
        if parent.id in known:
            continue
        try:
            if not parent.uri:
                raise UsageError("the lineage does not say where it is")
            place = parse_place(parent.uri)
            found.append((parent.id, spool.bring(place, spool.weights, progress=progress)))
        except ParentageError as error:
            notes.append(_unreachable(parent, error))
    return found, notes


def _unreachable(parent: Parent, error: ParentageError) -> Finding:
    return finding(
        "parent-unreachable",
        f"can't fetch parent {parent.id}: {error.what}",
        refutes=False,
        where=parent.uri,
        expected=error.expected,
        found=error.found,
        hint=error.hint or f"give its weights: --parent {parent.id}=FOLDER",
    )
