"""`parentage.lock`: what was seen of a release the last time, so that it can't be exchanged unannounced.

Canonical: the same memory is the same bytes, so that a lock file can be kept in git. The rules:

- A release that is not known is recorded (trust on first use).
- The same files under the same lineage must have all signers that they had, and all that was said of them
  by those who may say it: nothing is unsaid.
- Other files, or another lineage, must be announced: by a status of the remembered release that holds
  now, says `superseded` and names the new one; by those who may say it of the remembered release.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from parentage.attest.claims import Claim
from parentage.attest.disputes import Problem
from parentage.attest.heard import DEPUTIES, Signature, Word
from parentage.attest.roles import Believed
from parentage.attest.standing import Standing, State, standing
from parentage.attest.statements.shared import About
from parentage.manifest import atomic, canonical
from parentage.manifest.errors import JsonError, LockError
from parentage.manifest.wire import DigestSet, Hex, Wire

SCHEMA: Final = "https://parentage.dev/lock/v0.1"
MAX_LOCK: Final = 8 << 20
#: How many replacements in a row may lie between the remembered release and this one.
MAX_CHAIN: Final = 64
_Person = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class StatusSeen(Wire, frozen=True, kw_only=True):
    """Where the release stood when it was seen last; for people.

    Attributes:
        state: in words.
        sequence: of the status that held.
        payload: SHA-256 of its payload.
    """

    state: State
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    payload: Hex | None = None


class Entry(Wire, frozen=True, kw_only=True):
    """What is remembered of one release.

    Attributes:
        signers: persons who signed model.sig, sorted.
        model: digest of its subject.
        lineage: SHA-256 of the lineage's payload.
        weights: root of the weights.
        status: the one that held.
        words: all that was said by those who may say it, by payload: none of it may vanish.
    """

    signers: Annotated[tuple[_Person, ...], msgspec.Meta(min_length=1, max_length=64)]
    model: Hex
    lineage: Hex
    weights: DigestSet
    status: StatusSeen | None = None
    words: Annotated[tuple[Word, ...], msgspec.Meta(max_length=4096)] = ()


class Lock(Wire, frozen=True, kw_only=True):
    """The file."""

    schema: Literal["https://parentage.dev/lock/v0.1"]
    releases: dict[Annotated[str, msgspec.Meta(min_length=1, max_length=512)], Entry]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a comparison.

    Attributes:
        state: in words.
        entry: to be remembered from now on; None where the release is refused.
        problems: why it is refused.
    """

    state: Literal["first use", "as remembered", "replaced as announced", "refused"]
    entry: Entry | None = None
    problems: tuple[Problem, ...] = ()


