"""Tells how things stand: states, status and events, at every change and every few seconds.

What was written is remembered, and only differences are written. When Redis may have lost them,
or a term begins, everything is written anew, and what a predecessor left behind is removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from spotd import __version__
from spotd.adapters import systemd
from spotd.adapters.metrics import Numbers
from spotd.adapters.redis import MAX_UPDATES_PER_CALL, RedisPort
from spotd.core.health import Verdict, count, daemon_state, not_ready_because, symbol_verdicts
from spotd.core.symbols import WILDCARD
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.loops.shared import Shared
from spotd.models import DaemonStatus, SymbolCounts, SymbolState, utc

STATUS_TTL_S = 15.0
STATUS_EVERY_S = 4.0
_AT_MOST_EVERY_S = 0.02  # changes that come together are told together
_RETRY_S = 0.5

log = structlog.get_logger("spotd.report")


class ReportLoop:
    """The one loop that writes ``spotd:states``, ``spotd:status`` and ``spotd:events``."""

    def __init__(self, shared: Shared, redis: RedisPort, instance: str) -> None:
        self._shared = shared
        self._redis = redis
        self._instance = instance
        self._verdicts: dict[str, Verdict] = {}
        self._counts = SymbolCounts()
        self._derived_from: object = None
        self._since: dict[str, float] = {}  # unix time of each verdict
        self._written: dict[str, Verdict] = {}
        self._written_in: tuple[int, int] | None = None  # term and rewrite
        self._stated: tuple[object, ...] = ()
        self._state_since = time.time()
        self._state: tuple[str, str | None] = ("", None)

    async def run(self) -> None:
        """Report for ever."""
        shared = self._shared
        while True:
            pause_s = STATUS_EVERY_S
            self.status()  # a standby's state is logged and timed too, and written by nobody
            if shared.leads():
                try:
                    await self._report()
                except NotLeaderError:
                    shared.lease.refused()
                    shared.bells.leader.ring()
                except RedisUnavailableError as error:
                    if shared.redis_failed(str(error)):
                        log.warning("cannot report", why=str(error))
                    pause_s = _RETRY_S
                await asyncio.sleep(_AT_MOST_EVERY_S)
            await shared.bells.report.wait(pause_s)

    async def last_words(self) -> None:
        """Stopping: no symbol is live any more, and the status says so.

        Raises RedisUnavailableError.
        """
        self._shared.subscriptions.version += 1
        await self._report()

    # Views, also for HTTP

    def not_ready(self) -> list[str]:
        """Reasons against being ready."""
        return not_ready_because(self._shared.facts, len(self._shared.subscriptions.active))

    def status(self) -> DaemonStatus:
        """The status at this moment."""
        shared = self._shared
        now = time.time()
        self._derive(now)
        state, reason = daemon_state(self._shared.facts, len(shared.subscriptions.active))
        if (state, reason) != self._state:
            if state != self._state[0]:
                self._state_since = now
                log.info("state", state=state)  # why is told where it was found
            self._state = (state, reason)
            systemd.notify(f"STATUS={state}" + (f": {reason}" if reason else ""))
        last = shared.last_message_unix_s
        return DaemonStatus(
            state=state,
            reason=reason,
            instance=self._instance,
            version=__version__,
            feed=shared.settings.feed,
            since=utc(self._state_since),
            at=utc(now),
            symbols=self._counts,
            last_message_at=None if last is None else utc(last),
            lag_ms=None if shared.lag_s is None else round(shared.lag_s * 1000, 3),
            breaker=shared.breaker.state,
            quotes_received=shared.market.quotes_received,
            updates_published=shared.metrics.updates_published,
            reconnects=shared.metrics.reconnects_total,
        )

    def status_json(self) -> bytes:
        """The status as JSON."""
        return self.status().to_json()

    def numbers(self) -> Numbers:
        """The numbers of a scrape."""
        shared = self._shared
        market = shared.market
        self._derive(time.time())
        counts = self._counts
        return Numbers(
            quotes_received=market.quotes_received,
            trades_received=market.trades_received,
            quotes_conflated=market.quotes_conflated,
            quotes_dropped={**market.dropped, "malformed": shared.malformed["quote"]},
            messages_ignored={**market.ignored, **shared.malformed},
            stream_connected=shared.facts.stream_open,
            symbols={
                "pending": counts.pending,
                "live": counts.live,
                "stale": counts.stale,
                "halted": counts.halted,
                "refused": counts.refused,
            },
            breaker=shared.breaker.state,
            leader=shared.facts.leader,
        )

    # Deciding what changed

    def _derive(self, now: float) -> None:
        """Bring the verdicts up to date, if anything they derive from changed."""
        shared = self._shared
        facts, subscriptions = shared.facts, shared.subscriptions
        derived_from = (subscriptions.version, facts.stream_open, facts.stream_mute, facts.stopping)
        if derived_from == self._derived_from:
            return
        self._derived_from = derived_from
        refused = subscriptions.refusals()
        verdicts = symbol_verdicts(
            sorted(shared.demand.symbols),
            facts=facts,
            active=subscriptions.active,
            halted=shared.market.halted(),
            refused=refused,
            entries_refused=shared.demand.refused,
        )
        for name, verdict in verdicts.items():
            before = self._verdicts.get(name)
            if before is None or before.state != verdict.state:
                self._since[name] = now
        for name in self._verdicts.keys() - verdicts.keys():
            del self._since[name]
        self._verdicts = verdicts
        self._counts = count(
            verdicts,
            desired=len(shared.demand.symbols),
            refused=len(refused) + shared.demand.refused_count,
        )

    # Writing

    async def _report(self) -> None:
        shared = self._shared
        if shared.demand_read_in_term != shared.term:
            await self._write_status()  # the states of a demand not yet read would be wrong
            return
        if self._written_in != (shared.term, shared.rewrite):
            await self._start_afresh()
        self._derive(time.time())
        verdicts = self._verdicts
        changed = [n for n, verdict in verdicts.items() if self._written.get(n) != verdict]
        removed = sorted(self._written.keys() - verdicts.keys())
        for names, gone in _slices(changed, removed):
            states = {name: self._state_json(name, verdicts[name]) for name in names}
            await self._redis.write_states(shared.token, states, gone)
            self._written |= {name: verdicts[name] for name in names}
            for name in gone:
                self._written.pop(name, None)
        await self._write_status()

    async def _start_afresh(self) -> None:
        """A new term, or a Redis that may have forgotten: find out what is really there."""
        shared = self._shared
        started = (shared.term, shared.rewrite)
        left_states = await self._redis.state_fields()
        left_prices = await self._redis.last_fields()
        self._derive(time.time())
        gone = sorted(left_states - self._verdicts.keys())
        for _, some in _slices([], gone):
            await self._redis.write_states(shared.token, {}, some)
        if WILDCARD not in shared.demand.symbols:
            shared.to_drop |= left_prices - shared.demand.symbols
            shared.bells.publish.ring()
        self._written = {}
        self._written_in = started

    async def _write_status(self) -> None:
        status = self.status()
        stated = (
            status.state,
            status.reason,
            status.symbols,
            status.breaker,
            status.reconnects,
            self._shared.term,
        )
        announce = stated != self._stated
        await self._redis.write_status(
            self._shared.token, status.to_json(), STATUS_TTL_S, announce=announce
        )
        self._stated = stated

    def _state_json(self, name: str, verdict: Verdict) -> bytes:
        return SymbolState(
            symbol=name,
            state=verdict.state,
            reason=verdict.reason,
            since=utc(self._since[name]),
            detail=verdict.detail,
        ).to_json()


def _slices(changed: list[str], removed: list[str]) -> Iterable[tuple[list[str], list[str]]]:
    """Calls of bounded size: removals first."""
    size = MAX_UPDATES_PER_CALL
    for start in range(0, len(removed), size):
        yield [], removed[start : start + size]
    for start in range(0, len(changed), size):
        yield changed[start : start + size], []
