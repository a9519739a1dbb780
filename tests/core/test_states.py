"""What the facts mean: tables from facts to the daemon's state, its reason, and readiness."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.channels import Channels
from spotd.core.demand import PROMPT_UP_TO, Demand
from spotd.core.interruptions import why_connecting
from spotd.core.lag import LagState
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.states import (
    Facts,
    StreamState,
    daemon_state,
    not_ready_because,
    shows_ready,
)
from spotd.core.subscription_state import SubscriptionState
from spotd.models import DaemonStateName
from spotd.reasons import Reason

NOW = 100.0

STARTED = Leadership(started=True, answered=True)
STANDBY = replace(STARTED, another=True)
LEADER = replace(STARTED, term=1, leads=True, publish_until=NOW + 1, hold_until=NOW + 1)
KEEPS = replace(STARTED, term=1, answered=False, hold_until=NOW + 1)
WANTED = Demand(frozenset(("AAA", "BBB")), term=1)
SERVED = SubscriptionState(active=frozenset(("AAA",)))
STREAMING = Facts(
    LEADER,
    RedisHealth(),
    WANTED,
    StreamState("open", subscriptions=SERVED),
    quoted=frozenset(("AAA", "BBB")),
)
AWAY = RedisHealth(away="no answer")
AWAY_REASON = Reason("redis_away", "no answer")
NOT_KNOWN = Reason("leader_unknown", "Redis has not said yet who leads")
NOT_ANSWERED = Reason("leader_key_failed", "the last request for the leader key failed")
UNREADABLE = "cannot read the demand in symbols: spotd:symbols is of the wrong type"
UNREADABLE_REASON = Reason("demand_unreadable", UNREADABLE)
UNHEARD = Channels(unheard="no permission")
UNHEARD_REASON = Reason("wake_unheard", "cannot listen to the wake channel: no permission")
OTHER_LEADER_REASON = Reason(
    "two_leaders",
    "another daemon (host-1:ab) publishes on the same channels, from another database or with "
    "another key prefix",
)
CROWDED = Reason(
    "demand_crowded", "10,001 entries of the demand name no symbol, so its changes are seen late"
)
READING = Reason("reading_demand", "reading the demand")
CONNECTING = Reason("connecting", "opening the stream")
SUBSCRIBING = Reason("subscribing", "no symbol is acknowledged yet")
STOPPING = Reason("stopping", "the daemon was asked to stop")
BACKOFF = Reason("backoff", "closed with 1001")
CLOSED = StreamState("waiting", BACKOFF)
BEHIND = Reason("lagging", "prices come late")
CLOCK = Reason("clock_wrong", "the clock is ahead")
ALL_REFUSED = StreamState("open", subscriptions=SubscriptionState(all_refused=True))


@pytest.mark.parametrize(
    ("facts", "state", "reason", "not_ready"),
    [
        (Facts(), "starting", NOT_KNOWN, [NOT_KNOWN]),
        (Facts(redis=AWAY), "starting", AWAY_REASON, [AWAY_REASON, NOT_KNOWN]),
        (Facts(STANDBY), "standby", Reason("another_leads", "another daemon is the leader"), []),
        (
            Facts(STARTED),
            "standby",
            Reason("leader_key_lapsed", "the leader key lapsed before it was renewed"),
            [],
        ),
        (
            Facts(replace(STANDBY, answered=False), AWAY),
            "standby",
            AWAY_REASON,
            [AWAY_REASON, NOT_ANSWERED],
        ),
        (
            Facts(replace(STANDBY, free=True)),
            "standby",
            Reason("leader_key_free", "no daemon holds the leader key yet"),
            [],
        ),
        (
            replace(STREAMING, leadership=KEEPS, redis=AWAY),
            "standby",
            Reason("redis_away", "no answer; the stream is kept"),
            [AWAY_REASON, NOT_ANSWERED],
        ),
        (
            replace(STREAMING, leadership=KEEPS, redis=AWAY, stream=StreamState()),
            "standby",
            AWAY_REASON,
            [AWAY_REASON, NOT_ANSWERED],
        ),
        (replace(STREAMING, demand=Demand(term=1)), "idle", None, []),
        (
            replace(STREAMING, demand=Demand(term=1, unreadable=UNREADABLE)),
            "connecting",
            UNREADABLE_REASON,
            [UNREADABLE_REASON],
        ),
        (replace(STREAMING, demand=Demand(term=0)), "connecting", READING, [READING]),
        (replace(STREAMING, stream=StreamState()), "connecting", CONNECTING, [CONNECTING]),
        (
            replace(STREAMING, stream=StreamState("connecting")),
            "connecting",
            CONNECTING,
            [CONNECTING],
        ),
        (replace(STREAMING, stream=CLOSED), "waiting", BACKOFF, [BACKOFF]),
        (replace(STREAMING, stream=StreamState("open")), "connecting", SUBSCRIBING, [SUBSCRIBING]),
        (
            replace(STREAMING, stream=ALL_REFUSED),
            "streaming",
            Reason("all_refused", "every desired symbol is refused"),
            [],
        ),
        (STREAMING, "streaming", None, []),
        (
            replace(STREAMING, demand=replace(WANTED, unreadable=UNREADABLE)),
            "streaming",
            UNREADABLE_REASON,
            [UNREADABLE_REASON],
        ),
        (
            replace(STREAMING, stream=ALL_REFUSED, demand=replace(WANTED, unreadable=UNREADABLE)),
            "streaming",
            UNREADABLE_REASON,
            [UNREADABLE_REASON],
        ),
        (
            replace(STREAMING, stream=CLOSED, demand=replace(WANTED, unreadable=UNREADABLE)),
            "waiting",
            BACKOFF,
            [BACKOFF, UNREADABLE_REASON],
        ),
        (replace(STREAMING, channels=UNHEARD), "streaming", UNHEARD_REASON, []),
        (
            replace(STREAMING, channels=UNHEARD, demand=Demand(term=1)),
            "idle",
            UNHEARD_REASON,
            [],
        ),
        (
            replace(STREAMING, channels=replace(UNHEARD, other_leader="host-1:ab")),
            "streaming",
            OTHER_LEADER_REASON,
            [],
        ),
        (replace(STREAMING, lag=LagState(BEHIND)), "streaming", BEHIND, [BEHIND]),
        (replace(STREAMING, lag=LagState(clock=CLOCK)), "streaming", CLOCK, []),
        (replace(STREAMING, lag=LagState(BEHIND, CLOCK)), "streaming", BEHIND, [BEHIND]),
        (replace(STREAMING, lag=LagState(BEHIND), stream=CLOSED), "waiting", BACKOFF, [BACKOFF]),
        (replace(STREAMING, redis=AWAY), "waiting", AWAY_REASON, [AWAY_REASON]),
        (
            replace(STREAMING, redis=AWAY, stream=CLOSED),
            "waiting",
            AWAY_REASON,
            [AWAY_REASON, BACKOFF],
        ),
        (
            replace(STREAMING, demand=replace(WANTED, refused_count=PROMPT_UP_TO)),
            "streaming",
            None,
            [],
        ),
        (
            replace(STREAMING, demand=replace(WANTED, refused_count=PROMPT_UP_TO + 1)),
            "streaming",
            CROWDED,
            [],
        ),
        (
            replace(STREAMING, demand=Demand(term=1, refused_count=PROMPT_UP_TO + 1)),
            "idle",
            CROWDED,
            [],
        ),
        (replace(STREAMING, stopping=True), "stopping", STOPPING, [STOPPING]),
    ],
)
def test_what_the_daemon_says(
    facts: Facts, state: DaemonStateName, reason: Reason | None, not_ready: list[Reason]
) -> None:
    """Each combination of facts has one state, and is ready exactly where the contract says so."""
    assert daemon_state(facts, NOW) == (state, reason)
    assert not_ready_because(facts, NOW) == not_ready
    if facts.leadership.may_publish(NOW):
        shown = shows_ready(state, None if reason is None else reason.code)
        assert shown is not bool(not_ready)


@pytest.mark.parametrize(
    ("stream", "serves"),
    [
        (STREAMING.stream, True),
        (StreamState("open"), False),
        (StreamState("closed", subscriptions=SERVED), False),
    ],
)
def test_a_stream_serves_when_it_is_open_and_brings_a_symbol(
    stream: StreamState, serves: bool
) -> None:
    """Only such a stream can be silent, mute or behind."""
    assert stream.serves is serves


def test_what_is_said_while_the_stream_is_opened_after_a_failure() -> None:
    """The sentence of the last failure stands beside `connecting`, until a stream is open."""
    said = why_connecting("no answer")
    assert said == Reason("connecting", "opening the stream; the last one failed: no answer")
    opening = replace(STREAMING, stream=StreamState("connecting", said))
    assert daemon_state(opening, NOW) == ("connecting", said)
    assert not_ready_because(opening, NOW) == [said]


def test_the_clock_ends_what_is_said_of_leading() -> None:
    """After a freeze nothing may be said that the value's time denies."""
    later = LEADER.publish_until
    assert daemon_state(STREAMING, later)[0] == "standby"
    assert not_ready_because(STREAMING, later) == []


STREAMS = st.builds(
    StreamState,
    st.sampled_from(["closed", "connecting", "open", "waiting"]),
    st.none(),
    st.builds(
        SubscriptionState,
        active=st.sampled_from([frozenset(), frozenset(("AAA",))]),
        all_refused=st.booleans(),
    ),
)
LEADERSHIPS = st.builds(
    Leadership,
    term=st.integers(0, 2),
    leads=st.booleans(),
    started=st.booleans(),
    answered=st.booleans(),
    another=st.booleans(),
    publish_until=st.sampled_from([NOW - 1, NOW + 1]),
)


@given(
    st.builds(
        Facts,
        LEADERSHIPS,
        st.sampled_from([RedisHealth(), AWAY]),
        st.sampled_from([WANTED, Demand(term=1), Demand()]),
        STREAMS,
    )
)
def test_what_is_said_is_true(facts: Facts) -> None:
    """The contract's section 4: standby and streaming are never said at a wrong moment."""
    state, _ = daemon_state(facts, NOW)
    assert (state in ("starting", "standby")) is not facts.leadership.may_publish(NOW)
    if state == "streaming":
        assert facts.leadership.may_publish(NOW)
        assert facts.redis.away is None
        assert facts.stream.phase == "open"
