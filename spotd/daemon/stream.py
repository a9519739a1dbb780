"""Keeps the stream open while we lead, and its subscriptions as desired.

Breaker and backoff pace the tries; neither is reset by a connection as such. An acknowledgement
closes the breaker. The backoff starts anew only after a session that lasted: a server that takes
us in and throws us out again would be called upon for ever at the shortest pause. Another
session holding the account (406) is no failure: it may be gone in a moment, and the server frees
a dead one after about 90 s, so it is tried again soon, then slowly, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import structlog
from tenacity import RetryCallState
from tenacity.wait import wait_exponential, wait_random

from spotd.alpaca.stream import AlpacaStream
from spotd.core.subscriptions import MAX_SYMBOLS_PER_REQUEST, UnexpectedAnswerError
from spotd.daemon.shared import Shared
from spotd.errors import ConnectionLimitError, RequestRefusedError, StreamError
from spotd.ops.metrics import BREAKER_NAME
from spotd.symbols import WILDCARD

_LOOKS_EVERY_S = 0.25
# Between two requests of a long row. Each acknowledgement carries all symbols, and brings states
# to write and prices to fetch: one after the other without a pause they would fill a second in
# which what is live already comes late. Where nothing was live before the row, it has no pauses:
# the sooner it ends, the better.
_BREATH_S = 0.02
_SLICE = 2_000  # symbols of an acknowledgement

log = structlog.get_logger("spotd.stream")


@dataclass(frozen=True, slots=True)
class Pace:
    """How tries are spaced, in seconds."""

    first_s: float = 0.5
    most_s: float = 30.0
    jitter_s: float = 0.5
    seat_first_s: tuple[float, ...] = (2.0, 4.0)  # after the first 406 in a row, the second …
    connection_limit_s: float = 10.0  # … and every later one; none is longer
    rate_limit_s: float = 10.0  # after HTTP 429, at least
    server_asks_most_s: float = 300.0  # Retry-After beyond that is not believed
    steady_s: float = 30.0  # a session that lasted so long ends a row of failures

    def backoff_s(self, failures: int) -> float:
        """Exponential with jitter, after this many failures in a row."""
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = max(1, failures)
        # 2 ** 30 is far beyond `most_s`, and a float can hold it
        state.attempt_number = min(state.attempt_number, 30)
        wait = wait_exponential(multiplier=self.first_s, max=self.most_s)
        return (wait + wait_random(0, self.jitter_s))(state)

    def seat_s(self, refusals: int) -> float:
        """After so many 406 in a row, give or take a fifth."""
        pauses = (*self.seat_first_s, self.connection_limit_s)
        pause_s = min(pauses[min(refusals, len(pauses)) - 1], self.connection_limit_s)
        return pause_s * random.uniform(0.8, 1.2)  # noqa: S311


class StreamLoop:
    """The one loop that connects to Alpaca."""

    def __init__(self, shared: Shared, stream: AlpacaStream, pace: Pace | None = None) -> None:
        self._shared = shared
        self._stream = stream
        self._pace = Pace() if pace is None else pace
        self._limit_reported: int | None = None
        self._without_trades_reported: frozenset[str] = frozenset()
        self._in_a_row = 0  # sessions that failed, since one that lasted
        self._seat_refusals = 0  # in a row, since a session that opened
        self._served_since: float | None = None  # the first acknowledgement of this session

    async def run(self) -> None:
        """Connect and serve for ever, while we lead. Raises AlpacaRefusedError."""
        shared = self._shared
        while True:
            if not shared.leads():
                shared.facts.stream_waiting = None
                await shared.bells.stream.wait(1.0)
                continue
            await self._wait_for_breaker()
            if not shared.leads():
                continue
            try:
                shared.breaker.attempt(time.monotonic())
                await self._session_while_leading()
            except ConnectionLimitError as error:
                self._seat_refusals += 1
                await self._pause(error, self._pace.seat_s(self._seat_refusals))
            except StreamError as error:
                now = time.monotonic()
                shared.breaker.failed(now)
                self._count_failure(now)
                await self._pause(error, self._backoff_s(error))

    async def _session(self) -> None:
        """One connection, from opening to its end, which it raises."""
        shared = self._shared
        shared.facts.stream_waiting = None
        shared.bells.report.ring()
        self._served_since = None
        try:
            await self._open()
            await self._serve()
        finally:
            was_open, shared.facts.stream_open = shared.facts.stream_open, False
            shared.facts.stream_mute = shared.facts.all_refused = False
            shared.subscriptions.disconnected()
            shared.bells.report.ring()
            await self._stream.close()
            if was_open:
                log.info("stream closed")

    async def _open(self) -> None:
        shared = self._shared
        log.info("connecting", endpoint=self._stream.endpoint)
        await self._stream.open()
        self._seat_refusals = 0
        shared.facts.stream_open = True
        shared.facts.stream_mute = False
        shared.data_at = time.monotonic()
        shared.market.clear_halts()
        shared.subscriptions.connected()
        shared.bells.report.ring()
        log.info("authenticated")

    async def _serve(self) -> None:
        """Bring the subscriptions to what is desired, again and again."""
        shared = self._shared
        live_before = False
        while True:
            request = shared.subscriptions.next_request(time.monotonic())
            if request is None:
                live_before = bool(shared.subscriptions.active)
                all_refused = shared.subscriptions.all_refused()
                if all_refused != shared.facts.all_refused:
                    shared.facts.all_refused = all_refused
                    shared.bells.report.ring()
                await self._idle()
                continue
            try:
                answer = await self._stream.request(request)
            except RequestRefusedError as error:
                self._rejected(error)
                continue
            quotes, trades = await _gathered(answer.quotes), await _gathered(answer.trades)
            try:
                new = shared.subscriptions.acknowledged(quotes, trades, time.monotonic())
            except UnexpectedAnswerError as error:
                raise StreamError(str(error), reason="protocol") from error
            self._acknowledged(new)
            if live_before and len(request.symbols) >= MAX_SYMBOLS_PER_REQUEST:
                await asyncio.sleep(_BREATH_S)

    def _acknowledged(self, new: frozenset[str]) -> None:
        shared = self._shared
        if shared.breaker.state != "closed" or shared.breaker.failures:
            log.info("stream works again", breaker=BREAKER_NAME)
        shared.breaker.succeeded()
        if self._served_since is None:
            self._served_since = time.monotonic()
        if new:
            # One that left the demand meanwhile is not wanted for having been acknowledged.
            fresh = shared.subscriptions.desired
            if WILDCARD not in new:
                fresh &= new
            shared.facts.ever_active |= fresh
            shared.to_prime |= fresh - {WILDCARD}
            shared.bells.prime.ring()
        without_trades = shared.subscriptions.without_trades
        if without_trades != self._without_trades_reported:
            self._without_trades_reported = without_trades
            if without_trades:
                log.warning("trades were not acknowledged", symbols=len(without_trades))
        limit = shared.subscriptions.learned_limit
        if limit != self._limit_reported:
            self._limit_reported = limit
            if limit is not None:
                log.warning("symbol limit of the plan reached", symbols=limit)
        shared.bells.report.ring()

    def _rejected(self, error: RequestRefusedError) -> None:
        shared = self._shared
        trades = shared.subscriptions.trades
        try:
            sentence = shared.subscriptions.rejected(error.code or 0, str(error), time.monotonic())
        except UnexpectedAnswerError as unexpected:
            raise StreamError(str(unexpected), reason=error.reason, code=error.code) from error
        log.warning("request refused", why=sentence, code=error.code)
        if trades and not shared.subscriptions.trades:
            shared.conflator.now = time.monotonic()
            shared.market.forget_last_sales()
            shared.bells.publish.ring()
        shared.bells.report.ring()

    async def _idle(self) -> None:
        """Wait until there may be something to ask for. Raises when the session is over."""
        shared = self._shared
        ended = asyncio.ensure_future(self._stream.ended())
        rung = asyncio.ensure_future(shared.bells.stream.wait(1.0))
        try:
            await asyncio.wait((ended, rung), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ended.result()
        finally:
            for waiter in (ended, rung):
                waiter.cancel()
            await asyncio.gather(ended, rung, return_exceptions=True)

    async def _session_while_leading(self) -> None:
        """One session, ended with a close frame as soon as we lead no more."""
        shared = self._shared
        session = asyncio.create_task(self._session(), name="stream session")
        try:
            while not session.done() and shared.leads():
                left_s = shared.lease.until - time.monotonic()
                await asyncio.wait((session,), timeout=min(max(0.0, left_s), _LOOKS_EVERY_S))
            if session.done():
                session.result()
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def _wait_for_breaker(self) -> None:
        while self._shared.leads():
            now = time.monotonic()
            left_s = self._shared.breaker.wait_s(now)
            if left_s <= 0:
                return
            await self._rest(now + left_s)

    def _count_failure(self, now: float) -> None:
        """One more session failed; one that had lasted begins a new row."""
        since, self._served_since = self._served_since, None
        if since is not None and now - since >= self._pace.steady_s:
            self._in_a_row = 0
        self._in_a_row += 1

    def _backoff_s(self, error: StreamError) -> float:
        pace = self._pace
        pause_s = pace.backoff_s(self._in_a_row)
        if error.reason == "http_429":
            pause_s = max(pause_s, pace.rate_limit_s)
        return max(pause_s, min(error.after_s or 0.0, pace.server_asks_most_s))

    async def _pause(self, error: StreamError, pause_s: float) -> None:
        """Say why the stream is down, and let the time pass, as long as we lead."""
        shared = self._shared
        shared.metrics.reconnects[error.reason] += 1
        now = time.monotonic()
        pause_s = max(pause_s, shared.breaker.wait_s(now))
        opened = shared.breaker.state == "open"
        sentence = str(error)
        if opened:
            sentence += f"; the circuit breaker {BREAKER_NAME} is open"
        shared.facts.stream_waiting = sentence
        shared.bells.report.ring()
        log.warning(
            "stream is down",
            why=str(error),
            reason=error.reason,
            retry_in_s=round(pause_s, 1),
            breaker=BREAKER_NAME,
            breaker_state=shared.breaker.state,
            failures=self._in_a_row,
            exc_info=error.__cause__ if error.reason == "defect" else None,
        )
        await self._rest(now + pause_s)

    async def _rest(self, until: float) -> None:
        """Let time pass, as long as we lead."""
        while self._shared.leads() and (left_s := until - time.monotonic()) > 0:  # noqa: ASYNC110
            # The lease is a matter of time, so a look at the clock, no event, ends it.
            await asyncio.sleep(min(left_s, _LOOKS_EVERY_S))


async def _gathered(symbols: list[str]) -> frozenset[str]:
    """A long list as a set, with turns for other tasks in between."""
    gathered: set[str] = set()
    for start in range(0, len(symbols), _SLICE):
        gathered.update(symbols[start : start + _SLICE])
        if start + _SLICE < len(symbols):
            await asyncio.sleep(0)
    return frozenset(gathered)
