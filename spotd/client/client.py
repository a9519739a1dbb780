"""SpotClient, what a consuming program holds. Talks to Redis, also by subscriptions and leases."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random

from spotd.client.leases import Leases
from spotd.client.subscription import (
    MALFORMED,
    Counts,
    Event,
    EventSubscription,
    PriceSubscription,
    Subscription,
)
from spotd.keys import Keys
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolState
from spotd.redis.addresses import check_prefix, connect, place_of
from spotd.redis.errors import translated

T = TypeVar("T")

_TIMEOUT_S = 5.0  # of connecting, and of each answer

# The daemon's own rule (spotd.symbols), which the client must not import.
_SYMBOL = re.compile(r"[A-Z]{1,8}(?:\.[A-Z]{1,4})?")


def symbol_of(entry: str, *, allow_wildcard: bool = False) -> str | None:
    """Return the symbol that an entry means, trimmed and upper-cased; None if it means none."""
    # Only ASCII is upper-cased: "ſpy".upper() would be a symbol that nobody asked for.
    symbol = entry.strip().upper() if entry.isascii() else ""
    good = _SYMBOL.fullmatch(symbol) or (allow_wildcard and symbol == "*")
    return symbol if good else None


def symbols_of(entries: Iterable[str], *, allow_wildcard: bool = False) -> list[str]:
    """Return the symbols that entries mean, each once. Raises ValueError with the malformed."""
    meaning = {entry: symbol_of(entry, allow_wildcard=allow_wildcard) for entry in entries}
    malformed = [repr(entry[:64]) for entry, symbol in meaning.items() if symbol is None]
    if malformed:
        raise ValueError(f"not a symbol: {', '.join(malformed)}")
    return list(dict.fromkeys(symbol for symbol in meaning.values() if symbol is not None))


class SpotClient:
    """The newest prices of any symbols, and their states::

        async with SpotClient("redis://127.0.0.1:6379/0") as spot:
            async for update in spot.updates("SPY", "QQQ"):
                print(update.symbol, update.mid_price)

    ``url`` is an address of one server, of Sentinels or of a cluster, as SPOTD_REDIS_URL takes it.
    ``redis`` is a client of redis-py of your own instead, with bytes as replies; it is not closed
    here. Raises SettingsError for an address that is not valid, and for a ``key_prefix`` that
    would scatter the keys over a cluster.

    While an iteration runs, its symbols are demanded by leases, which lapse ``lease_ttl_s``
    seconds after this process died. Losing Redis does not end an iteration: it joins again by
    itself. Other calls raise RedisUnavailableError.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        key_prefix: str = "spotd:",
        channel_prefix: str = "spot:",
        owner: str | None = None,
        lease_ttl_s: float = 30.0,
        heartbeat_s: float = 10.0,
        redis: Redis | RedisCluster | None = None,
    ) -> None:
        if lease_ttl_s <= 0 or heartbeat_s <= 0:
            raise ValueError("lease_ttl_s and heartbeat_s must be greater than 0")
        self.owner = owner or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._owns_redis = redis is None
        self._redis: Any = redis
        if redis is None:
            self._redis = connect(url, connect_timeout_s=_TIMEOUT_S, answer_timeout_s=_TIMEOUT_S)
        self._keys = Keys(key_prefix, channel_prefix)
        check_prefix(self._redis, self._keys, "key_prefix (the daemon's SPOTD_KEY_PREFIX)")
        self._leases = Leases(self._redis, self._keys, self.owner, lease_ttl_s)
        self._heartbeat_s = heartbeat_s
        self._counts = Counts()
        self._subscriptions: set[Subscription[Any]] = set()

    def __repr__(self) -> str:
        return f"<SpotClient {place_of(self._redis)} owner={self.owner}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all iterations, remove their leases, close the connections. May be called twice."""
        for subscription in tuple(self._subscriptions):
            await subscription.aclose()
        if self._owns_redis:
            await self._redis.aclose()

    @property
    def malformed(self) -> int:
        """How many messages and stored values were skipped because they could not be read."""
        return self._counts.malformed

    @property
    def conflated(self) -> int:
        """How many values were replaced by newer ones before the consumer took them."""
        return self._counts.conflated

    @property
    def reconnects(self) -> int:
        """How often a subscription was lost and joined again."""
        return self._counts.reconnects

    def updates(self, *symbols: str, demand: bool = True) -> AsyncGenerator[SpotPriceUpdate, None]:
        """Yield the last known price of each symbol, then newer ones; the newest replaces others.

        With ``demand`` (the default) leases hold the symbols while the iteration runs. Without it,
        only what others demand arrives. After a ``break`` the leases end when the iterator is
        collected, or with ``contextlib.aclosing`` at once. Raises ValueError with malformed
        symbols, RedisUnavailableError where the first join fails.
        """
        wanted = symbols_of(symbols)
        if not wanted:
            raise ValueError("updates() needs at least one symbol")
        leases = self._leases if demand else None
        return self._iterate(
            lambda: PriceSubscription(
                self._redis, self._keys, wanted, leases, self._counts, self._heartbeat_s
            )
        )

    def events(self) -> AsyncGenerator[Event, None]:
        """Yield the present states of the daemon and of all symbols, then every change of them."""
        return self._iterate(
            lambda: EventSubscription(self._redis, self._keys, self._counts, self._heartbeat_s)
        )

    async def latest(self, *symbols: str) -> dict[str, SpotPriceUpdate | None]:
        """Return the last known price of each symbol, or None; without symbols, all there are."""
        wanted = symbols_of(symbols)
        if not wanted:
            everything = await self._call("HGETALL", self._keys.last)
            return {
                _text(name): self._read(SpotPriceUpdate.from_json, raw)
                for name, raw in everything.items()
            }
        stored = await self._call("HMGET", self._keys.last, *wanted)
        return {
            symbol: self._read(SpotPriceUpdate.from_json, raw)
            for symbol, raw in zip(wanted, stored, strict=True)
        }

    async def status(self) -> DaemonStatus | None:
        """Return the status of the daemon; None where no daemon runs."""
        return self._read(DaemonStatus.from_json, await self._call("GET", self._keys.status))

    async def states(self) -> dict[str, SymbolState]:
        """Return the state of every desired symbol and of every refused entry."""
        stored = await self._call("HGETALL", self._keys.states)
        read = {_text(name): self._read(SymbolState.from_json, raw) for name, raw in stored.items()}
        return {name: state for name, state in read.items() if state is not None}

    async def desired(self) -> set[str]:
        """Return the symbols in the set or in a live lease, and malformed entries as written.

        With SPOTD_SUBSCRIBERS_ARE_DEMAND the daemon may know of more.
        """
        entries = await self._call("SMEMBERS", self._keys.symbols)
        leases = await self._call("ZRANGEBYSCORE", self._keys.leases, f"({time.time()}", "+inf")
        written = [_text(entry) for entry in entries] + [_text(lease) for lease in leases]
        return {symbol_of(e.partition("@")[0], allow_wildcard=True) or e for e in written}

    async def add(self, *symbols: str) -> list[str]:
        """Demand symbols until ``remove``, and wake the daemon up. ``*`` is the whole market.

        Return those that were not in the set before.
        """
        wanted = symbols_of(symbols, allow_wildcard=True)
        if not wanted:
            return []
        stored = {_text(entry) for entry in await self._call("SMEMBERS", self._keys.symbols)}
        await self._call("SADD", self._keys.symbols, *wanted)
        await self._call("PUBLISH", self._keys.wake, self.owner)
        return [symbol for symbol in wanted if symbol not in stored]

    async def remove(self, *symbols: str) -> list[str]:
        """End what ``add`` began, and wake the daemon up; leases stay. Return what was removed.

        All entries that mean the same are removed (``SPY``, ``spy ``), and malformed ones that are
        stored exactly so. Raises ValueError with other malformed ones.
        """
        stored = await self._call("SMEMBERS", self._keys.symbols)
        written = {_text(entry) for entry in stored} & set(symbols)
        meant = {symbol_of(entry, allow_wildcard=True) for entry in symbols} - {None}
        symbols_of((entry for entry in symbols if entry not in written), allow_wildcard=True)
        doomed = [
            entry
            for entry in stored
            if _text(entry) in written or symbol_of(_text(entry), allow_wildcard=True) in meant
        ]
        if doomed:
            await self._call("SREM", self._keys.symbols, *doomed)
            await self._call("PUBLISH", self._keys.wake, self.owner)
        gone = [_text(entry) for entry in doomed]
        return sorted({symbol_of(entry, allow_wildcard=True) or entry for entry in gone})

    async def _call(self, *command: str | bytes) -> Any:
        trying = AsyncRetrying(
            # A pooled connection may have died meanwhile; all commands here may be sent twice.
            retry=retry_if_exception_type(RedisConnectionError),
            stop=stop_after_attempt(2),
            wait=wait_random(0.02, 0.1),
            reraise=True,
        )
        with translated(self._redis, str(command[1])):
            return await trying(self._redis.execute_command, *command)

    def _read(self, decode: Callable[[bytes], T], raw: bytes | None) -> T | None:
        if raw is None:
            return None
        try:
            return decode(raw)
        except MALFORMED:
            self._counts.malformed += 1
            return None

    async def _iterate(self, subscribe: Callable[[], Subscription[T]]) -> AsyncGenerator[T, None]:
        # Built at the first step: an iterator that nobody starts has nothing to end.
        subscription = subscribe()
        self._subscriptions.add(subscription)
        try:
            await subscription.open()
            while (item := await subscription.next()) is not None:
                yield item
        finally:
            await subscription.aclose()
            self._subscriptions.discard(subscription)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
