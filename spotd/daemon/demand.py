"""Reads the demand: every half second, and at once when it is woken. Never writes it.

A demand may be the whole market. So it is read in slices, only what changed since the last look
is taken in, and a large change goes on in steps: each leaves everything as a demand of its own
would, so whoever runs between two of them, or after the last that was taken, finds nothing torn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import msgspec
import structlog

from spotd.core.demand import (
    MAX_SYMBOLS_PER_STEP,
    Demand,
    DemandReader,
    Subscribers,
    steps,
)
from spotd.daemon.shared import Shared
from spotd.errors import RedisUnavailableError
from spotd.models import SpotPriceUpdate
from spotd.redis.errors import RefusedError
from spotd.redis.port import MAX_FIELDS_PER_CALL, RedisPort
from spotd.symbols import WILDCARD

LOOK_EVERY_S = 0.5
LINGER_S = 10.0  # how long a channel is demand, at least, after its last subscriber left
_SLICE = MAX_FIELDS_PER_CALL  # entries taken in before other tasks get their turn
_STEP_EVERY_S = 0.01  # each keeps many others busy, too
_RETRY_WAKES_S = 1.0

log = structlog.get_logger("spotd.demand")


class DemandLoop:
    """From entries in Redis to what the market keeps and the stream subscribes."""

    def __init__(self, shared: Shared, redis: RedisPort, *, linger_s: float = LINGER_S) -> None:
        self._shared = shared
        self._redis = redis
        self._subscribers = Subscribers(linger_s)
        # What each source said last: it stands while the source cannot be read.
        self._known: dict[str, set[bytes]] = {"symbols": set(), "leases": set(), "channels": set()}
        self._reader = DemandReader(allow_wildcard=shared.settings.allow_wildcard)
        self._changed = False  # since the demand was last applied to its end
        self._aim: frozenset[str] = frozenset()  # symbols of the demand that was last applied
        self._met = Demand()  # the last one that was applied to its end
        self._forgetting = False  # the market still holds what the whole market brought
        self._heeded_in_term = 0
        self._unreadable: set[str] = set()

    async def run(self) -> None:
        """Look for ever, while we lead."""
        shared = self._shared
        while True:
            if shared.leads():
                await self._look()
            await shared.bells.demand.wait(LOOK_EVERY_S)

    async def listen(self) -> None:
        """Turn messages on the wake channel into looks, for ever."""
        while True:
            try:
                async for _ in self._redis.wakes():
                    self._shared.bells.demand.ring()
            except RedisUnavailableError:
                # The leader loop reports that Redis is away; until then the half second does.
                await asyncio.sleep(_RETRY_WAKES_S)

    async def _look(self) -> None:
        shared = self._shared
        term = shared.term
        try:
            await self._read("symbols", self._redis.demand_set())
            await self._read("leases", self._leases())
            if shared.settings.subscribers_are_demand:
                await self._read("channels", self._channels())
            if self._heeded_in_term != term:
                # Before anything is subscribed, and so before any snapshot is asked for.
                shared.market.heed(_times(await self._redis.last_prices()))
                self._heeded_in_term = term
        except RedisUnavailableError as error:
            if shared.redis_failed(str(error)):
                log.warning("cannot read the demand: going on with the last one", why=str(error))
            return
        if self._changed:
            if not await self._apply(self._reader.result(), term):
                return
            self._changed = False
        if shared.demand_read_in_term != term:
            shared.demand_read_in_term = term
            shared.bells.report.ring()
            shared.bells.stream.ring()

    async def _read(self, source: str, slices: AsyncIterator[Sequence[bytes]]) -> None:
        try:
            await self._compare(source, slices)
        except RefusedError as error:
            if source not in self._unreadable:
                self._unreadable.add(source)
                log.error("cannot read a source of the demand", source=source, why=str(error))
        else:
            if source in self._unreadable:
                self._unreadable.discard(source)
                log.info("can read the source of the demand again", source=source)

    async def _compare(self, source: str, slices: AsyncIterator[Sequence[bytes]]) -> None:
        """Take in what came and what left, once the source was read to its end.

        A scan may have gone on at another server, and ended early: so who left is asked about.
        """
        known = self._known[source]
        seen: set[bytes] = set()
        new: set[bytes] = set()
        async for some in slices:
            seen.update(some)
            new.update(entry for entry in some if entry not in known)
        gone = list(known - seen) if len(seen) - len(new) < len(known) else []
        if new:
            await self._take_in(source, list(new))
        async for some in _slices(gone):
            await self._take_in(source, await self._left(source, some), left=True)

    async def _left(self, source: str, entries: list[bytes]) -> list[bytes]:
        """Those that are there no more."""
        if source == "symbols":
            return await self._redis.not_in_set(entries)
        if source == "leases":
            return await self._redis.not_leased(entries, time.time())
        return entries  # channels come in one answer

    async def _take_in(self, source: str, entries: list[bytes], *, left: bool = False) -> None:
        if not entries:
            return
        known, reader = self._known[source], self._reader
        take: Callable[[Iterable[bytes]], None]
        if source == "leases":
            take = reader.remove_leases if left else reader.add_leases
        else:
            take = reader.remove if left else reader.add
        self._changed = True
        async for some in _slices(entries):
            take(some)
            if left:
                known.difference_update(some)
            else:
                known.update(some)

    async def _leases(self) -> AsyncIterator[Sequence[bytes]]:
        members = await self._redis.live_leases(time.time())
        async for some in _slices(members):
            yield some

    async def _channels(self) -> AsyncIterator[Sequence[bytes]]:
        channels = await self._redis.subscribed_channels()
        async for some in _slices(list(self._subscribers.seen(channels, time.monotonic()))):
            yield some

    async def _apply(self, demand: Demand, term: int) -> bool:
        """Bring everything to a demand, in steps. Gives whether it got there.

        It did not where the term ended, whose successor has things to read first, or where a wake
        came, which is not to wait for the rest: the next look goes on from what was reached.
        """
        shared = self._shared
        first = self._newest(demand.symbols)
        way = steps(shared.demand.symbols, demand.symbols, first=first)
        while True:
            if shared.term != term or not shared.leads():
                return False
            symbols = next(way, demand.symbols if self._forgetting else None)
            if symbols is None:
                break
            self._forgetting = self._step(symbols, first)
            if self._forgetting or symbols != demand.symbols:
                await asyncio.sleep(_STEP_EVERY_S)
                if shared.bells.demand.rung:
                    return False
        before, self._met = self._met, demand
        shared.demand = demand
        if demand.symbols != before.symbols:
            log.info(
                "the demand changed",
                symbols=len(demand.symbols),
                added=len(demand.symbols - before.symbols),
                removed=len(before.symbols - demand.symbols),
            )
        if demand.refused_count != before.refused_count:
            log.info("entries of the demand are refused", count=demand.refused_count)
        shared.subscriptions.version += 1
        shared.bells.report.ring()
        return True

    def _newest(self, symbols: frozenset[str]) -> frozenset[str]:
        """What came with this look, where it is little: it does not wait behind what came before.

        With a limit it does: the same symbols are to get room as if all had come at once.
        """
        newest, self._aim = symbols - self._aim, symbols
        if len(newest) > MAX_SYMBOLS_PER_STEP or self._shared.subscriptions.limited:
            return frozenset()
        return newest

    def _step(self, symbols: frozenset[str], first: frozenset[str]) -> bool:
        """Go on to a demand that differs little. Gives whether there is more to forget."""
        shared = self._shared
        new, gone = symbols - shared.demand.symbols, shared.demand.symbols - symbols
        shared.demand = replace(shared.demand, symbols=symbols)
        # What the whole market brought leaves with it, so the market knows what is to go.
        left = shared.market.keep(symbols, at_most=MAX_SYMBOLS_PER_STEP)
        shared.to_drop |= left
        shared.to_drop -= new
        shared.facts.desired = len(symbols)
        shared.facts.ever_active -= gone
        shared.subscriptions.want(symbols, first=first)
        if shared.facts.all_refused:  # the stream loop says so once it has nothing to ask for
            shared.facts.all_refused = shared.subscriptions.all_refused()
        # Gone and back before it was unsubscribed: live still, but its price is forgotten.
        if back := new & shared.subscriptions.active:
            shared.facts.ever_active |= back
            shared.to_prime |= back - {WILDCARD}
            shared.bells.prime.ring()
        shared.bells.stream.ring()
        shared.bells.report.ring()
        if shared.to_drop:
            shared.bells.publish.ring()
        return len(left) == MAX_SYMBOLS_PER_STEP


async def _slices(entries: list[bytes]) -> AsyncIterator[list[bytes]]:
    """Some at a time, with a turn for other tasks after each."""
    for start in range(0, len(entries), _SLICE):
        yield entries[start : start + _SLICE]
        await asyncio.sleep(0)


def _times(published: Iterable[bytes]) -> dict[str, datetime]:
    """Exchange time of each update; what is none is left out."""
    times = {}
    for raw in published:
        with suppress(msgspec.DecodeError):
            update = SpotPriceUpdate.from_json(raw)
            times[update.symbol] = update.timestamp
    return times
