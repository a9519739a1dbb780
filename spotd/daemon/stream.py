"""Keeps the stream open while we may hold one, and its subscriptions as desired.

Must not decide when to try again (``core.pacing`` does) nor what to ask Alpaca for
(``core.subscriptions`` does).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from spotd.alpaca.stream import AlpacaStream
from spotd.core.demand import Demand, DemandStep, to_fetch
from spotd.core.gaps import Gaps, GapsFound, silent_since, why_given_up
from spotd.core.interruptions import (
    BREAKER_OPEN,
    INTERRUPTED,
    why_connecting,
    why_stale,
    why_waiting,
)
from spotd.core.leadership import Leadership
from spotd.core.pacing import Pacing
from spotd.core.redis_health import RedisHealth
from spotd.core.states import Phase, StreamState
from spotd.core.subscription_state import SubscriptionState
from spotd.core.subscriptions import Request, Subscriptions, UnexpectedAnswerError
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp
from spotd.errors import ConnectionLimitError, RequestRefusedError, StreamError
from spotd.ops.metrics import BREAKER_NAME, Metrics
from spotd.reasons import Reason

# A refused symbol is asked for again after an hour, so a check each minute is often enough.
_CHECK_EVERY_S = 60.0
# The pause between two requests of a long row. Without pauses, a row fills a second.
PAUSE_IN_ROW_S = 0.02

log = structlog.get_logger("spotd.stream")


class StreamLoop:
    """The one loop that connects to Alpaca. It owns the subscriptions and the stream's state.

    ``fetch`` takes symbols that need a first price.
    """

    def __init__(
        self,
        alpaca: AlpacaStream,
        prices: Prices,
        *,
        subscriptions: Subscriptions,
        pacing: Pacing,
        leadership: Value[Leadership],
        health: Value[RedisHealth],
        demand: Value[Demand],
        stream: Value[StreamState],
        gaps: Value[GapsFound],
        fetch: Callable[[frozenset[str]], None],
        metrics: Metrics,
        pause_in_row_s: float = PAUSE_IN_ROW_S,
    ) -> None:
        self._alpaca = alpaca
        self._prices = prices
        self._subscriptions = subscriptions
        self._pacing = pacing
        self._leadership = leadership
        self._health = health
        self._demand = demand
        self._stream = stream
        self._gaps_found = gaps
        self._gaps = Gaps()
        self._fetch = fetch
        self._metrics = metrics
        self._pause_in_row_s = pause_in_row_s
        self._failure: str | None = None  # of the last try or session, until one is open
        self._right = WakeUp()  # wakes the guard of the session, and the wait for the next try
        self._wake_up = WakeUp()  # wakes the session
        leadership.wakes(self._right)
        health.wakes(self._right)  # an outage of Redis that is over is a gap

    def follow(self, demand: Demand, step: DemandStep) -> None:
        """Take over a new demand, in the same turn as its value is published."""
        self._subscriptions.want(demand.symbols, first=step.first, sources=demand.sources)
        if step.were_live is not None:
            self._subscriptions.take_over(step.were_live)
        self._tell()
        self._wake_up.set()

    def renew(self, symbols: frozenset[str]) -> None:
        """Subscribe active symbols anew: Alpaca may have lost them."""
        self._subscriptions.renew(symbols)
        self._tell()
        self._wake_up.set()

    async def run(self) -> None:
        """Connect and serve while we lead. Raises AlpacaRefusedError."""
        while True:
            if not self._leadership.get().may_publish(time.monotonic()):
                self._pacing.leadership_lost()
                self._tell("closed")
                await self._right.wait()
                continue
            if not await self._pause(self._pacing.next_try_at):
                continue
            try:
                self._pacing.trying(time.monotonic())
                await self._session_while_held()
            except ConnectionLimitError as error:
                pause_s = self._pacing.connection_limited(time.monotonic(), jitter=_jitter())
                self._down(error, pause_s)
            except StreamError as error:
                pause_s = self._pacing.failed(
                    time.monotonic(),
                    rate_limited=error.reason == "http_429",
                    after_s=error.after_s,
                    jitter=_jitter(),
                )
                self._down(error, pause_s)

    async def _pause(self, until: float) -> bool:
        """Wait until ``until``, in monotonic seconds. Return False once we may not publish."""
        while self._leadership.get().may_publish(now := time.monotonic()):
            if now >= until:
                return True
            if self._stream.get().phase == "closed":
                # A new term began. Only the wait of an open breaker outlasts the term before.
                self._tell("waiting", BREAKER_OPEN)
            await self._right.wait(min(until, self._leadership.get().publish_until))
        return False

    async def _session_while_held(self) -> None:
        """Serve one session, and end it with a close frame as soon as we may not hold it.

        A new reign ends it too: the prices are forgotten, and a new session fetches all of them.
        """
        reign = self._leadership.get().reign
        session = asyncio.create_task(self._session(), name="stream session")
        session.add_done_callback(lambda _: self._right.set())
        try:
            while not session.done():
                self._see_gaps()  # the right to publish may be back, while the session went on
                leadership = self._leadership.get()
                if not leadership.may_hold(time.monotonic()) or leadership.reign != reign:
                    return
                await self._right.wait(leadership.hold_until)
            session.result()
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def _session(self) -> None:
        """Serve one session, from its opening to its end, which it raises."""
        self._tell("connecting", why_connecting(self._failure))
        why: StreamError | None = None
        try:
            await self._open()
            await self._serve()
        except StreamError as error:
            why = error
            raise
        finally:
            was_open = self._stream.get().phase == "open"
            self._close(why if was_open else None)
            await self._alpaca.close()
            if was_open:
                log.info("stream closed")

    def _close(self, why: StreamError | None) -> None:
        """Publish that the session is over. ``why``: how an open one failed; None: it did not."""
        served = self._subscriptions.active
        unix_s = time.time()
        stale: Reason | None = None
        if why is not None:
            stale = why_stale(why.reason, str(why))
            since_unix_s = silent_since(why.reason, self._prices.last_message_unix_s, unix_s)
            self._gaps.interrupted(served, Reason(stale.code, str(why)), since_unix_s)
        elif served:
            # We may not hold it any more. Redis took prices at least until the last renewal.
            stale = INTERRUPTED
            since_unix_s = unix_s - (time.monotonic() - self._leadership.get().renewed_at)
            away = self._health.get().away is not None
            self._gaps.interrupted(served, why_given_up(redis_away=away), since_unix_s)
        self._subscriptions.disconnected()
        self._tell("closed", stale=stale)

    async def _open(self) -> None:
        log.info("connecting", endpoint=self._alpaca.endpoint)
        await self._alpaca.open()
        self._pacing.connected()
        self._failure = None
        self._prices.begin_session()
        self._subscriptions.connected()
        self._tell("open")
        log.info("authenticated")

    async def _serve(self) -> None:
        """Keep the subscriptions as desired until the session ends, and raise its end."""
        ended = asyncio.create_task(self._alpaca.ended(), name="stream end")
        ended.add_done_callback(lambda _: self._wake_up.set())
        try:
            while not ended.done():
                # Before the demand of this term is read, nobody knows what the daemon that led
                # before had live. Symbols that are asked for now would take the room of those.
                known = self._demand.get().term == self._leadership.get().term
                request = self._subscriptions.next_request(time.monotonic()) if known else None
                self._tell()
                if request is None:
                    await self._wake_up.wait(time.monotonic() + _CHECK_EVERY_S)
                    continue
                await self._ask(request)
                if self._subscriptions.gives_way(request):
                    await asyncio.sleep(self._pause_in_row_s)
            raise ended.result()
        finally:
            ended.cancel()
            await asyncio.wait({ended})

    async def _ask(self, request: Request) -> None:
        """Send one request, and take in its answer."""
        try:
            answer = await self._alpaca.request(request)
        except RequestRefusedError as error:
            self._refused(error)
            return
        try:
            new = self._subscriptions.acknowledged(answer.quotes, answer.trades, time.monotonic())
        except UnexpectedAnswerError as error:
            raise StreamError(str(error), reason="protocol") from error
        if self._pacing.served(time.monotonic()):
            log.info("stream works again", breaker=BREAKER_NAME)
        self._fetch(to_fetch(new, self._demand.get()))
        self._tell()

    def _refused(self, error: RequestRefusedError) -> None:
        trades = self._subscriptions.trades
        try:
            sentence = self._subscriptions.refused(error.code or 0, str(error), time.monotonic())
        except UnexpectedAnswerError as unexpected:
            raise StreamError(str(unexpected), reason=error.reason, code=error.code) from error
        log.warning("request refused", why=sentence, code=error.code)
        if trades and not self._subscriptions.trades:
            self._prices.forget_last_sales()
        self._tell()

    def _down(self, error: StreamError, pause_s: float) -> None:
        """Publish and log why the stream is down and when it is tried again."""
        self._metrics.reconnects[error.reason] += 1
        self._failure = str(error)
        self._tell("waiting", why_waiting(error.reason, str(error), self._pacing.breaker))
        log.warning(
            "stream is down",
            why=str(error),
            reason=error.reason,
            retry_in_s=round(pause_s, 1),
            breaker=BREAKER_NAME,
            breaker_state=self._pacing.breaker,
            failures=self._pacing.failures,
            exc_info=error.__cause__ if error.reason == "defect" else None,
        )

    def _tell(
        self,
        phase: Phase | None = None,
        reason: Reason | None = None,
        *,
        stale: Reason | None = None,
    ) -> None:
        """Publish the stream's state with its subscriptions.

        Without a ``phase``, or ``stale``, these remain as they are.
        """
        before = self._stream.get()
        subscriptions = self._subscriptions.state()
        after = replace(before, subscriptions=subscriptions, breaker=self._pacing.breaker)
        if phase is not None:
            after = replace(after, phase=phase, reason=reason)
        if stale is not None:
            after = replace(after, stale=stale)
        if self._stream.set(after) and subscriptions is not before.subscriptions:
            _log_differences(before.subscriptions, subscriptions)
        self._see_gaps()

    def _see_gaps(self) -> None:
        """Publish the gap that ends with the present subscriptions, if one does."""
        found = self._gaps.seen(
            self._leadership.get(),
            self._health.get(),
            self._demand.get(),
            self._stream.get().subscriptions,
            now=time.monotonic(),
            unix_s=time.time(),
        )
        if self._gaps_found.set(found):
            gap = found.recent[-1]
            log.info(
                "prices came again",
                code=gap.code,
                why=gap.reason,
                missing_s=round((gap.ends - gap.begins).total_seconds(), 1),
                symbols=gap.symbols,
            )


def _log_differences(before: SubscriptionState, after: SubscriptionState) -> None:
    """Log the changes that operators have to know of, once each."""
    if after.learned_limit not in (before.learned_limit, None):
        log.warning("symbol limit of the plan reached", symbols=after.learned_limit)
    if after.without_trades and after.without_trades != before.without_trades:
        log.warning("trades were not acknowledged", symbols=len(after.without_trades))


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads tries in time
