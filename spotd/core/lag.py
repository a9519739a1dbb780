"""Decides whether the stream is behind: how long after their exchange time its quotes arrive.

The median of the last seconds counts, over quotes alone, because overnight's trades are 15 minutes
late by design. Must not ask for the time, and must not end a session itself.

A wrong clock of this machine looks like lag. Alpaca's REST tells the time in each answer, so a lag
that is not plausible is compared with it. The states, by the lag that remains after the error of
the clock is taken off:

- *in time* -> *late*: the lag is above the limit.
- *late* -> *behind*: it was late for 15 s without a break. Every symbol is stale now, and the
  connection is to be remade, which drops what Alpaca holds back for us. It is remade at most once
  in 10 minutes.
- *late* or *behind* -> *in time*: the lag is within the limit again, also in another session, or no
  quote came for half a minute. Whether a silent stream misses prices is not decided here.

While the lag as measured is plausible, the clock is taken for right: two errors of the same size
are less likely than a wrong time in REST's answer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from spotd.reasons import Reason

SAMPLE_EVERY_S = 0.02
WINDOW_S = 10.0
_MOST_SAMPLES = int(WINDOW_S / SAMPLE_EVERY_S)

# REST's time has whole seconds, and is as old as the answer was under way.
CLOCK_SLACK_S = 2.0
_NEVER = float("-inf")


class LagSamples:
    """Lags of single quotes, as many as tell the median of the last seconds.

    ``add`` is on the hot path. Its caller keeps ``SAMPLE_EVERY_S`` between two samples.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MOST_SAMPLES)

    def add(self, lag_s: float, now: float) -> None:
        """Take in the lag of a quote that arrived at ``now``."""
        self._samples.append((now, lag_s))

    def clear(self) -> None:
        """Forget all samples: a new session begins."""
        self._samples.clear()

    def median_s(self, now: float) -> float | None:
        """Return the median of the last ten seconds; None where no quote arrived in them."""
        samples = self._samples
        while samples and now - samples[0][0] > WINDOW_S:
            samples.popleft()
        if not samples:
            return None
        return sorted(lag_s for _, lag_s in samples)[len(samples) // 2]


@dataclass(frozen=True, slots=True)
class ClockReading:
    """By how much the clock of this machine is ahead of REST's, read at ``at`` (monotonic)."""

    ahead_s: float
    at: float

    @property
    def wrong(self) -> bool:
        """Whether the difference is more than the reading's own error."""
        return abs(self.ahead_s) > CLOCK_SLACK_S


@dataclass(frozen=True, slots=True)
class LagState:
    """What others may know. ``behind``: all prices are late. ``clock``: this machine's is wrong.

    ``clock_ahead_s`` is to be taken off each measured lag: 0 unless the clock is wrong.
    """

    behind: Reason | None = None
    clock: Reason | None = None
    clock_ahead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LagTimes:
    """The times of the rule, in seconds."""

    sustained_s: float = 15.0  # late without a break before it counts
    remake_every_s: float = 600.0  # at least, between two remade connections
    forgotten_after_s: float = 30.0  # without a quote
    read_clock_every_s: float = 60.0  # while the lag is not plausible
    clock_retry_s: float = 5.0  # after REST did not answer


_IN_TIME = LagState()


class Lag:
    """The lag of one daemon's stream, over all its sessions.

    ``limit_s`` None: the lag is never held against the stream.
    """

    def __init__(self, limit_s: float | None, times: LagTimes | None = None) -> None:
        self.state = _IN_TIME
        self.samples = LagSamples()
        self._limit_s = limit_s
        self._times = LagTimes() if times is None else times
        self._clock: ClockReading | None = None
        self._asked_clock_at = _NEVER
        self._implausible_since: float | None = None
        self._late_since: float | None = None
        self._quote_at = _NEVER
        self._remade_at = _NEVER

    @property
    def watched(self) -> bool:
        """Whether the lag matters at all."""
        return self._limit_s is not None

    def opened(self, now: float) -> None:
        """Take in that a new session is open. Whether it is in time will be measured."""
        self.samples.clear()
        self._quote_at = now

    def read_clock(self, reading: ClockReading | None) -> None:
        """Take in the newest reading of the clock; None where REST told no time yet."""
        self._clock = reading

    def asks_clock(self, now: float) -> bool:
        """Return whether REST is to be asked for its time now; then it counts as asked."""
        since = self._implausible_since
        if since is None or now - self._asked_clock_at < self._times.clock_retry_s:
            return False
        reading = self._clock
        if (
            reading is not None
            and reading.at >= since
            and now - reading.at < self._times.read_clock_every_s
        ):
            return False
        self._asked_clock_at = now
        return True

    def measured(self, lag_s: float | None, now: float) -> None:
        """Take in the median of the last seconds, by this machine's clock; None: no quote came."""
        if self._limit_s is None:
            return
        if lag_s is None:
            if now - self._quote_at >= self._times.forgotten_after_s:
                self._in_time()
            return
        self._quote_at = now
        if -CLOCK_SLACK_S <= lag_s <= self._limit_s:
            self._in_time()
            return
        if self._implausible_since is None:
            self._implausible_since = now
        clock = self._clock_said(lag_s)
        real_s = lag_s - clock.clock_ahead_s
        if real_s <= self._limit_s:
            self._late_since = None
            self.state = clock
            return
        if self._late_since is None:
            self._late_since = now
        behind = self.state.behind
        if behind is None and now - self._late_since >= self._times.sustained_s:
            behind = Reason(
                "lagging",
                f"the stream is behind: prices come {_span(real_s)} after their exchange time",
            )
        self.state = LagState(behind, clock.clock, clock.clock_ahead_s)

    def remakes(self, now: float) -> Reason | None:
        """Return why the connection is to be remade now, or None. Then it counts as remade."""
        if self.state.behind is None or now - self._remade_at < self._times.remake_every_s:
            return None
        self._remade_at = now
        return self.state.behind

    def _in_time(self) -> None:
        self._implausible_since = self._late_since = None
        self.state = _IN_TIME

    def _clock_said(self, lag_s: float) -> LagState:
        """Return what is known of the clock, by a reading made since the lag is implausible.

        An earlier reading proves nothing: the clock may have been set since.
        """
        reading, since = self._clock, self._implausible_since
        if reading is None or since is None or reading.at < since or not reading.wrong:
            return _IN_TIME
        # No quote arrives before its time. So this reading explains nothing: REST's is wrong.
        if lag_s - reading.ahead_s < -CLOCK_SLACK_S:
            return _IN_TIME
        known = self.state
        if known.clock is not None and abs(known.clock_ahead_s - reading.ahead_s) < CLOCK_SLACK_S:
            return LagState(None, known.clock, reading.ahead_s)
        side = "ahead of" if reading.ahead_s > 0 else "behind"
        text = f"the clock of this machine is {_span(abs(reading.ahead_s))} {side} Alpaca's"
        return LagState(None, Reason("clock_wrong", text), reading.ahead_s)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
