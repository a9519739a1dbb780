"""Writes states, status and events: at every change, and the status every few seconds too.

Only differences are written. When a term begins, or Redis may have lost what it held, everything
is written anew, and states that a predecessor left behind are removed. A whole market is written
in small calls, so that prices do not wait for it.

Must not decide what the facts mean, nor what differs (``core.states`` does), nor how much one call
writes (``core.state_batch_size`` does).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from math import inf

import msgspec
import structlog

from spotd import __version__
from spotd.core.channels import Channels
from spotd.core.demand import Demand
from spotd.core.gaps import GapsFound
from spotd.core.lag import LagState
from spotd.core.leadership import Leadership
from spotd.core.leases import LeaseDoubt
from spotd.core.redis_health import RedisHealth
from spotd.core.state_batch_size import StateBatchSize
from spotd.core.state_writes import StateBatch, StateWrites
from spotd.core.states import Facts, StreamState, daemon_state, not_ready_because
from spotd.core.trading_hours import TradingHours
from spotd.core.verdicts import Verdict, Verdicts
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp, beat_before
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.models import DaemonStateName, DaemonStatus, Gap, SymbolState, utc
from spotd.ops import systemd
from spotd.ops.metrics import Metrics, Numbers
from spotd.reasons import MEANINGS, Reason
from spotd.redaction import Redactor
from spotd.redis.port import MAX_FIELDS_PER_CALL, RedisPort

# Clients hear of a killed daemon when its status lapses. Two refreshes in a row may fail, or come
# late, before that of a daemon that runs does.
STATUS_TTL_S = 10.0
STATUS_EVERY_S = 3.0
_AT_MOST_EVERY_S = 0.02  # changes that come together are written together
_RETRY_S = 0.5
_STATES_PER_TURN = 100  # this many are made JSON in one turn of the event loop
PRICES_WAIT_S = 1.0  # states wait for prices at most so much longer than a throttle window
_STATUS_WAITS_S = 0.2  # at most, while states are written: a call more may have begun by then

log = structlog.get_logger("spotd.states")


class StatesLoop:
    """The one loop that writes ``spotd:states``, ``spotd:status`` and ``spotd:events``.

    Everything that it writes is derived from the values given here, and from nothing else.
    ``redactor`` cuts secrets out of each sentence that goes to Redis or to HTTP.
    """

    def __init__(
        self,
        port: RedisPort,
        prices: Prices,
        *,
        leadership: Value[Leadership],
        health: Value[RedisHealth],
        demand: Value[Demand],
        stream: Value[StreamState],
        channels: Value[Channels],
        lag: Value[LagState],
        hours: Value[TradingHours],
        gaps: Value[GapsFound],
        stopping: Value[bool],
        metrics: Metrics,
        malformed: Counter[str],
        lease_doubts: Counter[LeaseDoubt],
        not_leader: WakeUp,
        lost_data: Callable[[], None],
        redactor: Redactor,
        instance: str,
        feed: str,
        status_every_s: float = STATUS_EVERY_S,
        prices_wait_s: float = PRICES_WAIT_S,
    ) -> None:
        self._port = port
        self._prices = prices
        self._leadership = leadership
        self._health = health
        self._demand = demand
        self._stream = stream
        self._channels = channels
        self._lag = lag
        self._hours = hours
        self._gaps = gaps
        self._stopping = stopping
        self._metrics = metrics
        self._malformed = malformed
        self._lease_doubts = lease_doubts
        self._not_leader = not_leader
        self._lost_data = lost_data
        self._told = redactor.kept
        self._instance = instance
        self._feed = feed
        self._status_every_s = status_every_s
        self._prices_wait_s = prices_wait_s
        self._verdicts = Verdicts()
        self._writes = StateWrites()
        self._written_in: tuple[int, int, bool] | None = None
        self._size = StateBatchSize(MAX_FIELDS_PER_CALL)
        self._announced: tuple[object, ...] = ()
        self._gaps_announced = 0
        self._waits_since: float | None = None  # states wait for prices since then
        self._state: tuple[DaemonStateName, Reason | None] | None = None
        self._state_since_unix_s = time.time()
        self._wake_up = prices.first_quotes
        for value in (
            leadership, health, demand, stream, channels, prices.halted, prices.mute, lag, hours,
            gaps, stopping,
        ):  # fmt: skip
            value.wakes(self._wake_up)

    async def run(self) -> None:
        """Write at every change, and the status every few seconds too."""
        while True:
            pause_s = self._status_every_s
            # Read before the writes: a change while they go on begins the next round at once.
            market_changes_at = time.monotonic() + self._market_changes_in_s()
            self.status()  # logs and times the state of a standby too, which nobody writes
            if self._leadership.get().may_publish(time.monotonic()):
                try:
                    await self._write()
                except NotLeaderError:
                    # The key was lost, or is another's: the leader loop finds out which.
                    self._not_leader.set()
                    pause_s = _RETRY_S
                except RedisUnavailableError:
                    pause_s = _RETRY_S
                await asyncio.sleep(_AT_MOST_EVERY_S)
            at = min(time.monotonic() + pause_s, market_changes_at)
            await self._wake_up.wait(beat_before(at))

    async def last_words(self) -> None:
        """Write the states of a stopping daemon: no symbol is live any more.

        Raises RedisUnavailableError.
        """
        await self._write()
        while self._writes and self._written_in == self._now_in():
            await self._write()

    # Views, also for HTTP

    def not_ready(self) -> list[str]:
        """Return the reasons against being ready, each a code, a colon and a sentence."""
        reasons = not_ready_because(self._facts(), time.monotonic())
        return [str(reason._replace(text=self._told(reason.text))) for reason in reasons]

    def status(self) -> DaemonStatus:
        """Return the status at this moment."""
        unix_s = time.time()
        facts = self._update(unix_s)
        state, reason = daemon_state(facts, time.monotonic())
        if reason is not None:
            reason = reason._replace(text=self._told(reason.text))
        if (state, reason) != self._state:
            if self._state is None or state != self._state[0]:
                self._state_since_unix_s = unix_s
                log.info("state", state=state)  # its cause is logged where it is found
            self._state = (state, reason)
            systemd.notify(f"STATUS={state}" + (f": {reason.text}" if reason else ""))
        prices = self._prices
        last = prices.last_message_unix_s
        lag_s = self._lag_s()
        market = self._hours.get().at(utc(unix_s))
        return DaemonStatus(
            state=state,
            reason=None if reason is None else reason.text,
            code=None if reason is None else reason.code,
            instance=self._instance,
            version=__version__,
            feed=self._feed,
            since=utc(self._state_since_unix_s),
            at=utc(unix_s),
            symbols=self._verdicts.counts,
            last_message_at=None if last is None else utc(last),
            lag_ms=None if lag_s is None else round(lag_s * 1000, 3),
            breaker=facts.stream.breaker,
            quotes_received=prices.cache.quotes_received,
            updates_published=self._metrics.updates_published,
            reconnects=self._metrics.reconnects_total,
            market=market.name,
            market_changes_at=market.changes_at,
            gaps=tuple(map(self._gap, self._gaps.get().shown)),
        )

    def numbers(self) -> Numbers:
        """Return the numbers of a scrape."""
        cache = self._prices.cache
        malformed = self._malformed
        unix_s, now = time.time(), time.monotonic()
        facts = self._update(unix_s)
        counts = self._verdicts.counts
        return Numbers(
            quotes_received=cache.quotes_received,
            trades_received=cache.trades_received,
            trades_cancelled=cache.trades_cancelled,
            trades_corrected=cache.trades_corrected,
            quotes_conflated=cache.quotes_conflated,
            quotes_dropped={**cache.dropped, "malformed": malformed["quote"]},
            messages_ignored={**cache.ignored, **malformed},
            doubtful_leases={kind: self._lease_doubts[kind] for kind in ("lapsed", "far")},
            stream_connected=facts.stream.phase == "open",
            symbols={
                "pending": counts.pending,
                "live": counts.live,
                "stale": counts.stale,
                "halted": counts.halted,
                "refused": counts.refused,
            },
            breaker=facts.stream.breaker,
            lag_s=self._lag_s(),
            leader=facts.leadership.may_publish(now),
            ready=not not_ready_because(facts, now),
            market=self._hours.get().at(utc(unix_s)).name,
        )

    # Deriving

    def _gap(self, gap: Gap) -> Gap:
        return msgspec.structs.replace(gap, reason=self._told(gap.reason))

    def _words(self, text: str | None) -> str | None:
        return text if text is None or text in MEANINGS else self._told(text)

    def _market_changes_in_s(self) -> float:
        """Return how long the market stays as it is, in seconds."""
        unix_s = time.time()
        changes_at = self._hours.get().at(utc(unix_s)).changes_at
        return inf if changes_at is None else changes_at.timestamp() - unix_s

    def _lag_s(self) -> float | None:
        """Return the lag of the last seconds, without the error of this machine's clock."""
        lag_s = self._prices.lag.samples.median_s(time.monotonic())
        return None if lag_s is None else lag_s - self._lag.get().clock_ahead_s

    def _facts(self) -> Facts:
        return Facts(
            leadership=self._leadership.get(),
            redis=self._health.get(),
            demand=self._demand.get(),
            stream=self._stream.get(),
            channels=self._channels.get(),
            halted=self._prices.halted.get(),
            mute=self._prices.mute.get(),
            lag=self._lag.get(),
            quoted=self._prices.cache.quoted,
            stopping=self._stopping.get(),
        )

    def _update(self, unix_s: float) -> Facts:
        """Bring the verdicts up to date with the facts. Return the facts."""
        facts = self._facts()
        changed = self._verdicts.update(facts, unix_s)
        self._writes.changed(changed, self._verdicts.verdicts)
        return facts

    # Writing

    def _now_in(self) -> tuple[int, int, bool]:
        """Return what makes all that is written obsolete when it changes.

        The term, the returns of Redis, and whether the whole demand can be read.
        """
        term, returns = self._leadership.get().term, self._health.get().returns
        return term, returns, self._demand.get().unreadable is None

    async def _write(self) -> None:
        facts = self._update(time.time())
        if facts.demand.term != facts.leadership.term:
            await self._write_status()  # states of a demand that is not read yet would be wrong
            return
        if self._written_in != self._now_in():
            await self._start_afresh()
        began = time.monotonic()
        while self._writes and (now := time.monotonic()) - began < _STATUS_WAITS_S:
            batch = self._next_batch(now, stopping=facts.stopping)
            if batch.states or batch.ended:
                await self._write_states(batch)
            else:
                self._prices.settled = self._wake_up
                await self._wake_up.wait(began + _STATUS_WAITS_S)
                self._prices.settled = None
            facts = self._update(time.time())
        await self._write_status()
        await self._announce_gaps()
        if self._writes:
            self._wake_up.set()
        else:
            self._waits_since = None

    def _next_batch(self, now: float, *, stopping: bool) -> StateBatch:
        """Return what to write next; nothing: prices that go first are still to be published.

        No price may follow the word that prices are suspect, or that there are none any more.
        """
        count = self._size.limit(stopping=stopping)
        prices, verdicts = self._prices, self._verdicts.verdicts
        longest_s = prices.conflator.window_s + self._prices_wait_s
        if stopping or (self._waits_since is not None and now - self._waits_since > longest_s):
            return self._writes.next_batch(count, verdicts)
        to_come = prices.to_come()

        def is_early(name: str, verdict: Verdict | None) -> bool:
            if verdict is None:
                return name in prices.dropping or to_come(name)
            return verdict.state == "stale" and to_come(name)

        batch = self._writes.next_batch(count, verdicts, is_early)
        if batch.states or batch.ended:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        return batch

    async def _write_states(self, batch: StateBatch) -> None:
        # The times are read now: during the awaits below, a state may change or end.
        since = {name: self._verdicts.since_unix_s[name] for name in batch.states}
        changed: dict[str, bytes] = {}
        for name, verdict in batch.states.items():
            if changed and len(changed) % _STATES_PER_TURN == 0:
                await asyncio.sleep(0)
            changed[name] = SymbolState(
                symbol=name,
                state=verdict.state,
                reason=self._words(verdict.reason),
                code=verdict.code,
                since=utc(since[name]),
                detail=self._words(verdict.detail),
            ).to_json()
        now = utc(time.time())
        ended = {
            name: SymbolState(symbol=name, state="ended", reason=None, since=now).to_json()
            for name in batch.ended
        }
        sent_at = time.monotonic()
        await self._port.write_states(self._leadership.get().token, changed, ended)
        self._size.answered(time.monotonic() - sent_at)
        self._writes.wrote(batch, self._verdicts.verdicts)

    async def _start_afresh(self) -> None:
        """Find out what Redis holds: a term has begun, or Redis may have lost its data.

        While a source of the demand cannot be read, nothing that a predecessor left is removed:
        somebody may want it.
        """
        begun_in = self._now_in()
        stored_states = await self._port.state_fields()
        stored_prices = await self._port.last_fields()
        verdicts = self._verdicts.verdicts
        if self._update(time.time()).demand.unreadable is None:
            self._prices.drop_stored(stored_prices)
        else:
            stored_states &= verdicts.keys()
        self._writes.start_afresh(stored_states, verdicts)
        self._written_in = begun_in

    async def _announce_gaps(self) -> None:
        found = self._gaps.get()
        for number, gap in enumerate(new := found.since(self._gaps_announced), 1):
            await self._port.announce(self._leadership.get().token, self._gap(gap).to_json())
            self._gaps_announced = found.count - len(new) + number

    async def _write_status(self) -> None:
        status = self.status()
        said = (
            status.state,
            status.reason,
            status.code,
            status.market,
            status.symbols,
            status.breaker,
            status.reconnects,
            status.gaps,
            self._leadership.get().term,
        )
        held = await self._port.write_status(
            self._leadership.get().token,
            status.to_json(),
            STATUS_TTL_S,
            announce=said != self._announced,
        )
        self._announced = said
        # Somebody deleted the states, or Redis evicted them.
        if self._written_in == self._now_in() and self._writes.lost(held):
            self._lost_data()
