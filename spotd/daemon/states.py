"""Tells how things stand: states, status and events, at every change and every few seconds.

What was written is remembered, and only differences are written. When Redis may have lost them,
or a term begins, everything is written anew, and what a predecessor left behind is removed. With
many symbols both go on by what changed and in small calls: nobody waits for a whole market.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from itertools import chain, islice

import structlog

from spotd import __version__
from spotd.core.states import (
    Standings,
    Verdict,
    daemon_state,
    not_ready_because,
    symbol_verdicts,
    verdict_of,
)
from spotd.daemon.shared import Shared
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.models import DaemonStatus, SymbolCounts, SymbolState, utc
from spotd.ops import systemd
from spotd.ops.metrics import Numbers
from spotd.redis.port import MAX_FIELDS_PER_CALL, RedisPort
from spotd.symbols import WILDCARD, Refusal

STATUS_TTL_S = 15.0
STATUS_EVERY_S = 4.0
_AT_MOST_EVERY_S = 0.02  # changes that come together are told together
_RETRY_S = 0.5
_STATES_PER_TURN = 100  # are made JSON, and near Redis written, before others get their turn
_DISTANT_S = 0.03  # a call that takes longer is mostly on its way: then fewer, larger ones
_STATUS_WAITS_S = 0.2  # at most, while states are written: a call more may have begun by then

log = structlog.get_logger("spotd.report")


class ReportLoop:
    """The one loop that writes ``spotd:states``, ``spotd:status`` and ``spotd:events``."""

    def __init__(self, shared: Shared, redis: RedisPort, instance: str) -> None:
        self._shared = shared
        self._redis = redis
        self._instance = instance
        self._standings = Standings()
        self._counts = SymbolCounts()
        self._derived_from: object = None
        self._flags: object = None  # what concerns every symbol
        self._halted: frozenset[str] = frozenset()
        self._refused: Mapping[str, Refusal] = {}
        self._entries_refused: Mapping[str, Refusal] = {}
        self._since: dict[str, tuple[str, float]] = {}  # each state, and its unix time
        self._written: dict[str, Verdict] = {}
        # Names whose verdict may not be the written one, in the order in which they are written:
        # none any more, not refused, refused. So Redis never shows more refused than we do.
        self._unwritten: tuple[dict[str, None], ...] = ({}, {}, {})
        self._distant = False
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
                    shared.bells.leader.ring()  # lost, or another's: it finds out which
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
        while any(self._unwritten) and self._written_in == (
            self._shared.term,
            self._shared.rewrite,
        ):
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
        flags = (facts.stream_open, facts.stream_mute, facts.stopping)
        if (subscriptions.version, flags) == self._derived_from:
            return
        self._derived_from = (subscriptions.version, flags)
        desired, entries_refused = shared.demand.symbols, shared.demand.refused
        active, halted = subscriptions.active, shared.market.halted()
        refused, touched = subscriptions.refusals(), subscriptions.touched()
        if (
            touched is None
            or (flags, WILDCARD in active) != self._flags
            or refused != self._refused
            or entries_refused is not self._entries_refused
        ):
            verdicts = symbol_verdicts(
                sorted(desired),
                facts=facts,
                active=active,
                halted=halted,
                refused=refused,
                entries_refused=entries_refused,
            )
            changed = self._standings.set_all(verdicts)
        else:
            changed = []
            for name in touched | (halted ^ self._halted):
                if name in refused:
                    continue
                verdict = None
                if name in desired:
                    verdict = verdict_of(name, facts=facts, active=active, halted=halted)
                if self._standings.set(name, verdict):
                    changed.append(name)
        self._flags = (flags, WILDCARD in active)
        self._halted, self._refused, self._entries_refused = halted, refused, entries_refused
        self._note(changed, now)
        self._counts = self._standings.counts(
            desired=len(desired), refused=len(refused) + shared.demand.refused_count
        )

    def _note(self, changed: Iterable[str], now: float) -> None:
        """These have another verdict than before, or none any more."""
        for name in changed:
            verdict = self._standings.verdicts.get(name)
            self._is_unwritten(name, verdict)
            if verdict is None:
                del self._since[name]
            elif name not in self._since or self._since[name][0] != verdict.state:
                self._since[name] = verdict.state, now

    def _is_unwritten(self, name: str, verdict: Verdict | None) -> None:
        for names in self._unwritten:
            names.pop(name, None)
        rank = 0 if verdict is None else 1 if verdict.state != "refused" else 2
        self._unwritten[rank][name] = None

    # Writing

    async def _report(self) -> None:
        shared = self._shared
        if shared.demand_read_in_term != shared.term:
            await self._write_status()  # the states of a demand not yet read would be wrong
            return
        if self._written_in != (shared.term, shared.rewrite):
            await self._start_afresh()
        self._derive(time.time())
        began = time.monotonic()
        while any(self._unwritten) and time.monotonic() - began < _STATUS_WAITS_S:
            # At a stop nothing is live any more that larger calls could make late.
            few = not (self._distant or shared.facts.stopping)
            count = _STATES_PER_TURN if few else MAX_FIELDS_PER_CALL
            names = list(islice(chain.from_iterable(self._unwritten), count))
            await self._write_states(names)
            self._derive(time.time())
        await self._write_status()
        if any(self._unwritten):
            shared.bells.report.ring()

    async def _write_states(self, names: list[str]) -> None:
        """Some states, as they are now, and the end of some."""
        verdicts, written = self._standings.verdicts, self._written
        states = {n: verdicts[n] for n in names if n in verdicts and written.get(n) != verdicts[n]}
        gone = [name for name in names if name in written and name not in verdicts]
        if states or gone:
            # Since when is noted here: in between it may be another state already, or none.
            since = {name: self._since[name][1] for name in states}
            changed: dict[str, bytes] = {}
            for name, verdict in states.items():
                if changed and len(changed) % _STATES_PER_TURN == 0:
                    await asyncio.sleep(0)
                changed[name] = _state_json(name, verdict, since[name])
            sent_at = time.monotonic()
            await self._redis.write_states(self._shared.token, changed, gone)
            self._distant = time.monotonic() - sent_at > _DISTANT_S
        written |= states
        for name in gone:
            del written[name]
        for name in names:
            if written.get(name) == verdicts.get(name):  # else it changed meanwhile
                for unwritten in self._unwritten:
                    unwritten.pop(name, None)

    async def _start_afresh(self) -> None:
        """A new term, or a Redis that may have forgotten: find out what is really there."""
        shared = self._shared
        started = (shared.term, shared.rewrite)
        left_states = await self._redis.state_fields()
        left_prices = await self._redis.last_fields()
        self._derive(time.time())
        while gone := sorted(left_states - self._standings.verdicts.keys())[:MAX_FIELDS_PER_CALL]:
            await self._redis.write_states(shared.token, {}, gone)
            left_states.difference_update(gone)
        if WILDCARD not in shared.demand.symbols:
            shared.to_drop |= left_prices - shared.demand.symbols
            shared.bells.publish.ring()
        self._written = {}
        self._unwritten = ({}, {}, {})
        for name, verdict in self._standings.verdicts.items():
            self._is_unwritten(name, verdict)
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


def _state_json(name: str, verdict: Verdict, since_unix_s: float) -> bytes:
    return SymbolState(
        symbol=name,
        state=verdict.state,
        reason=verdict.reason,
        since=utc(since_unix_s),
        detail=verdict.detail,
    ).to_json()
