"""Parents found by the root of their weights, whatever they are called and wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from parentage.manifest import digest
from parentage.manifest.digest import Profile
from parentage.manifest.errors import ParentageError
from parentage.manifest.gathering import Gathering
from parentage.manifest.hashing import Progress, hash_model
from parentage.manifest.lineage import Parent
from parentage.manifest.model import Model
from parentage.manifest.wire import DigestSet
from parentage.verify.sources.cached import name_of, place_of
from parentage.verify.verdict import Finding, finding
from parentage.verify.weights import is_pickled, open_weights

if TYPE_CHECKING:
    from parentage.verify.values import FileSource


class Candidate(msgspec.Struct, dict=True):
    """Weights that the verifier was given.

    Attributes:
        place: where it lies (the path's last part).
        model: its files, open.
        roots: its weights roots.
        wanted: the parent id that it was given for, if any.
        suspect: given only to look for hidden merges.
        gathering: where its roots are those of the parent that it was given for, to be confirmed by
            digests of what is read from it.
        label: how reports name it: its place, or the parent's id once it is matched.
    """

    place: str
    model: Model
    roots: dict[Profile, str]
    wanted: str | None = None
    suspect: bool = False
    gathering: Gathering | None = None
    label: str = ""

    def __post_init__(self) -> None:
        """Name it by its place, until it is matched."""
        self.label = self.label or self.place

    @cached_property
    def source(self) -> FileSource:
        """Its tensors as values. Only this needs torch: hashing and matching go on without it."""
        from parentage.verify.values import FileSource

        return FileSource(self.model, self.gathering)

    def confirm(self, threads: int | None) -> bool:
        """Digest what was not read yet, take the roots that result, and say whether they are the same."""
        if self.gathering is None:
            return True
        profiles = self.gathering.profiles
        found = hash_model(self.model, profiles=profiles, threads=threads, gathered=self.gathering)
        same = same_root(self.roots, found.roots)
        self.roots, self.gathering = found.roots, None
        if not same:
            self.label = self.place
        if "source" in vars(self):
            self.source.gathering = None
        return same


class AnotherError(Exception):
    """Weights that were given for a parent are not that parent, which nobody had looked at so far."""


class Parents(msgspec.Struct):
    """Declared parents that were found, and what was said of the others."""

    found: dict[str, Candidate] = msgspec.field(default_factory=dict)
    missing: list[str] = msgspec.field(default_factory=list)
    notes: list[Finding] = msgspec.field(default_factory=list)


def load(
    parents: Sequence[tuple[str | None, Path]],
    against: Sequence[Path],
    *,
    stack: ExitStack,
    profiles: Sequence[Profile] = (digest.B3,),
    threads: int | None = None,
    progress: Progress | None = None,
    assumed: Mapping[str, DigestSet] | None = None,
) -> tuple[list[Candidate], list[Finding]]:
    """Open and digest all weights that were given; `stack` closes them. Unreadable ones are noted.

    Those given for an id in `assumed` are taken to have its roots, until `confirm` has digested them.
    """
    candidates: list[Candidate] = []
    notes: list[Finding] = []
    wanted = [(name, path, False) for name, path in parents]
    for name, path, suspect in [*wanted, *((None, path, True) for path in against)]:
        try:
            model = stack.enter_context(open_weights(path))
            if name is not None and assumed and name in assumed and not is_pickled(path):
                gathering = Gathering(model, profiles, progress)
                roots: dict[Profile, str] = dict(assumed[name])
            else:
                gathering = None
                found = hash_model(model, profiles=profiles, threads=threads, progress=progress)
                roots = found.roots
        except ParentageError as error:
            notes.append(unreadable(path, error))
            continue
        if is_pickled(path):
            notes.append(_pickled(path))
        place = place_of(path)
        label = str(place) if place is not None else path.name or str(path)
        candidates.append(Candidate(label, model, roots, name, suspect, gathering))
    return candidates, notes


def confirm(given: Sequence[Candidate], threads: int | None) -> None:
    """Digest what is left of weights whose roots were assumed.

    Raises:
        AnotherError: some are others. All have their own roots from here on.
    """
    same = [candidate.confirm(threads) for candidate in given]
    if not all(same):
        raise AnotherError


def match(declared: Sequence[Parent], given: Sequence[Candidate]) -> Parents:
    """Match what was given to the declared parents, by root; an id given with it must agree."""
    result = Parents()
    for candidate in given:
        hits = [p for p in declared if same_root(p.weights, candidate.roots)]
        for parent in hits:
            result.found.setdefault(parent.id, candidate)
        agrees = bool(hits) and (
            candidate.wanted is None or candidate.wanted in {p.id for p in hits}
        )
        if not agrees and not candidate.suspect:
            result.notes.append(_another(declared, candidate))
    result.missing = [parent.id for parent in declared if parent.id not in result.found]
    return result


def _another(declared: Sequence[Parent], candidate: Candidate) -> Finding:
    name = candidate.wanted
    wanted = next((p for p in declared if p.id == name), None)
    return finding(
        "parent-is-another",
        f"{candidate.label} is not the declared parent{f' {name}' if name else ''}",
        refutes=False,
        where=candidate.label,
        expected=str(dict(wanted.weights)) if wanted else "one of the declared parents' roots",
        found=str(dict(candidate.roots)),
        hint="give the weights with the declared root, or --against them to look for a hidden merge",
    )


def _pickled(path: Path) -> Finding:
    return finding(
        "read-from-pickle",
        "these weights are a pickle: torch.load(weights_only=True) read its tensors, and passed over the rest",
        refutes=False,
        where=name_of(path),
    )


def unreadable(path: Path, error: ParentageError) -> Finding:
    """Return the note on given weights that can't be read."""
    return finding(
        "parent-unreadable",
        f"can't read the parent's weights: {error.what}",
        refutes=False,
        where=f"{name_of(path)}: {error.where}",
        expected=error.expected,
        found=error.found,
    )


def same_root(declared: Mapping[Profile, str], found: Mapping[Any, str]) -> bool:
    """Say whether two sets of roots name the same weights: all shared profiles agree, and one is."""
    shared = declared.keys() & found.keys()
    return bool(shared) and all(declared[profile] == found[profile] for profile in shared)
