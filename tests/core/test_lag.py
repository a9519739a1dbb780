"""When a stream is behind: the lag of single quotes, second by second, under a manual clock."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.lag import WINDOW_S, ClockReading, Lag, LagSamples, LagState, LagTimes

IN_TIME = LagState()
TIMES = LagTimes()
BEHIND_42_S = "the stream is behind: prices come 42 s after their exchange time"
AHEAD_1_H = "the clock of this machine is 60 minutes ahead of Alpaca's"


class Stream:
    """A stream whose median lag is told each second, and what is decided about it."""

    def __init__(self, limit_s: float | None = 10.0) -> None:
        self.lag = Lag(limit_s)
        self.now = 1000.0
        self.lag.opened(self.now)

    def goes_on(self, lag_s: float | None, seconds: float) -> None:
        """Let this many seconds pass with this lag."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 1.0, end)
            self.lag.measured(lag_s, self.now)

    def rest_says(self, ahead_s: float) -> None:
        """Have REST tell that this machine's clock is ahead by so much."""
        self.lag.read_clock(ClockReading(ahead_s, self.now))

    @property
    def code(self) -> str | None:
        """The code of what is said about the lag."""
        reason = self.lag.state.behind or self.lag.state.clock
        return None if reason is None else reason.code


# The median


def test_the_median_is_over_the_last_seconds() -> None:
    """Older samples do not count, and without a sample there is no median."""
    samples = LagSamples()
    assert samples.median_s(0.0) is None
    for second, lag_s in enumerate((5.0, 0.1, 0.3, 0.2)):
        samples.add(lag_s, float(second))
    assert samples.median_s(3.0) == 0.3
    assert samples.median_s(WINDOW_S) == 0.3
    assert samples.median_s(WINDOW_S + 0.5) == 0.2
    assert samples.median_s(WINDOW_S + 3.1) is None


def test_a_new_session_begins_without_samples() -> None:
    """The lag of the session before says nothing about this one."""
    stream = Stream()
    stream.lag.samples.add(30.0, stream.now)
    stream.lag.opened(stream.now)
    assert stream.lag.samples.median_s(stream.now) is None


@given(st.lists(st.floats(-5, 50), min_size=1, max_size=1200))
def test_a_few_odd_quotes_do_not_move_the_median(lags: list[float]) -> None:
    """The samples are bounded, and the median is one of them."""
    samples = LagSamples()
    for index, lag_s in enumerate(lags):
        samples.add(lag_s, index * 0.02)
    assert samples.median_s(len(lags) * 0.02) in lags[-500:]


# Behind


def test_a_lag_above_the_limit_counts_after_15_seconds() -> None:
    """The reason says how far behind the stream was then, and stays as it is."""
    stream = Stream()
    stream.goes_on(42.0, 15)
    assert stream.code is None
    stream.goes_on(42.0, 1)
    behind = stream.lag.state.behind
    assert behind == ("lagging", BEHIND_42_S)
    stream.goes_on(300.0, 60)
    assert stream.lag.state.behind is behind


def test_a_lag_within_the_limit_is_no_fault() -> None:
    """At the limit, and a moment ahead of the clock, a stream is in time."""
    stream = Stream()
    for lag_s in (10.0, 0.02, -1.9):
        stream.goes_on(lag_s, 60)
        assert stream.lag.state == IN_TIME
        assert not stream.lag.asks_clock(stream.now)


def test_one_moment_in_time_ends_it() -> None:
    """The 15 s are without a break, and a stream that is in time again is said to be."""
    stream = Stream()
    codes = []
    for lag_s, seconds in ((42.0, 15), (9.0, 1), (42.0, 15), (42.0, 1), (9.0, 1)):
        stream.goes_on(lag_s, seconds)
        codes.append(stream.code)
    assert codes == [None, None, None, "lagging", None]


@pytest.mark.parametrize("limit_s", [None, inf])
def test_without_a_limit_no_lag_counts(limit_s: float | None) -> None:
    """0, ``delayed_sip`` and ``test`` have no limit, and nothing is asked for their sake."""
    stream = Stream(limit_s)
    assert stream.lag.watched == (limit_s is not None)
    stream.goes_on(900.0, 60)
    assert stream.code is None
    assert not stream.lag.asks_clock(stream.now)
    assert stream.lag.remakes(stream.now) is None


def test_few_late_quotes_count_too() -> None:
    """Seconds without a quote are no break: a sleepy symbol can be behind."""
    stream = Stream()
    stream.goes_on(42.0, 1)
    stream.goes_on(None, 19)
    assert stream.code is None
    stream.goes_on(42.0, 1)
    assert stream.code == "lagging"


def test_a_silent_stream_is_not_behind() -> None:
    """After half a minute without a quote nothing is known, which is for the silence to judge."""
    stream = Stream()
    stream.goes_on(42.0, 16)
    stream.goes_on(None, 29)
    assert stream.code == "lagging"
    stream.goes_on(None, 1)
    assert stream.lag.state == IN_TIME


# Remaking the connection


def test_the_connection_is_remade_at_most_once_in_10_minutes() -> None:
    """It drops the backlog once; a lag that stays is not helped by another try."""
    stream = Stream()
    stream.goes_on(42.0, 15)
    assert stream.lag.remakes(stream.now) is None
    stream.goes_on(42.0, 1)
    assert stream.lag.remakes(stream.now) == stream.lag.state.behind
    stream.goes_on(42.0, 599)
    assert stream.lag.remakes(stream.now) is None
    stream.goes_on(42.0, 1)
    assert stream.lag.remakes(stream.now) is not None
    assert stream.lag.remakes(stream.now) is None


