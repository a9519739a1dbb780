"""The verdict on each symbol, and how it is found by differences of the facts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.demand import MAX_REFUSED_SHOWN, Demand
from spotd.core.interruptions import INTERRUPTED
from spotd.core.lag import LagState
from spotd.core.leadership import Leadership
from spotd.core.states import Facts, StreamState
from spotd.core.subscription_state import SubscriptionState
from spotd.core.verdicts import Verdict, Verdicts, shown_refusals
from spotd.models import SymbolCounts
from spotd.reasons import Code, Reason
from spotd.symbols import INVALID, Refusal

LIMIT = Refusal("symbol_limit", "SPOTD_MAX_SYMBOLS=30 is the limit")
LIVE, HALTED, PENDING = Verdict("live"), Verdict("halted"), Verdict("pending")
STALE = Verdict("stale", "the stream is interrupted", code="interrupted")
REFUSED = Verdict("refused", LIMIT.reason, LIMIT.detail, LIMIT.reason)
SERVED = SubscriptionState(active=frozenset(("AAA",)))
STREAMING = Facts(
    demand=Demand(frozenset(("AAA", "BBB")), term=1),
    stream=StreamState("open", subscriptions=SERVED),
    quoted=frozenset(("AAA", "BBB")),
)
BEHIND = Reason("lagging", "prices come late")
CLOCK = Reason("clock_wrong", "the clock is ahead")


@pytest.mark.parametrize(
    ("subscriptions", "halted", "expected"),
    [
        (SubscriptionState(), "", PENDING),
        (SubscriptionState(active=frozenset(("AAA",))), "", LIVE),
        (SubscriptionState(active=frozenset("*")), "", LIVE),
        (SubscriptionState(active=frozenset(("AAA",))), "AAA", HALTED),
        (SubscriptionState(served=frozenset(("AAA",))), "", STALE),
        (SubscriptionState(served=frozenset(("AAA",))), "AAA", HALTED),
        (SubscriptionState(), "AAA", PENDING),
        (SubscriptionState(refused={"AAA": LIMIT}), "", REFUSED),
    ],
)
def test_what_decides_each_verdict(
    subscriptions: SubscriptionState, halted: str, expected: Verdict
) -> None:
    """What Alpaca acknowledged, refused, halted or once served decides each verdict."""
    verdicts = Verdicts()
    facts = Facts(
        demand=Demand(frozenset(("AAA",))),
        stream=StreamState("open", subscriptions=subscriptions),
        halted=frozenset((halted,)),
        quoted=frozenset(("AAA",)),
    )
    assert verdicts.update(facts, 1.0) == ["AAA"]
    assert verdicts.verdicts == {"AAA": expected}
    assert verdicts.update(facts, 2.0) == []
    assert verdicts.since_unix_s == {"AAA": 1.0}


def test_a_symbol_that_leaves_has_no_verdict() -> None:
    """Its name is told as changed."""
    verdicts = Verdicts()
    verdicts.update(STREAMING, 1.0)
    assert verdicts.verdicts == {"AAA": LIVE, "BBB": PENDING}
    left = replace(STREAMING, demand=Demand(frozenset(("BBB",)), term=1))
    assert verdicts.update(left, 2.0) == ["AAA"]
    assert verdicts.verdicts == {"BBB": PENDING}


def test_since_is_when_the_state_began() -> None:
    """Another reason for the same state is no new state."""
    verdicts = Verdicts()
    wanted = Demand(frozenset(("AAA",)))
    for unix_s, refusal in ((1.0, LIMIT), (2.0, Refusal("refused_by_alpaca", "x"))):
        state = StreamState(subscriptions=SubscriptionState(refused={"AAA": refusal}))
        assert verdicts.update(Facts(demand=wanted, stream=state), unix_s) == ["AAA"]
        assert verdicts.since_unix_s == {"AAA": 1.0}
    verdicts.update(Facts(demand=wanted), 3.0)
    assert verdicts.since_unix_s == {"AAA": 3.0}


def test_another_subscription_changes_no_other_verdict() -> None:
    """What is the same object is not compared."""
    verdicts = Verdicts()
    verdicts.update(STREAMING, 1.0)
    both = replace(SERVED, active=frozenset(("AAA", "BBB")))
    stream = replace(STREAMING.stream, subscriptions=both)
    assert verdicts.update(replace(STREAMING, stream=stream), 2.0) == ["BBB"]


def test_stale_says_why() -> None:
    """Symbols of a session that was mute are stale for that reason."""
    served = SubscriptionState(served=frozenset(("AAA",)))
    mute = StreamState(subscriptions=served, stale=Reason("mute", "it brings nothing"))
    verdicts = Verdicts()
    verdicts.update(replace(STREAMING, stream=mute), 1.0)
    assert verdicts.verdicts["AAA"] == Verdict("stale", "it brings nothing", code="mute")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (replace(STREAMING, mute=frozenset(("AAA",))), "mute"),
        (replace(STREAMING, lag=LagState(BEHIND)), "lagging"),
        (replace(STREAMING, lag=LagState(BEHIND), mute=frozenset(("AAA",))), "mute"),
        (replace(STREAMING, lag=LagState(clock=CLOCK)), None),
        (replace(STREAMING, lag=LagState(BEHIND), halted=frozenset(("AAA",))), None),
        (replace(STREAMING, mute=frozenset(("AAA",)), halted=frozenset(("AAA",))), None),
    ],
)
def test_what_is_behind_or_mute_is_stale(facts: Facts, expected: Code | None) -> None:
    """A halt is told first: it is no doubt. A symbol that is pending stays so."""
    verdicts = Verdicts()
    verdicts.update(facts, 1.0)
    verdict = verdicts.verdicts["AAA"]
    assert verdict.code == expected
    assert (verdict.state == "stale") == (expected is not None)
    assert verdicts.verdicts["BBB"] == PENDING


def test_a_mute_symbol_stays_so_while_it_is_renewed() -> None:
    """It is served, and not active for a moment."""
    served = SubscriptionState(served=frozenset(("AAA",)))
    verdicts = Verdicts()
    renewed = replace(STREAMING, stream=StreamState("open", subscriptions=served))
    verdicts.update(replace(renewed, mute=frozenset(("AAA",))), 1.0)
    assert verdicts.verdicts["AAA"].code == "mute"


def test_without_a_quote_it_waits_for_the_first() -> None:
    """It is live with a reason; the whole market has no quote of its own."""
    everything = Demand(frozenset(("AAA", "BBB", "*")))
    active = SubscriptionState(active=frozenset(("*",)))
    facts = Facts(demand=everything, stream=StreamState("open", subscriptions=active))
    verdicts = Verdicts()
    verdicts.update(facts, 1.0)
    waiting = Verdict("live", "waiting for its first quote", code="no_quote_yet")
    assert verdicts.verdicts == {"AAA": waiting, "BBB": waiting, "*": LIVE}
    assert verdicts.counts.live == 3
    quoted = replace(facts, quoted=frozenset(("BBB",)))
    assert verdicts.update(quoted, 2.0) == ["BBB"]
    assert verdicts.verdicts["BBB"] == LIVE
    assert verdicts.since_unix_s["BBB"] == 1.0  # it is the same state


def test_counts() -> None:
    """All refused entries are counted, also those that are not shown."""
    verdicts = Verdicts()
    refused = {f"R{n:04}": LIMIT for n in range(MAX_REFUSED_SHOWN + 5)}
    facts = Facts(
        demand=Demand(frozenset(("AAA", "BBB", *refused)), {"x y": INVALID}, 7),
        stream=StreamState(
            "open", subscriptions=SubscriptionState(frozenset(("AAA",)), refused=refused)
        ),
    )
    verdicts.update(facts, 1.0)
    assert verdicts.counts == SymbolCounts(
        desired=len(refused) + 2, live=1, pending=1, refused=len(refused) + 7
    )
    assert sum(v.state == "refused" for v in verdicts.verdicts.values()) == MAX_REFUSED_SHOWN


def test_a_standby_counts_nothing_while_another_daemon_leads() -> None:
    """What this daemon found in its own term says nothing of the symbols any more."""
    served = SubscriptionState(served=frozenset(("AAA",)))
    stale = replace(STREAMING, stream=StreamState(subscriptions=served))
    verdicts = Verdicts()
    verdicts.update(replace(stale, leadership=Leadership(started=True)), 1.0)
    assert verdicts.counts == SymbolCounts(desired=2, stale=1, pending=1)
    verdicts.update(replace(stale, leadership=Leadership(started=True, another=True)), 2.0)
    assert verdicts.counts == SymbolCounts()


def test_room_among_the_shown_is_filled() -> None:
    """One that is refused no more makes room for the next, in sorted order."""
    refused = {f"R{n:04}": LIMIT for n in range(MAX_REFUSED_SHOWN + 1)}
    demand = Demand(frozenset(refused))
    verdicts = Verdicts()
    state = StreamState(subscriptions=SubscriptionState(refused=refused))
    verdicts.update(Facts(demand=demand, stream=state), 1.0)
    assert "R1000" not in verdicts.verdicts
    fewer = {name: refusal for name, refusal in refused.items() if name != "R0007"}
    state = StreamState(subscriptions=SubscriptionState(refused=fewer))
    changed = verdicts.update(Facts(demand=demand, stream=state), 2.0)
    assert sorted(changed) == ["R0007", "R1000"]
    assert verdicts.verdicts["R0007"] == PENDING


def test_symbols_are_shown_before_entries() -> None:
    """A thousand ill-formed entries hide no symbol that is refused."""
    entries = {f"?{n:04}": INVALID for n in range(MAX_REFUSED_SHOWN + 1)}
    shown = shown_refusals({"ZZZ": LIMIT}, entries)
    assert len(shown) == MAX_REFUSED_SHOWN
    assert next(iter(shown)) == "ZZZ"
    assert "?0998" in shown
    assert "?0999" not in shown


NAMES = ["AAA", "BBB", "CCC", "*"]
SOME = st.frozensets(st.sampled_from(NAMES))
ANY_FACTS = st.builds(
    Facts,
    demand=st.builds(
        Demand,
        SOME,
        st.dictionaries(st.sampled_from(["?", "x y"]), st.just(INVALID)),
    ),
    stream=st.builds(
        StreamState,
        st.just("open"),
        st.none(),
        st.builds(
            SubscriptionState,
            active=SOME,
            served=SOME,
            refused=st.dictionaries(st.sampled_from(NAMES), st.just(LIMIT)),
        ),
        stale=st.sampled_from([INTERRUPTED, Reason("mute", "it brings nothing")]),
    ),
    halted=SOME,
    mute=SOME,
    lag=st.sampled_from([LagState(), LagState(BEHIND), LagState(BEHIND, CLOCK)]),
    quoted=SOME,
)


@given(st.lists(ANY_FACTS, min_size=1, max_size=8))
def test_by_differences_it_comes_to_the_same(history: list[Facts]) -> None:
    """Taken in one after the other, or the last one alone: the same verdicts and counts.

    What is told as changed is exactly what changed.
    """
    verdicts = Verdicts()
    for facts in history:
        before = dict(verdicts.verdicts)
        changed = verdicts.update(facts, 1.0)
        after = verdicts.verdicts
        assert set(changed) == {
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        }
    anew = Verdicts()
    anew.update(history[-1], 1.0)
    assert verdicts.verdicts == anew.verdicts
    assert verdicts.counts == anew.counts
    assert verdicts.since_unix_s.keys() == verdicts.verdicts.keys()
