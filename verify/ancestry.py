"""Where the parents come from: their own claims, followed to the depth that the policy sets.

A parent is recognised by the weights root that its own signed lineage states; its bytes are not looked at
here. A parent that is signed as a model and has no lineage is recognised by hashing it, and leads no
further. Rings are refused by name: weights can't be made from what was made from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from parentage.attest import oms
from parentage.attest.claims import choose_lineage, read_claims
from parentage.attest.heard import Signature
from parentage.attest.opening import Opened
from parentage.attest.roles import Believed, persons
from parentage.attest.standing import Standing, standing
from parentage.attest.statements.shared import About, sha256
from parentage.manifest.errors import MalformedError, ParentageError, UnsignedError
from parentage.manifest.files import FileSet, open_files
from parentage.manifest.hashing import hash_model
from parentage.manifest.lineage import Lineage, Parent
from parentage.manifest.model import model_of
from parentage.manifest.wire import DigestSet
from parentage.verify.parents import same_root
from parentage.verify.report import Ancestor, signed_by
from parentage.verify.signed import open_signature
from parentage.verify.verdict import Finding, denial, finding


class Kin(msgspec.Struct):
    """A release further up, as far as its claims could be opened.

    Attributes:
        label: its folder's name.
        why: what is wrong with its claims; empty: they verified.
        weights: root, as its signer states it, or as it was hashed.
        opened: the lineage, or model.sig where there is none.
        lineage: None: there is none.
        stands: where it stands.
    """

    label: str
    why: str = ""
    weights: DigestSet = msgspec.field(default_factory=dict)
    opened: Opened | None = None
    lineage: Lineage | None = None
    stands: Standing = Standing()

    @property
    def payload(self) -> str:
        """What it is known by."""
        return sha256(self.opened.payload) if self.opened is not None else ""


class Family(msgspec.Struct):
    """What following the parents' claims showed.

    Attributes:
        findings: denials, rings and notes.
        followed: ids of the release's own parents whose claims verified.
        ancestors: all of those that were reached.
    """

    findings: list[Finding] = msgspec.field(default_factory=list)
    followed: set[str] = msgspec.field(default_factory=set)
    ancestors: list[Ancestor] = msgspec.field(default_factory=list)


class _At(msgspec.Struct, frozen=True):
    """A place on the way up: names, roots and payloads from the release to here."""

    names: tuple[str, ...]
    roots: tuple[DigestSet, ...]
    payloads: tuple[str, ...]


def follow(
    lineage: Lineage,
    payload: str,
    name: str,
    folders: Sequence[Path],
    believed: Believed,
    now: datetime,
    *,
    hashing: bool,
) -> Family:
    """Follow the claims of a release's parents.

    Args:
        lineage: of the release.
        payload: SHA-256 of its statement.
        name: of the release, for people.
        folders: releases further up, in any order.
        believed: whom, and how far.
        now: the time that statuses are judged at.
        hashing: whether parents without a lineage may be hashed.
    """
    family = Family()
    if believed.parents.depth == 0 or not lineage.parents:
        return family
    theirs = believed.of_parents()
    profiles = sorted({profile for parent in lineage.parents for profile in parent.weights})
    kin = [_open(path, theirs, now, profiles if hashing else []) for path in folders]
    start = _At((name,), (lineage.weights.root,), (payload,))
    done: dict[str, int] = {}
    _up(family, lineage, start, believed.parents.depth, kin, believed, done)
    return family


def _up(
    family: Family,
    lineage: Lineage,
    at: _At,
    depth: int,
    kin: Sequence[Kin],
    believed: Believed,
    done: dict[str, int],
) -> None:
    for parent in lineage.parents:
        found = _find(parent, kin, at)
        names = (*at.names, parent.id)
        ring = _ring(parent, at)
        if ring:
            family.findings.append(_in_a_ring(ring))
            continue
        if found is None or found.why:
            _unsigned(family, parent, names, found, kin, believed)
            continue
        if len(at.names) == 1:
            family.followed.add(parent.id)
        if done.get(found.payload, 0) >= depth:
            continue
        done[found.payload] = depth
        _meet(family, parent, names, found, believed)
        if depth > 1 and found.lineage is not None:
            here = _At(names, (*at.roots, parent.weights), (*at.payloads, found.payload))
            _up(family, found.lineage, here, depth - 1, kin, believed, done)


def _find(parent: Parent, kin: Sequence[Kin], at: _At) -> Kin | None:
    """Return the release with the parent's weights: the one whose lineage the child names, if there is."""
    hits = [
        one
        for one in kin
        if same_root(parent.weights, one.weights) and one.payload not in at.payloads
    ]
    pinned = (parent.lineage or {}).get("sha256")
    hits.sort(key=lambda one: (one.payload != pinned, bool(one.why)))
    return hits[0] if hits else None