def load(path: Path) -> Lock:
    """Read a lock file; where there is none, nothing is remembered.

    Raises:
        LockError: it is no lock file.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_LOCK + 1)
    except FileNotFoundError:
        return Lock(schema=SCHEMA, releases={})
    except OSError as error:
        raise LockError(f"can't read: {error.strerror}", where=str(path)) from error
    try:
        document = canonical.loads(data, where=str(path), max_bytes=MAX_LOCK)
        return msgspec.convert(document, Lock)
    except JsonError as error:
        raise LockError(f"not a lock file: {error.what}", where=str(path)) from error
    except msgspec.ValidationError as error:
        raise LockError(f"not a lock file: {error}", where=str(path)) from error


def dumps(lock: Lock) -> bytes:
    """Return the one spelling of a lock file: sorted, one field a line."""
    document: dict[str, Any] = msgspec.to_builtins(lock)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def remember(path: Path, name: str, before: Entry | None, after: Entry) -> bool:
    """Write what was seen of a release, unless it is what the file says already.

    Args:
        path: of the lock file.
        name: of the release.
        before: what the release was compared with.
        after: what is to be remembered.

    Returns:
        Whether the file changed.

    Raises:
        LockError: somebody else changed what is remembered of this release meanwhile.
        WriteFailedError: nothing was changed.
    """
    with atomic.alone(path.parent):
        lock = load(path)
        now = lock.releases.get(name)
        if now == after:
            return False
        if now != before:
            raise LockError(
                "what is remembered of this release changed while it was verified",
                where=f"{path}: {name}",
                hint="verify it again",
            )
        releases = {**lock.releases, name: after}
        atomic.write_bytes(path, dumps(Lock(schema=SCHEMA, releases=releases)))
        return True


def compare(
    before: Entry | None,
    seen: Entry,
    stands: Standing,
    claims: Sequence[Claim],
    believed: Believed,
    now: datetime,
) -> Compared:
    """Compare a release with what is remembered of it.

    Args:
        before: what is remembered.
        seen: what is there; status and words are taken from `stands`.
        stands: where the release stands.
        claims: verified lines.
        believed: who may announce a replacement.
        now: the time.
    """
    seen = msgspec.structs.replace(seen, status=_status_of(stands), words=stands.words)
    if before is None:
        return Compared(state="first use", entry=seen)
    if (before.model, before.lineage) == (seen.model, seen.lineage):
        problems = [*_signers(before, seen), *_unsaid(before, stands)]
        if problems:
            return Compared(state="refused", problems=tuple(problems))
        return Compared(state="as remembered", entry=seen)
    if _announced(before, seen, claims, believed, now):
        return Compared(state="replaced as announced", entry=seen)
    changed = _signers(before, seen) if not set(before.signers) & set(seen.signers) else []
    return Compared(state="refused", problems=(_unannounced(before, seen), *changed))


def vanished(before: Entry) -> Problem:
    """Return the refusal of a release that was signed and is not any more."""
    return Problem(
        code="signature-vanished",
        denies=True,
        message="this release was signed when it was seen last, and now it is not",
        expected=f"model.sig by {', '.join(before.signers)}",
        found="no signature",
    )


def _signers(before: Entry, seen: Entry) -> list[Problem]:
    missing = sorted(set(before.signers) - set(seen.signers))
    if not missing:
        return []
    changed = not set(before.signers) & set(seen.signers)
    return [
        Problem(
            code="signer-changed" if changed else "signature-vanished",
            denies=True,
            message="signed by somebody else than when it was seen last"
            if changed
            else "a signature that was there when it was seen last is gone",
            expected=", ".join(before.signers),
            found=", ".join(seen.signers),
        )
    ]


def _status_of(stands: Standing) -> StatusSeen | None:
    if stands.state == "unknown":
        return None
    return StatusSeen(state=stands.state, sequence=stands.sequence, payload=stands.payload or None)


def _unsaid(before: Entry, stands: Standing) -> list[Problem]:
    """Refuse an older state of the world: a status that was there, or as much authority for it, is gone."""
    now = {word.payload: word for word in stands.words}
    gone = [
        word
        for word in before.words
        if word.payload not in now or not now[word.payload].covers(word)
    ]
    if not gone:
        return []
    return [
        Problem(
            code="status-went-back",
            denies=True,
            message="what was said of this release when it was seen last is not here any more",
            expected=", ".join(word.payload for word in gone),
            found=f"{len(now)} others" if now else "nothing",
        )
    ]


def _announced(
    before: Entry, seen: Entry, claims: Sequence[Claim], believed: Believed, now: datetime
) -> bool:
    """Follow the announcements from the remembered release to this one."""
    owners = Signature(frozenset(before.signers))
    start = About(before.lineage, before.model)
    waiting, done = [start], {start}
    while waiting and len(done) <= MAX_CHAIN:
        at = waiting.pop()
        stands = standing(at, owners, claims, believed, now)
        if at == start and _unsaid(before, stands):
            return False
        # What the holder of a stolen key says of a successor is the thief's word; a deputy's is not.
        theft = stands.state == "compromised" and stands.by in DEPUTIES
        if stands.state != "superseded" and not theft:
            continue
        for new in stands.superseded_by:
            found = About(new.lineage, new.model)
            if found == About(seen.lineage, seen.model):
                return True
            if found not in done:
                done.add(found)
                waiting.append(found)
    return False


def _unannounced(before: Entry, seen: Entry) -> Problem:
    same_files = before.model == seen.model
    return Problem(
        code="unannounced-replacement",
        denies=True,
        message="the same files under another lineage, and no status announces it"
        if same_files
        else "other files than when it was seen last, and no status announces them",
        expected=f"model {before.model}, lineage {before.lineage}",
        found=f"model {seen.model}, lineage {seen.lineage}",
    )
