"""One subscription: a reader that never waits for its consumer, and one slot per key.

Talks to Redis. A newer value replaces an older one that was not yet taken, so memory is bounded by
the number of keys, and a slow consumer gets the newest values instead of a growing backlog.
Joins as the contract says: SUBSCRIBE confirmed, then the stored values, then the messages. Joins
again after every interruption.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from spotd.client.leases import Leases
from spotd.keys import Keys
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolState
from spotd.redis.addresses import place_of, pubsub_of
from spotd.redis.errors import FAILURES, translated, words_of

Event = DaemonStatus | SymbolState
T = TypeVar("T")

# msgspec.DecodeError and UnicodeDecodeError are ValueErrors; deep nesting is a RecursionError.
MALFORMED = (ValueError, RecursionError)

_JOIN_LIMIT_S = 10.0
_REJOIN_PAUSE_S = 0.05  # a connection that breaks at once, again and again, must not spin
_REJOIN_MAX_S = 2.0
_YIELD_EVERY = 64  # messages; redis-py does not suspend while its buffer holds more
_EVENT_DECODER = msgspec.json.Decoder(DaemonStatus | SymbolState)

log = logging.getLogger("spotd.client")


@dataclass(slots=True)
class Counts:
    """How often something happened, over all subscriptions of one client."""

    malformed: int = 0
    conflated: int = 0
    reconnects: int = 0


class Subscription(ABC, Generic[T]):
    """Read channels into slots; ``next`` takes the slot that has waited longest.

    ``heartbeat_s``: after this silence a PING is sent. After as much silence again, the connection
    is given up.
    """

    def __init__(
        self, redis: Any, channels: Sequence[str], counts: Counts, heartbeat_s: float
    ) -> None:
        self._redis = redis
        self._channels = channels
        self._counts = counts
        self._heartbeat_s = heartbeat_s
        self._slots: OrderedDict[str | None, T] = OrderedDict()
        self._ready = asyncio.Event()
        self._reader: asyncio.Task[NoReturn] | None = None
        self._closed = False

    async def open(self) -> None:
        """Join. Raises RedisUnavailableError; after later interruptions it joins by itself."""
        with translated(self._redis):
            pubsub = await self._join()
        self._reader = asyncio.create_task(self._run(pubsub), name="spotd-client-reader")
        self._reader.add_done_callback(lambda _: self._ready.set())

    async def next(self) -> T | None:
        """Return the next value, as soon as there is one; None once the subscription is closed."""
        while not self._closed:
            if self._slots:
                return self._slots.popitem(last=False)[1]
            if self._reader is not None and self._reader.done():
                self._reader.result()  # the reader never returns: raises what ended it
            self._ready.clear()
            await self._ready.wait()
        return None

    async def aclose(self) -> None:
        """End the reader and wait for it; a waiting ``next`` returns None."""
        self._closed = True
        self._ready.set()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    @abstractmethod
    async def _catch_up(self) -> None:
        """Take the stored values; called when the subscription is confirmed."""

    @abstractmethod
    def _decode(self, raw: bytes) -> tuple[str | None, T] | None:
        """Return key and value of a message; None if it is not newer. Raises one of MALFORMED."""

    def _take(self, raw: bytes) -> None:
        try:
            item = self._decode(raw)
        except MALFORMED:
            self._counts.malformed += 1
            return
        if item is None:
            return
        key, value = item
        if key in self._slots:
            self._counts.conflated += 1
        self._slots[key] = value
        self._ready.set()

    async def _join(self) -> PubSub:
        async with asyncio.timeout(_JOIN_LIMIT_S):
            pubsub = await pubsub_of(self._redis)
            try:
                await self._confirm(pubsub)
                await self._catch_up()
            except BaseException:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
                raise
        return pubsub

    async def _confirm(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(*self._channels)
        unconfirmed = len(self._channels)
        while unconfirmed:
            message = await pubsub.get_message(timeout=_JOIN_LIMIT_S)
            if message is None:
                continue
            if message["type"] == "subscribe":
                unconfirmed -= 1
            elif message["type"] == "message":
                self._take(message["data"])

    async def _run(self, pubsub: PubSub) -> NoReturn:
        while True:
            try:
                await self._read(pubsub)
            except FAILURES as error:
                why = words_of(self._redis, error)
                log.warning("lost %s, joining again: %s", place_of(self._redis), why)
            finally:
                with suppress(*FAILURES):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(_REJOIN_PAUSE_S)
            pubsub = await self._rejoin()
            self._counts.reconnects += 1
            log.info("joined again at %s", place_of(self._redis))

    async def _rejoin(self) -> PubSub:
        trying = AsyncRetrying(
            retry=retry_if_exception_type(FAILURES),
            wait=wait_random_exponential(multiplier=_REJOIN_PAUSE_S, max=_REJOIN_MAX_S),
        )
        return await trying(self._join)

    async def _read(self, pubsub: PubSub) -> NoReturn:
        taken, asked = 0, False
        while True:
            message = await pubsub.get_message(timeout=self._heartbeat_s)
            if message is None:
                if asked:
                    raise RedisConnectionError("no answer to PING")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "message":
                self._take(message["data"])
            elif message["type"] == "subscribe":
                # redis-py reconnected by itself, so what was published meanwhile is missing.
                raise RedisConnectionError("resubscribed unasked")
            taken += 1
            if taken % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


class PriceSubscription(Subscription[SpotPriceUpdate]):
    """Prices of some symbols, each newer than the one before it by its ``seq``."""

    def __init__(
        self,
        redis: Any,
        keys: Keys,
        symbols: Collection[str],
        leases: Leases | None,
        counts: Counts,
        heartbeat_s: float,
    ) -> None:
        super().__init__(redis, [keys.channel(s) for s in symbols], counts, heartbeat_s)
        self._last_key = keys.last
        self._symbols = symbols
        self._leases = leases
        self._holding = False
        self._closing = asyncio.Lock()
        self._seq = dict.fromkeys(symbols, -1)

    async def aclose(self) -> None:
        """End the reader, then the demand."""
        # The event loop closes a collected iterator in a task of its own, perhaps while the client
        # closes the same subscription. Then both must wait until the leases are gone.
        async with self._closing:
            await super().aclose()
            if self._leases is not None and self._holding:
                self._holding = False
                await self._leases.release(self._symbols)

    async def _catch_up(self) -> None:
        if self._leases is not None:
            if not self._holding:
                self._holding = True
                self._leases.hold(self._symbols)
            # Written again after an interruption, because the server may have come back empty.
            await self._leases.write(wake=True)
        for raw in await self._redis.hmget(self._last_key, list(self._symbols)):
            if raw is not None:
                self._take(raw)

    def _decode(self, raw: bytes) -> tuple[str, SpotPriceUpdate] | None:
        update = SpotPriceUpdate.from_json(raw)
        if update.symbol not in self._seq or update.timestamp.tzinfo is None:
            raise ValueError("an update of another symbol, or without a time zone")
        if update.seq <= self._seq[update.symbol]:
            return None
        self._seq[update.symbol] = update.seq
        return update.symbol, update


class EventSubscription(Subscription[Event]):
    """States: first all that are stored, then every change, the newest per symbol."""

    def __init__(self, redis: Any, keys: Keys, counts: Counts, heartbeat_s: float) -> None:
        super().__init__(redis, [keys.events], counts, heartbeat_s)
        self._keys = keys

    async def _catch_up(self) -> None:
        status = await self._redis.get(self._keys.status)
        if status is not None:
            self._take(status)
        for raw in await self._redis.hvals(self._keys.states):
            self._take(raw)

    def _decode(self, raw: bytes) -> tuple[str | None, Event]:
        event = _EVENT_DECODER.decode(raw)
        # A refused entry may be any string, also the empty one, so the daemon's key is None.
        return (event.symbol if isinstance(event, SymbolState) else None), event
