"""Where a release stands: the rules one by one, and over all subsets and orders of what was said."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sayings import ABOUT, NEW, PEOPLE, believed, claim, day, denied, disputed, said, stand, who

from parentage.attest.claims import Claim
from parentage.attest.disputes import Dispute
from parentage.attest.heard import Signature
from parentage.attest.identity import KeylessIdentity
from parentage.attest.opening import Opened
from parentage.attest.policy import Role
from parentage.attest.roles import Believed, persons
from parentage.attest.standing import standing
from parentage.attest.statement import build_statement, parse_statement
from parentage.attest.statements import status
from parentage.attest.statements.shared import About, Digest, sha256

STRICT = believed(on_missing="fail", on_withdrawn="fail", on_superseded="fail")
PLAIN = believed(on_missing="ignore")


def test_nothing_said() -> None:
    assert stand([], PLAIN).state == "unknown"
    assert denied(stand([], PLAIN)) == []
    assert denied(stand([], STRICT)) == ["status-missing"]
    warned = stand([], believed())
    assert [problem.code for problem in warned.problems] == ["status-missing"]
    assert denied(warned) == []


def test_current_until_its_end() -> None:
    claims = [claim(said("current", 1, until=30), "owner", STRICT)]

    assert stand(claims, STRICT).fresh
    assert denied(stand(claims, STRICT, on=30)) == []
    over = stand(claims, STRICT, on=31)
    assert (over.state, over.fresh, denied(over)) == ("current", False, ["status-missing"])


def test_current_until_the_policys_end() -> None:
    rules = believed(on_missing="fail", max_age="7d")
    claims = [claim(said("current", 1, until=300), "owner", rules)]

    assert denied(stand(claims, rules, on=7)) == []
    assert denied(stand(claims, rules, on=8)) == ["status-missing"]


@pytest.mark.parametrize(("state", "code"), [("withdrawn", "release-withdrawn"), ("superseded", "release-superseded")])  # fmt: skip
def test_bad_news_by_the_publisher(state: str, code: str) -> None:
    claims = [
        claim(said("current", 1), "owner", STRICT),
        claim(said(state, 2, on=1), "owner", STRICT),
    ]
    found = stand(claims, STRICT)

    assert (found.state, found.sequence, found.by, found.reason) == (
        state,
        2,
        "publisher",
        "security",
    )
    assert code in denied(found)
    assert found.superseded_by == ((NEW,) if state == "superseded" else ())
    quiet = stand(claims, believed(on_withdrawn="warn", on_superseded="warn"))
    assert (quiet.state, denied(quiet)) == (state, [])
    assert code in [problem.code for problem in quiet.problems]


def test_the_highest_sequence_holds() -> None:
    claims = [claim(said("withdrawn", 2, on=1), "owner", STRICT), claim(said("current", 3, on=2), "owner", STRICT),
              claim(said("current", 1), "owner", STRICT)]  # fmt: skip

    assert all(denied(stand(list(order), STRICT)) == [] for order in itertools.permutations(claims))


def test_a_fork_at_the_same_sequence_fails() -> None:
    claims = [
        claim(said("current", 2, until=30), "owner", PLAIN),
        claim(said("current", 2, until=31), "owner", PLAIN),
    ]
    found = stand(claims, PLAIN)
    assert (found.state, denied(found)) == ("forked", ["status-fork"])

    healed = stand([*claims, claim(said("current", 3), "owner", PLAIN)], PLAIN)
    assert (healed.state, denied(healed)) == ("current", [])
    assert "status-history" in [problem.code for problem in healed.problems]


def test_signed_twice_is_no_fork() -> None:
    payload = said("current", 1)
    claims = [
        claim(payload, "owner", STRICT),
        claim(payload, "owner", STRICT),
        claim(payload, "heir", STRICT),
    ]

    assert denied(stand(claims, STRICT)) == []


def test_history_is_told_where_it_is_broken() -> None:
    first = said("current", 1)
    second = said("current", 2, on=1, previous=Digest(sha256=sha256(first)))
    whole = stand([claim(first, "owner", STRICT), claim(second, "owner", STRICT)], STRICT)
    assert [problem.code for problem in whole.problems] == []

    part = stand([claim(second, "owner", STRICT)], STRICT)
    assert [problem.code for problem in part.problems] == ["status-history"]
    assert denied(part) == []


@pytest.mark.parametrize("name", [*PEOPLE, "stranger"])
def test_who_may_withdraw(name: str) -> None:
    """The person who signed the release, or a successor; nobody else alone."""
    found = stand([claim(said("withdrawn", 1), name, PLAIN)], PLAIN)

    if name in {"owner", "heir"}:
        assert (found.state, denied(found)) == ("withdrawn", ["release-withdrawn"])
    else:
        assert (found.state, denied(found)) == ("unknown", [])
        assert [(d.reason, d.roles) for d in found.disputes] == [
            ("security", sorted(PLAIN.roles_of(who(name))))
        ]


def test_recovery_is_m_of_n_over_the_same_bytes() -> None:
    payload, other = said("withdrawn", 1), said("withdrawn", 1, statement="in other words")

    def state(*signed: tuple[bytes, str]) -> str:
        return stand([claim(what, by, PLAIN) for what, by in signed], PLAIN).state

    assert state((payload, "safe1")) == "unknown"
    assert state((payload, "safe1"), (payload, "safe1")) == "unknown"
    assert state((payload, "safe1"), (other, "safe2")) == "unknown"
    assert state((payload, "safe1"), (payload, "lab1")) == "unknown"
    assert state((payload, "safe1"), (payload, "safe3")) == "withdrawn"


def test_two_publishers_of_a_pair() -> None:
    rules = believed({Role.PUBLISHER: 2}, on_missing="ignore")
    payload = said("withdrawn", 1)

    assert stand([claim(payload, "owner", rules)], rules).state == "unknown"
    pair = [claim(payload, "owner", rules), claim(payload, "colleague", rules)]
    assert stand(pair, rules).state == "withdrawn"


def test_a_workflow_is_the_same_publisher_under_every_tag() -> None:
    issuer = "https://token.actions.githubusercontent.com"
    name = "https://github.com/acme/rel/.github/workflows/r.yml@refs/tags/v"
    payload = said("withdrawn", 1)
    opened = Opened(payload, parse_statement(payload, "t"), KeylessIdentity(issuer, f"{name}2"))
    lines = [Claim("t", opened, frozenset({Role.PUBLISHER}))]
    signature = Signature(persons([KeylessIdentity(issuer, f"{name}1")]))

    assert standing(ABOUT, signature, lines, PLAIN, day(5)).state == "withdrawn"


def test_a_status_of_another_release_is_not_this_ones() -> None:
    other = About("1" * 64, "2" * 64)
    claims = [
        claim(said("withdrawn", 9, about=other), "owner", STRICT),
        claim(said("current", 1), "owner", STRICT),
    ]

    assert denied(stand(claims, STRICT)) == []


def test_bad_news_of_a_part_is_enough_and_good_news_is_not() -> None:
    """The same files under another lineage are the same files."""
    same_files, same_words = About("1" * 64, ABOUT.model), About(ABOUT.lineage, "2" * 64)
    for part in (same_files, same_words):
        assert (
            stand([claim(said("withdrawn", 1, about=part), "owner", PLAIN)], PLAIN).state
            == "withdrawn"
        )
        assert (
            stand([claim(said("current", 1, about=part), "owner", PLAIN)], PLAIN).state == "unknown"
        )


def test_what_replaces_a_lineage_over_the_same_files_is_not_replaced() -> None:
    import msgspec

    new = msgspec.structs.replace(NEW, lineage=ABOUT.lineage, model=ABOUT.model)
    old = About("1" * 64, ABOUT.model)
    payload = said("superseded", 1, about=old, superseded_by=(new,))

    assert stand([claim(payload, "owner", PLAIN)], PLAIN).state == "unknown"


def test_not_before_it_takes_effect() -> None:
    claims = [
        claim(said("withdrawn", 2, on=10), "owner", PLAIN),
        claim(said("current", 1), "owner", PLAIN),
    ]

    assert stand(claims, PLAIN, on=9).state == "current"
    assert stand(claims, PLAIN, on=10).state == "withdrawn"


def test_a_strangers_dispute_is_shown_and_fails_nothing() -> None:
    strict = believed(on_missing="fail", on_dispute="fail")
    good = claim(said("current", 1), "owner", strict)
    found = stand([good, claim(disputed(), "stranger", strict)], strict,
                  strangers=[Dispute(by="unchecked", reason="security", statement="no", payload="0" * 64)])  # fmt: skip

    assert denied(found) == []
    assert len(found.disputes) == 2
    assert [d.roles for d in found.disputes] == [[], []]


@pytest.mark.parametrize("name", ["lab1", "hub"])
def test_a_policy_may_listen_to_its_own_people(name: str) -> None:
    for rule, codes in (("warn", []), ("fail", ["disputed"])):
        rules = believed(on_missing="ignore", on_dispute=rule)
        found = stand([claim(disputed(), name, rules)], rules)
        assert denied(found) == codes
        assert "disputed" in [problem.code for problem in found.problems]
    two = believed({Role.VERIFIER: 2, Role.WITNESS: 1}, on_missing="ignore", on_dispute="fail")
    assert denied(stand([claim(disputed(), "lab1", two)], two)) == []


def test_a_dispute_of_another_release_is_not_shown() -> None:
    other = About("1" * 64, "2" * 64)

    assert stand([claim(disputed(other), "lab1", PLAIN)], PLAIN).disputes == ()


def theft(sequence: int = 2, on: int = 3, **fields: Any) -> bytes:
    return said("withdrawn", sequence, on=on, reason="key-compromise", **fields)


def test_a_stolen_key_takes_its_untimed_signatures_along() -> None:
    claims = [claim(theft(), "owner", PLAIN)]

    assert denied(stand(claims, PLAIN)) == ["key-compromised"]
    assert denied(stand(claims, PLAIN, signed=day(3))) == ["key-compromised"]
    assert stand(claims, PLAIN).state == "compromised"


def test_what_was_signed_before_the_theft_and_timed_stays() -> None:
    found = stand([claim(theft(), "owner", PLAIN)], PLAIN, signed=day(2))

    assert (found.state, denied(found)) == ("unknown", [])
    assert [problem.code for problem in found.problems] == ["key-compromised"]
    early = claim(said("current", 1), "owner", STRICT, day(1))
    late = claim(said("current", 1), "owner", STRICT)
    stolen = claim(theft(), "owner", STRICT)
    assert denied(stand([early, stolen], STRICT, signed=day(2))) == []
    assert denied(stand([late, stolen], STRICT, signed=day(2))) == ["status-missing"]


def test_a_thief_can_not_say_that_all_is_well() -> None:
    stolen = [claim(theft(), name, PLAIN) for name in ("safe1", "safe2")]
    thief = [claim(said("current", 2**53 - 1, on=4), "owner", PLAIN),
             claim(said("current", 7, on=4), "owner", PLAIN, day(4)),
             claim(theft(2**53 - 1, on=-1000), "owner", PLAIN)]  # fmt: skip

    assert denied(stand([*stolen, *thief], PLAIN)) == ["key-compromised"]
    # Nor take along, by an earlier date, what recovery says was signed before.
    assert denied(stand([*stolen, *thief], PLAIN, signed=day(2))) == []


def test_deputies_can_stand_by_a_release_whose_key_was_stolen() -> None:
    stolen = [claim(theft(), name, STRICT) for name in ("safe1", "safe2")]
    again = [claim(said("current", 3, on=4), name, STRICT) for name in ("safe1", "safe2")]

    assert denied(stand([*stolen, again[0]], STRICT)) == ["key-compromised"]
    found = stand([*stolen, *again], STRICT)
    assert (found.state, found.by, denied(found)) == ("current", "recovery", [])
    # The thief cries thief, and signs what recovery signed: neither is heard, nor makes it the thief's.
    cries = [
        claim(theft(9), "owner", STRICT),
        claim(theft(), "owner", STRICT),
        claim(again[0].opened.payload, "owner", STRICT),
    ]
    found = stand([*stolen, *again, *cries], STRICT)
    assert (found.state, found.by, denied(found)) == ("current", "recovery", [])


def test_a_strangers_theft_is_no_theft() -> None:
    for name in ("stranger", "lab1", "hub", "safe1"):
        assert denied(stand([claim(theft(), name, PLAIN)], PLAIN)) == []


def test_a_status_that_can_not_be_read_is_no_permission() -> None:
    payload = build_statement(ABOUT.subjects(), status.TYPE, {"state": "withdrawn", "more": 1})

    assert denied(stand([claim(payload, "owner", PLAIN)], PLAIN)) == ["status-unreadable"]
    assert denied(stand([claim(payload, "stranger", PLAIN)], PLAIN)) == []


# All subsets and orders.

SPEAKERS = [*PEOPLE, "stranger"]
STATES = st.sampled_from(["current", "superseded", "withdrawn", "theft"])


@st.composite
def line(draw: st.DrawFn) -> tuple[bytes, str, Any]:
    """A payload, who signs it, and the trusted time of the signature."""
    name = draw(st.sampled_from(SPEAKERS))
    time = draw(st.sampled_from([None, day(0), day(4)]))
    if draw(st.integers(0, 5)) == 0:
        return disputed(words=draw(st.sampled_from(["a", "b"]))), name, time
    state, sequence = draw(STATES), draw(st.integers(1, 3))
    on = draw(st.integers(0, 7))
    about = draw(st.sampled_from([ABOUT, ABOUT, ABOUT, About("1" * 64, ABOUT.model)]))
    if state == "theft":
        return theft(sequence, on, about=about), name, time
    return said(state, sequence, on, about=about), name, time


LINES = st.lists(line(), max_size=7)
RULES = st.sampled_from([PLAIN, STRICT, believed(), believed(on_missing="fail", max_age="2d")])


def heard(lines: list[tuple[bytes, str, Any]], rules: Believed) -> list[Claim]:
    return [claim(payload, name, rules, time) for payload, name, time in lines]


def authority(name: str) -> bool:
    return PEOPLE.get(name) in {Role.PUBLISHER, Role.SUCCESSOR, Role.RECOVERY}


@given(LINES, RULES, st.sampled_from([None, day(1)]), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_order_and_repetition_mean_nothing(
    lines: Any, rules: Believed, signed: Any, random: Any
) -> None:
    claims = heard(lines, rules)
    expected = stand(claims, rules, signed=signed)
    shuffled = claims + claims[:2]
    random.shuffle(shuffled)

    assert stand(shuffled, rules, signed=signed) == expected


@given(LINES, RULES, st.sampled_from([None, day(1)]))
@settings(max_examples=300)
def test_leaving_lines_out_raises_nothing(lines: Any, rules: Believed, signed: Any) -> None:
    """Over every subset.

    Only lines of those who may say a status can lower a verdict, so only leaving one of them out can
    raise it; and where a policy demands freshness, not beyond the end of a `current` that they signed.
    """
    claims = heard(lines, rules)
    whole = denied(stand(claims, rules, signed=signed))
    for size in range(len(claims)):
        for kept in itertools.combinations(range(len(claims)), size):
            found = stand([claims[i] for i in kept], rules, signed=signed)
            if not whole or denied(found):
                continue
            gone = [lines[i] for i in range(len(lines)) if i not in kept]
            assert any(b"/status/" in payload and authority(name) for payload, name, _ in gone)
            if rules.status.on_missing == "fail":
                assert (found.state, found.fresh) == ("current", True)
                ends = stand([claims[i] for i in kept], rules, on=40, signed=signed)
                assert denied(ends)


@given(LINES, RULES, st.sampled_from([None, day(1)]))
@settings(max_examples=300)
def test_those_who_may_not_say_it_change_nothing(lines: Any, rules: Believed, signed: Any) -> None:
    entitled = [entry for entry in lines if authority(entry[1])]
    some, all_of_it = (
        stand(heard(part, rules), rules, signed=signed) for part in (entitled, lines)
    )

    assert denied(some) == denied(all_of_it)
    assert (some.state, some.payload, some.fresh) == (
        all_of_it.state,
        all_of_it.payload,
        all_of_it.fresh,
    )
