"""What the facts mean: tables from facts to states and reasons, and how differences are found."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.channels import Channels
from spotd.core.demand import MAX_REFUSED_SHOWN, PROMPT_UP_TO, Demand
from spotd.core.interruptions import INTERRUPTED, why_connecting, why_stale, why_waiting
from spotd.core.lag import LagState
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.state_writes import StateBatch, StateWrites
from spotd.core.states import (
    Facts,
    StreamState,
    daemon_state,
    not_ready_because,
    shows_ready,
)
from spotd.core.subscription_state import SubscriptionState
from spotd.core.verdicts import Verdict, Verdicts, shown_refusals
from spotd.models import BreakerStateName, DaemonStateName, SymbolCounts
from spotd.reasons import Code, Reason
from spotd.symbols import INVALID, Refusal

NOW = 100.0
LIMIT = Refusal("symbol_limit", "SPOTD_MAX_SYMBOLS=30 is the limit")
LIVE, HALTED, PENDING = Verdict("live"), Verdict("halted"), Verdict("pending")
STALE = Verdict("stale", "the stream is interrupted", code="interrupted")
REFUSED = Verdict("refused", LIMIT.reason, LIMIT.detail, LIMIT.reason)

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


@pytest.mark.parametrize(
    ("label", "breaker", "waiting", "stale"),
    [
        ("close_1001", "closed", "backoff", "interrupted"),
        ("http_429", "half_open", "backoff", "interrupted"),
        ("close_1001", "open", "breaker_open", "interrupted"),
        ("connection_limit", "closed", "connection_limit", "interrupted"),
        ("connection_limit", "open", "breaker_open", "interrupted"),
        ("mute", "closed", "mute", "mute"),
        ("mute", "open", "breaker_open", "mute"),
        ("lagging", "closed", "lagging", "lagging"),
    ],
)
def test_what_is_said_of_a_failed_session(
    label: str, breaker: BreakerStateName, waiting: Code, stale: Code
) -> None:
    """The daemon says why the next try is timed, and symbols why their prices are suspect."""
    said = why_waiting(label, "some words", breaker)
    assert said.code == waiting
    assert said.text.startswith("some words")
    assert why_stale(label, "some words").code == stale


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


class TestVerdicts:
    """The verdict on each symbol."""

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
    def test_table(self, subscriptions: SubscriptionState, halted: str, expected: Verdict) -> None:
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

    def test_a_symbol_that_leaves_has_no_verdict(self) -> None:
        """Its name is told as changed."""
        verdicts = Verdicts()
        verdicts.update(STREAMING, 1.0)
        assert verdicts.verdicts == {"AAA": LIVE, "BBB": PENDING}
        left = replace(STREAMING, demand=Demand(frozenset(("BBB",)), term=1))
        assert verdicts.update(left, 2.0) == ["AAA"]
        assert verdicts.verdicts == {"BBB": PENDING}

    def test_since_is_when_the_state_began(self) -> None:
        """Another reason for the same state is no new state."""
        verdicts = Verdicts()
        wanted = Demand(frozenset(("AAA",)))
        for unix_s, refusal in ((1.0, LIMIT), (2.0, Refusal("refused_by_alpaca", "x"))):
            state = StreamState(subscriptions=SubscriptionState(refused={"AAA": refusal}))
            assert verdicts.update(Facts(demand=wanted, stream=state), unix_s) == ["AAA"]
            assert verdicts.since_unix_s == {"AAA": 1.0}
        verdicts.update(Facts(demand=wanted), 3.0)
        assert verdicts.since_unix_s == {"AAA": 3.0}

    def test_another_subscription_changes_no_other_verdict(self) -> None:
        """What is the same object is not compared."""
        verdicts = Verdicts()
        verdicts.update(STREAMING, 1.0)
        both = replace(SERVED, active=frozenset(("AAA", "BBB")))
        stream = replace(STREAMING.stream, subscriptions=both)
        assert verdicts.update(replace(STREAMING, stream=stream), 2.0) == ["BBB"]

    def test_stale_says_why(self) -> None:
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
    def test_what_is_behind_or_mute_is_stale(self, facts: Facts, expected: Code | None) -> None:
        """A halt is told first: it is no doubt. A symbol that is pending stays so."""
        verdicts = Verdicts()
        verdicts.update(facts, 1.0)
        verdict = verdicts.verdicts["AAA"]
        assert verdict.code == expected
        assert (verdict.state == "stale") == (expected is not None)
        assert verdicts.verdicts["BBB"] == PENDING

    def test_a_mute_symbol_stays_so_while_it_is_renewed(self) -> None:
        """It is served, and not active for a moment."""
        served = SubscriptionState(served=frozenset(("AAA",)))
        verdicts = Verdicts()
        renewed = replace(STREAMING, stream=StreamState("open", subscriptions=served))
        verdicts.update(replace(renewed, mute=frozenset(("AAA",))), 1.0)
        assert verdicts.verdicts["AAA"].code == "mute"

    def test_without_a_quote_it_waits_for_the_first(self) -> None:
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

    def test_counts(self) -> None:
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

    def test_a_standby_counts_nothing_while_another_daemon_leads(self) -> None:
        """What this daemon found in its own term says nothing of the symbols any more."""
        served = SubscriptionState(served=frozenset(("AAA",)))
        stale = replace(STREAMING, stream=StreamState(subscriptions=served))
        verdicts = Verdicts()
        verdicts.update(replace(stale, leadership=Leadership(started=True)), 1.0)
        assert verdicts.counts == SymbolCounts(desired=2, stale=1, pending=1)
        verdicts.update(replace(stale, leadership=Leadership(started=True, another=True)), 2.0)
        assert verdicts.counts == SymbolCounts()

    def test_room_among_the_shown_is_filled(self) -> None:
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

    def test_symbols_are_shown_before_entries(self) -> None:
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


class TestWrites:
    """Which states Redis has to be told."""

    def test_states_that_end_go_first_and_refused_ones_last(self) -> None:
        """Redis never shows more refused entries than we do."""
        writes = StateWrites()
        verdicts = {"OLD": LIVE}
        writes.changed(["OLD"], verdicts)
        writes.wrote(writes.next_batch(9, verdicts), verdicts)
        verdicts = {"REF": REFUSED, "NEW": PENDING}
        writes.changed(["REF", "NEW", "OLD"], verdicts)
        assert writes.next_batch(1, verdicts) == StateBatch({}, ["OLD"])
        batch = writes.next_batch(9, verdicts)
        assert batch.ended == ["OLD"]
        assert list(batch.states) == ["NEW", "REF"]

    def test_what_is_early_is_left_for_later(self) -> None:
        """Others are written meanwhile, and it is not forgotten."""
        writes = StateWrites()
        verdicts = {"OLD": LIVE, "AAA": LIVE}
        writes.changed(verdicts, verdicts)
        writes.wrote(writes.next_batch(9, verdicts), verdicts)
        verdicts = {"AAA": STALE, "BBB": PENDING}
        writes.changed(["OLD", "AAA", "BBB"], verdicts)
        early = {("OLD", None), ("AAA", STALE)}
        batch = writes.next_batch(1, verdicts, lambda name, verdict: (name, verdict) in early)
        assert batch == StateBatch({"BBB": PENDING}, [])
        writes.wrote(batch, verdicts)
        assert writes.next_batch(9, verdicts) == StateBatch({"AAA": STALE}, ["OLD"])

    def test_what_changed_there_and_back_is_not_written(self) -> None:
        """A name that came and left before Redis heard of it is not written."""
        writes = StateWrites()
        writes.changed(["AAA"], {"AAA": LIVE})
        writes.wrote(writes.next_batch(9, {"AAA": LIVE}), {"AAA": LIVE})
        writes.changed(["AAA", "BBB"], {"AAA": STALE, "BBB": PENDING})
        assert writes
        writes.changed(["AAA", "BBB"], {"AAA": LIVE})
        assert not writes

    def test_what_changes_while_redis_answers_is_written_again(self) -> None:
        """The batch that was under way holds what was true when it was sent."""
        writes = StateWrites()
        writes.changed(["AAA", "BBB"], {"AAA": PENDING, "BBB": PENDING})
        batch = writes.next_batch(9, {"AAA": PENDING, "BBB": PENDING})
        now = {"AAA": LIVE}
        writes.changed(["AAA", "BBB"], now)
        writes.wrote(batch, now)
        assert writes.next_batch(9, now) == StateBatch({"AAA": LIVE}, ["BBB"])

    def test_afresh_everything_is_written_and_what_is_left_over_ends(self) -> None:
        """Nobody knows what Redis holds of the names that it stores."""
        writes = StateWrites()
        verdicts = {"AAA": LIVE}
        writes.changed(["AAA"], verdicts)
        writes.wrote(writes.next_batch(9, verdicts), verdicts)
        writes.start_afresh(["AAA", "GONE"], verdicts)
        assert writes.next_batch(9, verdicts) == StateBatch({"AAA": LIVE}, ["GONE"])


@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from("ABCDE"), st.sampled_from([LIVE, STALE, REFUSED, PENDING])
            ),
            st.integers(0, 3),
            st.booleans(),
        )
    ),
    st.randoms(),
)
def test_redis_comes_to_hold_what_is_true(
    history: list[tuple[dict[str, Verdict], int, bool]], random: Random
) -> None:
    """Redis comes to hold what is true, whatever changes meanwhile and whatever Redis loses."""
    writes, redis = StateWrites(), {"LEFT": LIVE}
    verdicts: dict[str, Verdict] = {}
    writes.start_afresh(redis, verdicts)

    def write(count: int, meanwhile: dict[str, Verdict]) -> None:
        nonlocal verdicts
        batch = writes.next_batch(count, verdicts)
        changed = [n for n in verdicts.keys() | meanwhile if verdicts.get(n) != meanwhile.get(n)]
        verdicts = meanwhile
        writes.changed(changed, verdicts)
        redis.update(batch.states)
        for name in batch.ended:
            redis.pop(name, None)
        writes.wrote(batch, verdicts)

    for after, count, lost in history:
        write(count, after)
        if lost:
            for name in list(redis):
                if random.random() < 0.5:
                    del redis[name]
            writes.start_afresh(redis, verdicts)
    for _ in range(20):
        write(2, verdicts)
    assert not writes
    assert redis == verdicts