def _ring(parent: Parent, at: _At) -> tuple[str, ...]:
    """Return the names of a ring that a parent closes; empty: it closes none.

    The same weights twice in a row are a copy, which is no ring.
    """
    names = (*at.names, parent.id)
    copied = len(at.roots)
    while copied and same_root(parent.weights, at.roots[copied - 1]):
        copied -= 1
    for place in range(copied):
        if same_root(parent.weights, at.roots[place]):
            return names[place:]
    return ()


def _in_a_ring(names: tuple[str, ...]) -> Finding:
    return finding(
        "lineage-ring",
        "the claims go in a ring: these weights are said to be made from what was made from them",
        where=f"{names[0]} = " * (names[0] != names[-1]) + " -> ".join(reversed(names)),
        expected="parents that come before their children",
    )


def _unsigned(
    family: Family,
    parent: Parent,
    names: tuple[str, ...],
    found: Kin | None,
    kin: Sequence[Kin],
    believed: Believed,
) -> None:
    rule = believed.parents.unsigned
    if rule == "ignore":
        return
    # Claims that could not be opened have no root to be matched by: any of them may be meant.
    broken = [f"{one.label}: {one.why}" for one in kin if one.why and not one.weights]
    why = f"{found.label}: {found.why}" if found is not None else "; ".join(broken)
    family.findings.append(
        denial(
            "parent-unsigned",
            f"who made the parent {parent.id} is the child's word alone",
            denies=rule == "fail",
            where=" <- ".join(reversed(names)),
            expected="claims by a signer whom the policy lists for parents",
            found=why or "no folder with such claims was given",
            hint="--parent FOLDER or --ancestor FOLDER, signed; parents: {any: [...]} in the policy",
        )
    )


def _meet(
    family: Family, parent: Parent, names: tuple[str, ...], found: Kin, believed: Believed
) -> None:
    rule, where = believed.parents, " <- ".join(reversed(names))
    pinned = (parent.lineage or {}).get("sha256")
    opened = found.opened
    family.ancestors.append(
        Ancestor(
            id=parent.id,
            path=where,
            signer=signed_by(opened.signer) if opened is not None else None,
            payload=found.payload,
            has_lineage=found.lineage is not None,
            state=found.stands.state,
        )
    )
    if pinned is not None and pinned != found.payload:
        family.findings.append(
            denial(
                "parent-lineage",
                f"the parent {parent.id} carries another lineage than the child names",
                denies=False,
                where=where,
                expected=pinned,
                found=found.payload,
            )
        )
    if found.lineage is None and "lineage" in rule.require:
        family.findings.append(
            denial(
                "parent-lineage",
                f"the policy demands a lineage of the parent {parent.id}",
                where=where,
                found="a model signature alone",
            )
        )
    family.findings += _inherited(parent, where, found, on_withdrawn=rule.on_withdrawn)


def _inherited(parent: Parent, where: str, found: Kin, *, on_withdrawn: str) -> list[Finding]:
    """Return what a child inherits from where its parent stands."""
    stands = found.stands
    unread = any(problem.code == "status-unreadable" for problem in stands.problems)
    if stands.state in {"unknown", "current"} and not unread:
        return []
    state = "unreadable" if unread else stands.state
    return [
        denial(
            f"parent-{state}",
            f"the parent {parent.id} is {state}: {stands.reason or 'see its claims'}",
            denies=on_withdrawn == "fail" and state != "superseded",
            where=where,
            expected="a parent that stands",
            found=stands.statement,
        )
    ]


def _open(path: Path, believed: Believed, now: datetime, profiles: Sequence[str]) -> Kin:
    """Open the claims of a release further up; whatever is wrong with them is said, not raised."""
    kin = Kin(path.name or str(path))
    try:
        with open_files(path) as files:
            signature = open_signature(files, believed)
            claims = read_claims(files, believed)
            try:
                found = choose_lineage(files, signature, claims)
            except UnsignedError:
                _by_hash(kin, files, signature, profiles)
                return kin
            kin.opened, kin.lineage = found.opened, found.lineage
            kin.weights = found.lineage.weights.root
            about = About(kin.payload, signature.statement.subjects[0].sha256)
            times = [o.time for o in (signature, found.opened) if o.time is not None]
            signed = Signature(persons([signature.signer]), max(times) if len(times) == 2 else None)
            kin.stands = standing(about, signed, claims.opened, believed, now)
    except ParentageError as error:
        kin.why = f"{error.what}{f' ({error.found})' if error.found else ''}"
    return kin


def _by_hash(kin: Kin, files: FileSet, signature: Opened, profiles: Sequence[str]) -> None:
    """Recognise weights that are signed as files alone: by comparing the files, and hashing the tensors."""
    if not profiles:
        kin.why = "signed without a lineage, and not hashed at --level integrity"
        return
    signed = oms.parse(signature.statement)
    oms.require_plain(signed)
    model = model_of(files)
    names = sorted(model.headers)
    digests = hash_model(model, profiles=profiles, files=names)  # type: ignore[arg-type]  # a lineage's
    for name in names:
        if digests.files[name] != signed.resources.get(name):
            raise MalformedError("file is not the signed one", where=name)
    kin.opened, kin.weights = signature, dict(digests.roots)
