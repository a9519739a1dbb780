"""Between which times no prices came: the dialogue of sessions and terms, and what is stated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spotd.core.demand import Demand
from spotd.core.gaps import (
    MOST_KEPT,
    MOST_SHOWN,
    SHORTEST_OUTAGE_S,
    Gaps,
    GapsFound,
    silent_since,
    why_given_up,
)
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth, RedisMonitor
from spotd.core.subscription_state import SubscriptionState
from spotd.models import Gap, utc
from spotd.reasons import Code, Reason
from spotd.symbols import Refusal

LEADS = Leadership(term=1, leads=True, started=True, publish_until=1e9, hold_until=1e9)
STANDBY = replace(LEADS, leads=False, publish_until=0.0, hold_until=0.0)
LOST = Reason("interrupted", "the connection was lost")
LIMIT = Refusal("symbol_limit", "30 symbols are the limit")


def gap(begins: float, ends: float, symbols: int, reason: Reason = LOST) -> Gap:
    """Return a gap between two times in unix seconds."""
    return Gap(
        begins=utc(begins), ends=utc(ends), reason=reason.text, code=reason.code, symbols=symbols
    )


class Dialogue:
    """One daemon: its term, what it desires, and a clock that each step moves."""

    def __init__(self) -> None:
        self.gaps = Gaps()
        self.leadership = LEADS
        self.health = RedisHealth()
        self.desired = frozenset({"SPY", "QQQ"})
        self.read_in = 1
        self.told = 0

    def lost(self, at: float, *served: str, reason: Reason = LOST) -> None:
        """End a session that served symbols."""
        self.gaps.interrupted(frozenset(served), reason, at)

    def outage(self, gone_at: float, back_at: float) -> None:
        """Have an outage of Redis be over."""
        outages = self.health.outages + 1
        self.health = RedisHealth(outages=outages, gone_at=gone_at, back_at=back_at)

    def leads_again(self, lapsed_since: float) -> None:
        """Begin a new term after the one before had lapsed, and read its demand."""
        self.read_in = self.leadership.term + 1
        self.leadership = replace(LEADS, term=self.read_in, lapsed_since=lapsed_since)

    def see(self, at: float, *active: str, refused: tuple[str, ...] = ()) -> list[Gap]:
        """Have symbols active. Return the gaps that are new."""
        found = self.gaps.seen(
            self.leadership,
            self.health,
            Demand(self.desired, term=self.read_in),
            SubscriptionState(frozenset(active), refused=dict.fromkeys(refused, LIMIT)),
            now=at,
            unix_s=at,
        )
        new = found.since(self.told)
        self.told = found.count
        return list(new)


@pytest.fixture
def daemon() -> Dialogue:
    """Return a leader that desires SPY and QQQ."""
    return Dialogue()


def test_it_ends_when_all_are_acknowledged(daemon: Dialogue) -> None:
    """One gap is stated, once, from the end of the session to the last acknowledgement."""
    assert daemon.see(1, "SPY", "QQQ") == []
    daemon.lost(2, "SPY", "QQQ")
    assert daemon.see(3) == []
    assert daemon.see(4, "SPY") == []
    assert daemon.see(5, "SPY", "QQQ") == [gap(2, 5, 2)]
    assert daemon.see(6, "SPY", "QQQ") == []


def test_failures_in_a_row_are_one_interruption(daemon: Dialogue) -> None:
    """What fails before all symbols are back continues the gap, with the first reason."""
    daemon.lost(2, "SPY", "QQQ")
    assert daemon.see(3, "SPY") == []
    daemon.lost(4, "SPY", reason=Reason("mute", "it brought nothing"))
    assert daemon.see(5, "SPY", "QQQ") == [gap(2, 5, 2)]


def test_a_session_that_served_nothing_interrupts_nothing(daemon: Dialogue) -> None:
    """Tries that fail at the start are no interruption."""
    daemon.lost(2)
    assert daemon.see(3, "SPY", "QQQ") == []


def test_a_symbol_that_is_new_is_not_waited_for(daemon: Dialogue) -> None:
    """An interruption concerns the symbols that were served before it."""
    daemon.lost(2, "SPY", "QQQ")
    daemon.desired |= {"NEW"}
    assert daemon.see(3, "SPY", "QQQ") == [gap(2, 3, 2)]


def test_a_symbol_that_left_or_is_refused_is_not_waited_for(daemon: Dialogue) -> None:
    """They are not counted, either."""
    daemon.lost(2, "SPY", "QQQ", "IWM")
    assert daemon.see(3, "SPY", refused=("QQQ",)) == [gap(2, 3, 1)]


def test_without_symbols_there_is_no_gap(daemon: Dialogue) -> None:
    """Where all of its symbols left the demand, nobody missed a price."""
    daemon.lost(2, "SPY", "QQQ")
    daemon.desired = frozenset({"NEW"})
    assert daemon.see(3) == []
    daemon.desired = frozenset({"SPY", "QQQ"})
    assert daemon.see(4, "SPY", "QQQ") == []


def test_the_whole_market_serves_every_symbol(daemon: Dialogue) -> None:
    """A symbol need not be acknowledged by name."""
    daemon.lost(2, "SPY", "QQQ")
    assert daemon.see(3, "*") == [gap(2, 3, 2)]


class TestLeadership:
    """Interruptions with more than one daemon, or without Redis."""

    def test_a_new_leader_begins_where_the_old_one_ended(self, daemon: Dialogue) -> None:
        """The gap begins with the highest seq, and concerns all that is desired."""
        daemon.leadership = replace(LEADS, reign=1, begun_after_seq=40_500_000)
        daemon.read_in = 0
        assert daemon.see(42, "SPY", "QQQ") == []  # the demand of this term is not read yet
        daemon.read_in = 1
        assert daemon.see(43, "SPY") == []
        changed = Reason("leader_changed", "another daemon published before this one")
        assert daemon.see(44, "SPY", "QQQ") == [gap(40.5, 44, 2, changed)]
        assert daemon.see(45, "SPY", "QQQ") == []

    def test_the_first_leader_states_none(self, daemon: Dialogue) -> None:
        """Where nobody published before, nothing was interrupted."""
        assert daemon.see(1, "SPY", "QQQ") == []

    def test_a_leader_that_lost_its_data_states_none(self, daemon: Dialogue) -> None:
        """Without a seq it is not known since when prices are missing."""
        daemon.leadership = replace(LEADS, reign=1)
        assert daemon.see(1, "SPY", "QQQ") == []

    def test_nothing_is_stated_without_leadership(self, daemon: Dialogue) -> None:
        """The gap ends once this daemon leads again, and is one."""
        daemon.lost(2, "SPY", "QQQ", reason=why_given_up(redis_away=True))
        daemon.leadership = STANDBY
        assert daemon.see(3, "SPY", "QQQ") == []
        daemon.leadership = replace(LEADS, term=2, begun_after_seq=1_900_000)
        assert daemon.see(4, "SPY", "QQQ") == []  # the demand of this term is not read yet
        daemon.read_in = 2
        found = daemon.see(5, "SPY", "QQQ")
        assert found == [gap(2, 5, 2, why_given_up(redis_away=True))]

    def test_another_leader_between_states_its_own(self, daemon: Dialogue) -> None:
        """What this daemon missed before the other one led is not its to state."""
        daemon.lost(2, "SPY", "QQQ")
        daemon.leadership = replace(STANDBY, reign=1)
        assert daemon.see(3) == []
        daemon.leadership = replace(LEADS, term=2, reign=1, begun_after_seq=50_000_000)
        daemon.read_in = 2
        assert [g.begins for g in daemon.see(60, "SPY", "QQQ")] == [utc(50)]

    def test_a_clock_that_disagrees_makes_no_negative_gap(self, daemon: Dialogue) -> None:
        """A seq may be ahead of our clock, and our clock may be set back."""
        daemon.leadership = replace(LEADS, reign=1, begun_after_seq=99_000_000)
        assert [(g.begins, g.ends) for g in daemon.see(42, "SPY", "QQQ")] == [(utc(42), utc(42))]
        daemon.lost(50, "SPY", "QQQ")
        assert [(g.begins, g.ends) for g in daemon.see(49, "SPY", "QQQ")] == [(utc(50), utc(50))]


class TestKeptStream:
    """The stream goes on, and nothing can be published meanwhile."""

    def test_an_outage_of_redis_is_a_gap(self, daemon: Dialogue) -> None:
        """It is stated once, from the last answer to the first, for what the stream brought."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.outage(10, 14)
        assert daemon.see(15, "SPY", "QQQ") == [gap(10, 14, 2, why_given_up(redis_away=True))]
        assert daemon.see(16, "SPY", "QQQ") == []

    def test_a_short_outage_is_none(self, daemon: Dialogue) -> None:
        """It makes a price late, which is promised within the same time after a return."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.outage(10, 10 + SHORTEST_OUTAGE_S)
        assert daemon.see(15, "SPY", "QQQ") == []

    def test_an_outage_that_outlasts_the_term_is_one_gap(self, daemon: Dialogue) -> None:
        """It ends when this daemon leads again, and is stated when Redis counts as back."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.health = RedisHealth(away="no answer")
        daemon.leadership = STANDBY
        assert daemon.see(20, "SPY", "QQQ") == []
        daemon.leads_again(9)
        assert daemon.see(30, "SPY", "QQQ") == []
        daemon.outage(10, 29)
        assert daemon.see(31, "SPY", "QQQ") == [gap(10, 30, 2, why_given_up(redis_away=True))]
        assert daemon.see(32, "SPY", "QQQ") == []

    def test_a_key_that_lapsed_is_a_gap(self, daemon: Dialogue) -> None:
        """A daemon that froze finds that its key had lapsed, although Redis answered."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.leads_again(9)
        assert daemon.see(17, "SPY", "QQQ") == [gap(9, 17, 2, why_given_up(redis_away=False))]
        assert daemon.see(18, "SPY", "QQQ") == []

    def test_what_was_not_served_missed_nothing(self, daemon: Dialogue) -> None:
        """Without symbols on the stream, or without a right to publish, nothing is stated."""
        daemon.outage(10, 14)
        assert daemon.see(15) == []
        daemon.leadership = STANDBY
        daemon.outage(20, 24)
        assert daemon.see(25, "SPY", "QQQ") == []
        daemon.desired = frozenset({"NEW"})
        daemon.leadership = LEADS
        assert daemon.see(26, "SPY", "QQQ") == []

    def test_a_session_that_ends_meanwhile_is_the_same_interruption(self, daemon: Dialogue) -> None:
        """One gap is stated, which begins where the first of both did."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.lost(12, "SPY", "QQQ")
        daemon.outage(10, 14)
        assert daemon.see(15) == []
        assert daemon.see(16, "SPY", "QQQ") == [gap(10, 16, 2)]

    def test_an_outage_within_a_gap_is_not_stated_again(self, daemon: Dialogue) -> None:
        """The session may be back before Redis counts as back."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.lost(9, "SPY", "QQQ")
        assert daemon.see(15, "SPY", "QQQ") == [gap(9, 15, 2)]
        daemon.outage(10, 14)
        assert daemon.see(16, "SPY", "QQQ") == []

    def test_an_outage_under_another_leader_is_not_ours(self, daemon: Dialogue) -> None:
        """The gap of the change says all."""
        assert daemon.see(1, "SPY", "QQQ") == []
        daemon.outage(10, 14)
        daemon.leadership = replace(LEADS, term=2, reign=1, begun_after_seq=12_000_000)
        daemon.read_in = 2
        assert [(g.code, g.begins) for g in daemon.see(15, "SPY", "QQQ")] == [
            ("leader_changed", utc(12))
        ]

    @pytest.mark.parametrize("reign", [0, 1])
    def test_a_redis_that_was_away_at_the_start_is_no_gap_of_ours(
        self, daemon: Dialogue, reign: int
    ) -> None:
        """Where Redis never answered before, the outage has no beginning, and is not stated."""
        monitor = RedisMonitor()
        monitor.failed(1, "no answer")
        daemon.health = monitor.answered(2, 2)
        seq = 1_500_000 if reign else None  # of another daemon
        daemon.leadership = replace(LEADS, reign=reign, begun_after_seq=seq)
        assert daemon.see(2) == []
        daemon.health = monitor.checked(3)
        assert daemon.health.gone_at == float("-inf")
        assert [g.begins for g in daemon.see(3, "SPY", "QQQ")] == [utc(1.5)] * reign

    def test_an_outage_that_goes_on_in_our_reign_is_stated_from_there(
        self, daemon: Dialogue
    ) -> None:
        """A standby whose Redis was away led after another daemon, and Redis went away again."""
        daemon.leadership = replace(LEADS, reign=1, begun_after_seq=12_000_000)
        assert [g.begins for g in daemon.see(15, "SPY", "QQQ")] == [utc(12)]
        daemon.outage(5, 20)
        away = why_given_up(redis_away=True)
        assert daemon.see(21, "SPY", "QQQ") == [gap(15, 20, 2, away)]


def test_gaps_are_counted_and_the_newest_are_kept(daemon: Dialogue) -> None:
    """Who looks late gets each gap once, and memory is bounded."""
    for n in range(MOST_KEPT + 3):
        daemon.lost(10 * n, "SPY")
        daemon.see(10 * n + 5, "SPY", "QQQ")
    found = daemon.gaps.found
    assert found.count == MOST_KEPT + 3
    assert len(found.recent) == MOST_KEPT
    assert found.since(found.count) == ()
    assert found.since(found.count - 2) == found.recent[-2:]
    assert found.since(0) == found.recent
    assert GapsFound().since(0) == ()
    assert found.shown == found.recent[-MOST_SHOWN:]
    assert GapsFound().shown == ()


@pytest.mark.parametrize(
    ("label", "last", "since"),
    [
        ("close_1001", 90.0, 100.0),
        ("ping_timeout", 90.0, 90.0),
        ("mute", 90.0, 90.0),
        ("mute", 101.0, 100.0),
        ("ping_timeout", None, 100.0),
    ],
)
def test_a_session_may_have_been_silent_before_it_ended(
    label: str, last: float | None, since: float
) -> None:
    """Where silence ended the session, the gap begins with the last message."""
    assert silent_since(label, last, 100.0) == since


@pytest.mark.parametrize(("away", "code"), [(True, "redis_away"), (False, "leader_key_lapsed")])
def test_why_a_session_is_given_up(away: bool, code: Code) -> None:
    """A frozen daemon loses its key too, although Redis answers."""
    assert why_given_up(redis_away=away).code == code
