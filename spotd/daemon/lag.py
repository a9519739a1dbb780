"""Measures how far the stream is behind, publishes it, and remakes the connection where it is.

Must not decide what counts as behind, nor when to remake the connection: ``core.lag`` does.
"""

from __future__ import annotations

import time

import structlog

from spotd.alpaca.stream import AlpacaStream
from spotd.core.lag import Lag, LagState
from spotd.core.states import StreamState
from spotd.daemon.questions import Questions
from spotd.daemon.value import Value, WakeUp, beat_before
from spotd.errors import StreamError

MEASURE_EVERY_S = 1.0
_SILENT_PAUSES = 5  # a silent stream is measured less often, by this factor

log = structlog.get_logger("spotd.lag")


class LagLoop:
    """The loop that measures the lag. It owns ``state``."""

    def __init__(
        self,
        alpaca: AlpacaStream,
        questions: Questions,
        *,
        lag: Lag,
        stream: Value[StreamState],
        state: Value[LagState],
        measure_every_s: float = MEASURE_EVERY_S,
    ) -> None:
        self._alpaca = alpaca
        self._questions = questions
        self._lag = lag
        self._stream = stream
        self._state = state
        self._measure_every_s = measure_every_s
        self._wake_up = WakeUp()
        stream.wakes(self._wake_up)

    async def run(self) -> None:
        """Measure while the stream brings prices."""
        while True:
            if not self._stream.get().serves:
                await self._wake_up.wait()
                continue
            flows = self._measure(time.monotonic())
            if self._lag.asks_clock(time.monotonic()):
                await self._ask_clock()
                self._measure(time.monotonic())
            behind = self._lag.remakes(time.monotonic())
            if behind is not None:
                self._alpaca.give_up(StreamError(behind.text, reason="lagging"))
            pause_s = self._measure_every_s * (1 if flows else _SILENT_PAUSES)
            await self._wake_up.wait(beat_before(time.monotonic() + pause_s))

    def _measure(self, now: float) -> bool:
        """Measure, and publish what follows. Return whether quotes flow."""
        self._lag.read_clock(self._questions.clock)
        lag_s = self._lag.samples.median_s(now)
        self._lag.measured(lag_s, now)
        self._publish()
        return lag_s is not None

    def _publish(self) -> None:
        before, after = self._state.get(), self._lag.state
        if not self._state.set(after):
            return
        if after.behind != before.behind:
            if after.behind is not None:
                log.warning("the stream is behind", why=after.behind.text)
            else:
                log.info("the stream is in time again")
        if (after.clock is None) != (before.clock is None):
            if after.clock is not None:
                log.warning("the clock is wrong", why=after.clock.text)
            else:
                log.info("the clock is right again")

    async def _ask_clock(self) -> None:
        """Have REST tell its time, as it does in every answer, whatever it is asked for."""
        await self._questions.ask(sorted(self._stream.get().subscriptions.active)[:1])
