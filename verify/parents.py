"""Parents found by the root of their weights, whatever they are called and wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from parentage.manifest import digest
from parentage.manifest.digest import Profile
from parentage.manifest.errors import ParentageError
from parentage.manifest.hashing import Progress, hash_model
from parentage.manifest.lineage import Parent
from parentage.manifest.model import Model, open_model
from parentage.verify.sources import FileSource
from parentage.verify.verdict import Finding, finding


@dataclass(slots=True)
class Candidate:
    """Weights that the verifier was given.

    Attributes:
        label: how reports name it (parent id once matched, else the path's last part).
        source: its tensors.
        roots: its weights roots.
    """

    label: str
    source: FileSource
    roots: dict[Profile, str]


@dataclass(slots=True)
class Parents:
    """Declared parents that were found, and what was said of the others."""

    found: dict[str, Candidate] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)


def load(
    path: Path,
    *,
    profiles: Sequence[Profile] = (digest.B3,),
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Model, Candidate]:
    """Open and digest weights; the caller closes the model."""
    model = open_model(path)
    try:
        found = hash_model(model, profiles=profiles, threads=threads, progress=progress)
    except BaseException:
        model.files.close()
        raise
    return model, Candidate(path.name or str(path), FileSource(model), found.roots)


def match(declared: Sequence[Parent], given: Sequence[tuple[str | None, Candidate]]) -> Parents:
    """Match what was given to the declared parents, by root; an id given with it must agree."""
    result = Parents()
    for wanted_id, candidate in given:
        hits = [p for p in declared if _same(p.weights, candidate.roots)]
        for parent in hits:
            result.found.setdefault(parent.id, candidate)
        if hits and (wanted_id is None or wanted_id in {p.id for p in hits}):
            continue
        wanted = next((p for p in declared if p.id == wanted_id), None)
        expected = str(dict(wanted.weights)) if wanted else "one of the declared parents' roots"
        result.notes.append(
            finding(
                "parent-is-another",
                f"{candidate.label} is not the declared parent{f' {wanted_id}' if wanted_id else ''}",
                refutes=False,
                where=candidate.label,
                expected=expected,
                found=str(dict(candidate.roots)),
                hint="give the weights with the declared root, or --against them to look for a hidden merge",
            )
        )
    result.missing = [parent.id for parent in declared if parent.id not in result.found]
    return result


def unreadable(path: Path, error: ParentageError) -> Finding:
    """Return the note on given weights that can't be read."""
    return finding(
        "parent-unreadable",
        f"can't read the parent's weights: {error.what}",
        refutes=False,
        where=f"{path}: {error.where}",
        expected=error.expected,
        found=error.found,
    )


def _same(declared: dict[Profile, str], found: dict[Profile, str]) -> bool:
    shared = declared.keys() & found.keys()
    return bool(shared) and all(declared[profile] == found[profile] for profile in shared)
