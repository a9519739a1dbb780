"""Reads the demand: every half second, and at once when it is woken. Never writes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from datetime import datetime

import msgspec
import structlog

from spotd.adapters.redis import RedisPort, RefusedError
from spotd.core.demand import Demand, DemandReader, Subscribers
from spotd.core.symbols import WILDCARD
from spotd.errors import RedisUnavailableError
from spotd.loops.shared import Shared
from spotd.models import SpotPriceUpdate

LOOK_EVERY_S = 0.5
LINGER_S = 10.0  # how long a channel is demand, at least, after its last subscriber left
_SLICE = 5_000  # entries taken in before other tasks get their turn
_RETRY_WAKES_S = 1.0

_Reader = Callable[[], Awaitable[frozenset[bytes]]]

log = structlog.get_logger("spotd.demand")


class DemandLoop:
    """From entries in Redis to what the market keeps and the stream subscribes."""

    def __init__(self, shared: Shared, redis: RedisPort, *, linger_s: float = LINGER_S) -> None:
        self._shared = shared
        self._redis = redis
        self._subscribers = Subscribers(linger_s)
        # What each source said last: it stands while the source cannot be read.
        self._known: dict[str, frozenset[bytes]] = {}
        self._unreadable: set[str] = set()
        self._seen: Hashable = None

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
            await self._read("symbols", self._read_set)
            await self._read("leases", self._read_leases)
            if shared.settings.subscribers_are_demand:
                await self._read("channels", self._read_channels)
            if shared.demand_read_in_term != term:
                # Before anything is subscribed, and so before any snapshot is asked for.
                shared.market.heed(_times(await self._redis.last_prices()))
        except RedisUnavailableError as error:
            if shared.redis_failed(str(error)):
                log.warning("cannot read the demand: going on with the last one", why=str(error))
            return
        seen = frozenset(self._known.items())
        if seen != self._seen:
            self._apply(await self._decide())
            self._seen = seen
        if shared.demand_read_in_term != term:
            shared.demand_read_in_term = term
            shared.bells.report.ring()
            shared.bells.stream.ring()

    async def _read(self, source: str, read: _Reader) -> None:
        try:
            self._known[source] = await read()
        except RefusedError as error:
            if source not in self._unreadable:
                self._unreadable.add(source)
                log.error("cannot read a source of the demand", source=source, why=str(error))
        else:
            if source in self._unreadable:
                self._unreadable.discard(source)
                log.info("can read the source of the demand again", source=source)

    async def _read_set(self) -> frozenset[bytes]:
        entries: set[bytes] = set()
        async for some in self._redis.demand_set():
            entries.update(some)
        return frozenset(entries)

    async def _read_leases(self) -> frozenset[bytes]:
        return frozenset(await self._redis.live_leases(time.time()))

    async def _read_channels(self) -> frozenset[bytes]:
        channels = await self._redis.subscribed_channels()
        return frozenset(self._subscribers.seen(channels, time.monotonic()))

    async def _decide(self) -> Demand:
        reader = DemandReader(allow_wildcard=self._shared.settings.allow_wildcard)
        for source, entries in self._known.items():
            listed = list(entries)
            for start in range(0, len(listed), _SLICE):
                some = listed[start : start + _SLICE]
                if source == "leases":
                    reader.add_leases(some)
                else:
                    reader.add(some)
                await asyncio.sleep(0)
        return reader.result()

    def _apply(self, demand: Demand) -> None:
        shared = self._shared
        before = shared.demand
        shared.demand = demand
        if demand.symbols != before.symbols:
            # What the whole market brought leaves with it, so the market knows what is to go.
            shared.to_drop |= shared.market.keep(demand.symbols)
            shared.to_drop -= demand.symbols
            shared.facts.desired = len(demand.symbols)
            shared.facts.ever_active &= demand.symbols
            shared.subscriptions.want(demand.symbols)
            if shared.facts.all_refused:  # the stream loop says so once it has nothing to ask for
                shared.facts.all_refused = shared.subscriptions.all_refused()
            # Gone and back before it was unsubscribed: live still, but its price is forgotten.
            if back := (demand.symbols - before.symbols) & shared.subscriptions.active:
                shared.facts.ever_active |= back
                shared.to_prime |= back - {WILDCARD}
                shared.bells.prime.ring()
            log.info(
                "the demand changed",
                symbols=len(demand.symbols),
                added=len(demand.symbols - before.symbols),
                removed=len(before.symbols - demand.symbols),
            )
            shared.bells.stream.ring()
            if shared.to_drop:
                shared.bells.publish.ring()
        if demand.refused_count != before.refused_count:
            log.info("entries of the demand are refused", count=demand.refused_count)
        shared.subscriptions.version += 1
        shared.bells.report.ring()


def _times(published: Iterable[bytes]) -> dict[str, datetime]:
    """Exchange time of each update; what is none is left out."""
    times = {}
    for raw in published:
        with suppress(msgspec.DecodeError):
            update = SpotPriceUpdate.from_json(raw)
            times[update.symbol] = update.timestamp
    return times
