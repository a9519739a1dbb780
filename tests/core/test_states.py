"""What the facts mean: tables from facts to states and reasons."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.demand import MAX_REFUSED_SHOWN
from spotd.core.states import (
    Facts,
    Standings,
    Verdict,
    brings_too_little,
    daemon_state,
    not_ready_because,
    symbol_verdicts,
)
from spotd.models import DaemonStateName, SymbolCounts
from spotd.symbols import INVALID, Refusal

UP = Facts(started=True, leader=True, lease_works=True, stream_open=True, desired=2)
LIMIT = Refusal("symbol_limit", "30 symbols are the limit")
T0 = datetime(2026, 1, 20, tzinfo=UTC)
NOTHING: frozenset[str] = frozenset()
INTERRUPTED = Verdict("stale", "the stream is interrupted or mute")


@pytest.mark.parametrize(
    ("facts", "active", "state", "reason", "not_ready"),
    [
        (
            Facts(),
            0,
            "starting",
            None,
            ["the leader lease has not been seen working"],
        ),
        (
            Facts(redis_error="timeout"),
            0,
            "starting",
            "timeout",
            ["redis: timeout", "the leader lease has not been seen working"],
        ),
        (
            Facts(started=True, lease_works=True, desired=2),
            0,
            "standby",
            "another daemon is the leader",
            [],
        ),
        (
            Facts(started=True, redis_error="timeout"),
            0,
            "standby",
            "timeout",
            ["redis: timeout", "the leader lease has not been seen working"],
        ),
        (replace(UP, desired=0, stream_open=False), 0, "idle", None, []),
        (
            replace(UP, stream_open=False),
            0,
            "connecting",
            None,
            ["stream: connecting"],
        ),
        (
            UP,
            0,
            "connecting",
            "subscribing",
            ["stream: no symbol is acknowledged yet"],
        ),
        (
            replace(UP, all_refused=True),
            0,
            "streaming",
            "every desired symbol is refused",
            [],
        ),
        (
            replace(UP, all_refused=True, stream_open=False),
            0,
            "connecting",
            None,
            ["stream: connecting"],
        ),
        (UP, 2, "streaming", None, []),
        (replace(UP, redis_error="timeout"), 2, "streaming", None, ["redis: timeout"]),
        (
            replace(UP, stream_mute=True),
            2,
            "streaming",
            "the stream is open but delivers nothing, although the market moves",
            ["stream: mute"],
        ),
        (
            replace(UP, stream_open=False, stream_waiting="connection limit"),
            0,
            "waiting",
            "connection limit",
            ["stream: connection limit"],
        ),
        (replace(UP, stopping=True), 2, "stopping", None, ["stopping"]),
    ],
)
def test_the_state_of_the_daemon(
    facts: Facts, active: int, state: DaemonStateName, reason: str | None, not_ready: list[str]
) -> None:
    """Each state of the contract, with the sentence that explains it and the readiness it means."""
    assert daemon_state(facts, active) == (state, reason)
    assert not_ready_because(facts, active) == not_ready


_facts = st.builds(
    Facts,
    started=st.booleans(),
    stopping=st.booleans(),
    leader=st.booleans(),
    lease_works=st.booleans(),
    redis_error=st.none() | st.just("timeout"),
    stream_open=st.booleans(),
    stream_mute=st.booleans(),
    stream_waiting=st.none() | st.just("backoff"),
    desired=st.integers(0, 3),
    all_refused=st.booleans(),
)


@pytest.mark.parametrize(
    ("rest_ahead_s", "mute"), [(-60, False), (0, False), (5, False), (5.001, True), (3_600, True)]
)
def test_a_stream_behind_rest_is_mute(rest_ahead_s: float, mute: bool) -> None:
    """Some seconds pass between the two looks; more than five are no accident."""
    rest_at = T0 + timedelta(seconds=rest_ahead_s)
    assert brings_too_little(stream_at=T0, rest_at=rest_at) == mute


@given(_facts, st.integers(0, 3))
def test_ready_means_what_the_contract_says(facts: Facts, active: int) -> None:
    """A leader with a working stream or nothing desired, or a standby with a working lease."""
    ready = not not_ready_because(facts, active)
    served = active > 0 or facts.all_refused
    works = facts.stream_open and served and not facts.stream_mute
    works = works and facts.stream_waiting is None
    leading = facts.leader and (facts.desired == 0 or works)
    standing_by = not facts.leader and facts.lease_works
    healthy = facts.redis_error is None and not facts.stopping
    assert ready == (healthy and (leading or standing_by))


def verdicts(
    facts: Facts = UP,
    *,
    desired: str = "A",
    active: str = "",
    halted: str = "",
    refused: dict[str, Refusal] | None = None,
) -> dict[str, Verdict]:
    """Of symbols of one letter."""
    return symbol_verdicts(
        sorted(desired),
        facts=facts,
        active=frozenset(active),
        halted=frozenset(halted),
        refused=refused or {},
        entries_refused={},
    )


@pytest.mark.parametrize(
    ("facts", "active", "halted", "verdict"),
    [
        (UP, "", "", Verdict("pending")),
        (UP, "A", "", Verdict("live")),
        (UP, "*", "", Verdict("live")),
        (UP, "A", "A", Verdict("halted")),
        (UP, "*", "A", Verdict("halted")),
        (replace(UP, stream_mute=True), "A", "", INTERRUPTED),
        (replace(UP, stream_mute=True), "A", "A", INTERRUPTED),
        (replace(UP, stream_open=False), "A", "", INTERRUPTED),
        (replace(UP, stream_open=False), "", "", Verdict("pending")),
        (replace(UP, stream_open=False, ever_active={"A"}), "", "", INTERRUPTED),
        (replace(UP, ever_active={"A"}), "", "", INTERRUPTED),
    ],
)
def test_the_state_of_a_symbol(facts: Facts, active: str, halted: str, verdict: Verdict) -> None:
    """Live and halted need a stream that delivers; who was live before is stale without one."""
    assert verdicts(facts, active=active, halted=halted) == {"A": verdict}


def test_a_refused_symbol_says_why() -> None:
    """The reason is a word for programs, the detail a sentence for people."""
    assert verdicts(desired="AB", active="B", refused={"A": LIMIT}) == {
        "A": Verdict("refused", "symbol_limit", "30 symbols are the limit"),
        "B": Verdict("live"),
    }


def test_refused_entries_have_a_state_too() -> None:
    """Under the entry as it was written."""
    states = symbol_verdicts(
        ["A"],
        facts=UP,
        active=frozenset("A"),
        halted=NOTHING,
        refused={},
        entries_refused={"BRK-B": INVALID, "A": INVALID},
    )
    assert states == {
        "A": Verdict("live"),
        "BRK-B": Verdict("refused", "invalid_symbol", INVALID.detail),
    }


@pytest.mark.parametrize(("symbols", "entries"), [(400, 5_000), (5_000, 400), (0, 1_000)])
def test_at_most_a_thousand_refused_ones_are_shown(symbols: int, entries: int) -> None:
    """Valid symbols come first; live ones are never left out for them."""
    desired = [f"!{n}" for n in range(symbols)]
    states = symbol_verdicts(
        [*desired, "LIVE"],
        facts=UP,
        active=frozenset(["LIVE"]),
        halted=NOTHING,
        refused=dict.fromkeys(desired, LIMIT),
        entries_refused={f"-{n}": INVALID for n in range(entries)},
    )
    assert states.pop("LIVE") == Verdict("live")
    assert len(states) == MAX_REFUSED_SHOWN
    shown = sum(verdict.reason == "symbol_limit" for verdict in states.values())
    assert shown == min(symbols, MAX_REFUSED_SHOWN)


def test_the_counts_of_the_status() -> None:
    """States are counted from the verdicts; refused ones from outside, since not all are shown."""
    states = {
        "A": Verdict("live"),
        "B": Verdict("live"),
        "C": Verdict("halted"),
        "D": Verdict("stale"),
        "E": Verdict("pending"),
        "F": Verdict("refused"),
    }
    standings = Standings()
    standings.set_all(states)
    assert standings.counts(desired=6, refused=2_000) == SymbolCounts(
        desired=6, live=2, refused=2_000, pending=1, stale=1, halted=1
    )


_verdicts = st.dictionaries(
    st.sampled_from("ABCDE"),
    st.sampled_from(
        [Verdict("live"), Verdict("pending"), Verdict("refused", "symbol_limit", "30")]
    ),
)


@given(st.lists(st.tuples(st.booleans(), _verdicts), min_size=1))
def test_verdicts_by_difference_are_the_verdicts(
    changes: list[tuple[bool, dict[str, Verdict]]],
) -> None:
    """One by one or all at once: what changed is named, once, and the counts agree."""
    standings = Standings()
    for at_once, after in changes:
        before = dict(standings.verdicts)
        if at_once:
            changed = standings.set_all(after)
        else:
            changed = [n for n in "ABCDE" if standings.set(n, after.get(n))]
        assert standings.verdicts == after
        assert sorted(changed) == [n for n in "ABCDE" if before.get(n) != after.get(n)]
        states = [verdict.state for verdict in after.values()]
        counts = standings.counts(desired=5, refused=7)
        assert (counts.live, counts.pending) == (states.count("live"), states.count("pending"))
        assert (counts.desired, counts.refused, counts.stale, counts.halted) == (5, 7, 0, 0)


def test_what_is_gone_is_named_first() -> None:
    """So the states that are written are never more than there may be."""
    standings = Standings()
    standings.set_all({"A": Verdict("live"), "B": Verdict("live")})
    assert standings.set_all({"A": Verdict("pending"), "C": Verdict("live")}) == ["B", "A", "C"]