def test_the_new_connection_stays_behind_until_a_quote_is_in_time() -> None:
    """That a connection is new does not make its prices fresh."""
    stream = Stream()
    stream.goes_on(42.0, 16)
    stream.lag.opened(stream.now)
    stream.goes_on(None, 5)
    assert stream.code == "lagging"
    stream.goes_on(0.1, 1)
    assert stream.code is None


# The clock


@pytest.mark.parametrize(
    ("ahead_s", "lag_s", "code", "text"),
    [
        (60.0, 60.02, "clock_wrong", "the clock of this machine is 60 s ahead of Alpaca's"),
        (-60.0, -59.9, "clock_wrong", "the clock of this machine is 60 s behind Alpaca's"),
        (3600.0, 3600.5, "clock_wrong", AHEAD_1_H),
        (60.0, 102.0, "lagging", BEHIND_42_S),
        (-60.0, -18.0, "lagging", BEHIND_42_S),
        (1.5, 42.0, "lagging", BEHIND_42_S),
        # REST's time explains nothing: no quote arrives before its time.
        (60.0, 42.0, "lagging", BEHIND_42_S),
        (60.0, -60.0, None, None),
        (0.0, -60.0, None, None),
    ],
)  # fmt: skip
def test_a_wrong_clock_is_told_apart(
    ahead_s: float, lag_s: float, code: str | None, text: str | None
) -> None:
    """The lag that remains without the error of the clock counts."""
    stream = Stream()
    stream.goes_on(lag_s, 1)
    assert stream.lag.asks_clock(stream.now)
    stream.rest_says(ahead_s)
    stream.goes_on(lag_s, 16)
    state = stream.lag.state
    reason = state.behind or state.clock
    assert reason == (None if code is None else (code, text))
    remaining_s = lag_s - state.clock_ahead_s
    assert (code == "clock_wrong") == (abs(remaining_s) <= 10.0)


def test_a_wrong_clock_and_a_lag_are_both_known() -> None:
    """Of two reasons the lag is said, and the error of the clock is still taken off."""
    stream = Stream()
    stream.goes_on(102.0, 1)
    stream.rest_says(60.0)
    stream.goes_on(102.0, 16)
    state = stream.lag.state
    assert state.behind is not None
    assert state.clock is not None
    assert state.clock_ahead_s == 60.0


def test_an_earlier_reading_proves_nothing() -> None:
    """The clock may have been set since, so it is read anew once the lag is not plausible."""
    stream = Stream()
    stream.rest_says(60.0)
    stream.goes_on(60.0, 1)
    assert stream.lag.asks_clock(stream.now)
    stream.goes_on(60.0, 16)
    assert stream.code == "lagging"
    stream.rest_says(60.0)
    stream.goes_on(60.0, 1)
    assert stream.code == "clock_wrong"


def test_rest_that_does_not_answer_leaves_the_lag_as_measured() -> None:
    """It is asked again after a moment, and a lag without an excuse counts."""
    stream = Stream()
    stream.goes_on(60.0, 1)
    asked = 0
    for _ in range(16):
        asked += stream.lag.asks_clock(stream.now)
        stream.goes_on(60.0, 1)
    assert asked == 4
    assert stream.code == "lagging"


def test_a_wrong_clock_is_read_once_a_minute() -> None:
    """It may be set at any time, or drift on."""
    stream = Stream()
    stream.goes_on(60.0, 1)
    asked = 0
    for _ in range(600):
        if stream.lag.asks_clock(stream.now):
            asked += 1
            stream.rest_says(60.0)
        stream.goes_on(60.0, 1)
    assert asked == 10
    reason = stream.lag.state.clock
    stream.rest_says(61.0)
    stream.goes_on(61.0, 1)
    assert stream.lag.state.clock is reason
    stream.rest_says(70.0)
    stream.goes_on(70.0, 1)
    assert stream.lag.state.clock != reason


def test_a_clock_that_was_set_is_right() -> None:
    """A lag that is plausible again ends what was said of the clock."""
    stream = Stream()
    stream.goes_on(60.0, 1)
    stream.rest_says(60.0)
    stream.goes_on(60.0, 20)
    assert stream.code == "clock_wrong"
    stream.goes_on(0.1, 1)
    assert stream.lag.state == IN_TIME


# What always holds


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0.1, 5.0, 11.0, 42.0, -30.0, None)),
            st.integers(1, 20),
            st.sampled_from((None, 0.0, 40.0, -30.0)),
        ),
        max_size=30,
    )
)
def test_behind_means_15_seconds_above_the_limit(
    periods: list[tuple[float | None, int, float | None]],
) -> None:
    """A stream that is behind was not in time in any of the last 15 s, whatever the clock is."""
    stream = Stream()
    in_time_at, remade_at = stream.now, -inf
    for lag_s, seconds, ahead_s in periods:
        if ahead_s is not None:
            stream.rest_says(ahead_s)
        for _ in range(seconds):
            before = stream.lag.state.behind
            stream.goes_on(lag_s, 1)
            if lag_s is not None and -2.0 <= lag_s <= 10.0:
                in_time_at = stream.now
                assert stream.lag.state == IN_TIME
            if before is None and stream.lag.state.behind is not None:
                assert stream.now - in_time_at > TIMES.sustained_s
            if stream.lag.remakes(stream.now):
                assert stream.lag.state.behind is not None
                assert stream.now - remade_at >= TIMES.remake_every_s
                remade_at = stream.now
