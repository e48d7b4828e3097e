"""The lock file: first use, what may change, what may not, and what can't be unsaid."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sayings import ABOUT, NEW, PEOPLE, ROOT, believed, claim, day, denied, said, stand, who

from parentage.attest import lock
from parentage.attest.claims import Claim
from parentage.attest.heard import Word
from parentage.attest.lock import Compared, Entry, StatusSeen, compare
from parentage.attest.policy import Role
from parentage.attest.roles import Believed, persons
from parentage.attest.statements.shared import About
from parentage.manifest.errors import LockError

PLAIN = believed(on_missing="ignore")
OWNER = tuple(persons([who("owner")]))
ENTRY = Entry(signers=OWNER, model=ABOUT.model, lineage=ABOUT.lineage, weights=ROOT)  # type: ignore[arg-type]
NEXT = msgspec.structs.replace(ENTRY, model=NEW.model, lineage=NEW.lineage)


def against(
    before: Entry | None, seen: Entry, claims: list[Claim], rules: Believed = PLAIN, on: int = 5
) -> Compared:
    from parentage.attest.heard import Signature
    from parentage.attest.standing import standing

    about = About(seen.lineage, seen.model)
    stands = standing(about, Signature(frozenset(seen.signers)), claims, rules, day(on))
    return compare(before, seen, stands, claims, rules, day(on))


def codes(found: Compared) -> list[str]:
    return [problem.code for problem in found.problems]


def test_first_use_is_recorded() -> None:
    found = against(None, ENTRY, [claim(said("current", 1), "owner", PLAIN)])

    assert (found.state, codes(found)) == ("first use", [])
    assert found.entry is not None
    assert found.entry.status is not None
    assert (found.entry.status.sequence, found.entry.status.state) == (1, "current")


def test_the_same_again() -> None:
    assert against(ENTRY, ENTRY, []).state == "as remembered"


def test_another_signer() -> None:
    other = msgspec.structs.replace(ENTRY, signers=tuple(persons([who("colleague")])))

    assert codes(against(ENTRY, other, [])) == ["signer-changed"]


def test_a_signature_that_is_gone() -> None:
    two = msgspec.structs.replace(
        ENTRY, signers=tuple(sorted(persons([who("owner"), who("colleague")])))
    )

    assert codes(against(two, ENTRY, [])) == ["signature-vanished"]
    assert against(ENTRY, two, []).state == "as remembered"


@pytest.mark.parametrize("field", ["model", "lineage"])
def test_a_replacement_that_nobody_announces(field: str) -> None:
    new = msgspec.structs.replace(ENTRY, **{field: "9" * 64})

    assert codes(against(ENTRY, new, [])) == ["unannounced-replacement"]


@pytest.mark.parametrize("name", [*PEOPLE, "stranger"])
def test_who_may_announce(name: str) -> None:
    """Those who may say the status of the remembered release."""
    found = against(ENTRY, NEXT, [claim(said("superseded", 1), name, PLAIN)])

    expected = "replaced as announced" if name in {"owner", "heir"} else "refused"
    assert found.state == expected


def test_an_announcement_of_something_else() -> None:
    other = msgspec.structs.replace(NEW, model="9" * 64)
    for payload in (
        said("superseded", 1, superseded_by=(other,)),
        said("superseded", 1, about=About("9" * 64, "8" * 64)),
        said("withdrawn", 1),
        said("current", 1),
    ):
        assert against(ENTRY, NEXT, [claim(payload, "owner", PLAIN)]).state == "refused"


def test_an_announcement_that_was_taken_back() -> None:
    claims = [
        claim(said("superseded", 1), "owner", PLAIN),
        claim(said("withdrawn", 2, on=1), "owner", PLAIN),
    ]

    assert against(ENTRY, NEXT, claims).state == "refused"
    assert against(ENTRY, NEXT, claims[:1]).state == "replaced as announced"


def test_another_signer_is_announced_with_the_replacement() -> None:
    new = msgspec.structs.replace(NEXT, signers=tuple(persons([who("colleague")])))

    assert (
        against(ENTRY, new, [claim(said("superseded", 1), "owner", PLAIN)]).state
        == "replaced as announced"
    )
    assert codes(against(ENTRY, new, [])) == ["unannounced-replacement", "signer-changed"]


def test_a_chain_of_replacements_is_followed() -> None:
    middle = msgspec.structs.replace(NEW, lineage="7" * 64, model="8" * 64)
    claims = [claim(said("superseded", 1, superseded_by=(middle,)), "owner", PLAIN),
              claim(said("superseded", 1, about=About("7" * 64, "8" * 64)), "owner", PLAIN)]  # fmt: skip

    assert against(ENTRY, NEXT, claims).state == "replaced as announced"
    assert against(ENTRY, NEXT, claims[1:]).state == "refused"


def test_a_ring_of_replacements_ends() -> None:
    back = msgspec.structs.replace(NEW, lineage=ABOUT.lineage, model=ABOUT.model)
    middle = msgspec.structs.replace(NEW, lineage="7" * 64, model="8" * 64)
    claims = [claim(said("superseded", 1, superseded_by=(middle,)), "owner", PLAIN),
              claim(said("superseded", 1, about=About("7" * 64, "8" * 64), superseded_by=(back,)), "owner", PLAIN)]  # fmt: skip

    assert against(ENTRY, NEXT, claims).state == "refused"


def test_a_thief_announces_nothing() -> None:
    theft = {"reason": "key-compromise", "on": 3}
    stolen = [claim(said("withdrawn", 2, **theft), name, PLAIN) for name in ("safe1", "safe2")]  # type: ignore[arg-type]
    thief = claim(said("superseded", 9, on=4), "owner", PLAIN)
    assert against(ENTRY, NEXT, [*stolen, thief]).state == "refused"
    own = claim(said("superseded", 9, **theft), "owner", PLAIN)  # type: ignore[arg-type]
    assert against(ENTRY, NEXT, [own]).state == "refused"

    rescue = [claim(said("superseded", 2, **theft), name, PLAIN) for name in ("safe1", "safe2")]  # type: ignore[arg-type]
    assert against(ENTRY, NEXT, rescue).state == "replaced as announced"
    # Nor after the theft was left out, where it was seen once.
    seen = against(ENTRY, ENTRY, stolen).entry
    assert seen is not None
    assert against(seen, NEXT, [thief]).state == "refused"


def test_what_was_said_is_not_unsaid() -> None:
    first = claim(said("current", 1), "owner", PLAIN)
    second = claim(said("withdrawn", 2, on=1), "owner", PLAIN)
    seen = against(ENTRY, ENTRY, [first, second]).entry
    assert seen is not None

    assert codes(against(seen, ENTRY, [first])) == ["status-went-back"]
    assert codes(against(seen, ENTRY, [])) == ["status-went-back"]
    third = claim(said("current", 3, on=2), "owner", PLAIN)
    assert codes(against(seen, ENTRY, [first, third])) == ["status-went-back"]
    assert against(seen, ENTRY, [third, second, first]).state == "as remembered"


def test_authority_that_is_gone_is_noticed() -> None:
    """The same words, by fewer, or without the time that kept them valid."""
    payload = said("withdrawn", 1)
    for strong, weak in (
        ([("safe1", None), ("safe2", None)], [("safe1", None), ("owner", None)]),
        ([("owner", None), ("heir", None)], [("owner", None)]),
        ([("owner", day(1))], [("owner", None)]),
        ([("owner", day(1))], [("owner", day(2))]),
        ([("owner", None)], [("colleague", None)]),
    ):
        seen = against(
            ENTRY, ENTRY, [claim(payload, *signed[:1], PLAIN, signed[1]) for signed in strong]
        )
        assert seen.entry is not None
        less = against(
            seen.entry, ENTRY, [claim(payload, *signed[:1], PLAIN, signed[1]) for signed in weak]
        )
        assert codes(less) == ["status-went-back"]


def theft(sequence: int, on: int) -> bytes:
    return said("withdrawn", sequence, on=on, reason="key-compromise")


@st.composite
def line(draw: st.DrawFn) -> tuple[bytes, str, Any]:
    name = draw(
        st.sampled_from(["owner", "colleague", "heir", "safe1", "safe2", "lab1", "stranger"])
    )
    state = draw(st.sampled_from(["current", "superseded", "withdrawn", "theft"]))
    sequence, on = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    time = draw(st.sampled_from([None, day(0), day(4)]))
    return (theft(sequence, on) if state == "theft" else said(state, sequence, on)), name, time


RULES = st.sampled_from(
    [PLAIN, believed(on_missing="fail", on_superseded="fail"), believed({Role.RECOVERY: 1})]
)


def untimed(one: Claim) -> Claim:
    """Return a line whose timestamp was cut off: it is not signed."""
    return msgspec.structs.replace(one, opened=msgspec.structs.replace(one.opened, time=None))


@given(st.lists(line(), max_size=6), RULES, st.sampled_from([None, day(1)]))
@settings(max_examples=400)
def test_with_a_lock_that_saw_it_all_leaving_lines_out_raises_nothing(
    lines: Any, rules: Believed, signed: Any
) -> None:
    """Over every subset, with and without the proofs of time: no exception is left, not even for bad news."""
    claims = [claim(payload, name, rules, time) for payload, name, time in lines]
    stands = stand(claims, rules, signed=signed)
    if not denied(stands):
        return
    seen = compare(None, ENTRY, stands, claims, rules, day(5)).entry
    for size in range(len(claims) + 1):
        for kept in itertools.combinations(claims, size):
            for some in (list(kept), [untimed(one) for one in kept]):
                part = stand(some, rules, signed=signed)
                found = compare(seen, ENTRY, part, some, rules, day(5))
                assert denied(part) or codes(found)


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "parentage.lock"
    assert lock.load(path).releases == {}
    assert lock.remember(path, "acme/rio", None, ENTRY)
    assert not lock.remember(path, "acme/rio", None, ENTRY)
    status = StatusSeen(sequence=3, payload="1" * 64, state="current")
    words = (Word(payload="1" * 64, owner=True, proven="2026-06-01T00:00:00Z"),)
    after = msgspec.structs.replace(ENTRY, status=status, words=words)
    assert lock.remember(path, "acme/rio", ENTRY, after)
    assert lock.remember(path, "acme/other", None, ENTRY)

    assert lock.load(path).releases == {"acme/rio": after, "acme/other": ENTRY}
    assert path.read_bytes() == lock.dumps(lock.load(path))
    assert list(json.loads(path.read_text())["releases"]) == ["acme/other", "acme/rio"]


def test_changed_by_somebody_else_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "parentage.lock"
    lock.remember(path, "rio", None, ENTRY)
    before = path.read_bytes()

    with pytest.raises(LockError, match="while it was verified"):
        lock.remember(path, "rio", None, NEXT)
    assert path.read_bytes() == before


BROKEN = {
    "empty": b"",
    "junk": b"\xff",
    "list": b"[]",
    "no-schema": b'{"releases": {}}',
    "another-schema": b'{"schema": "https://parentage.dev/lock/v9", "releases": {}}',
    "unknown-field": b'{"schema": "https://parentage.dev/lock/v0.1", "releases": {}, "more": 1}',
    "twice": b'{"schema": "https://parentage.dev/lock/v0.1", "releases": {}, "releases": {}}',
    "no-signer": b'{"schema": "https://parentage.dev/lock/v0.1", "releases": {"a": {"signers": [], "model": "%s", "lineage": "%s", "weights": {}}}}'
    % ((b"0" * 64,) * 2),
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_lock_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "parentage.lock"
    path.write_bytes(BROKEN[name])

    with pytest.raises(LockError) as caught:
        lock.load(path)
    assert caught.value.exit_code == 2
    with pytest.raises(LockError):
        lock.load(tmp_path)
