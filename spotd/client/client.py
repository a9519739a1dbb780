"""SpotClient, what a consuming program holds. Talks to Redis through its feeds and leases."""

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
from redis.exceptions import ConnectionError as RedisConnectionError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random

from spotd.client.leases import Leases
from spotd.client.link import connect, place_of, translated
from spotd.client.subscription import MALFORMED, Counts, Event, EventsFeed, Feed, UpdatesFeed
from spotd.keys import Keys
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolState

T = TypeVar("T")

# The daemon's own rule (spotd.symbols), which the client must not import.
_SYMBOL = re.compile(r"[A-Z]{1,8}(?:\.[A-Z]{1,4})?")


def symbol_of(entry: str, *, allow_wildcard: bool = False) -> str | None:
    """The symbol that an entry means, trimmed and upper-cased; None: it means none."""
    # Only ASCII is upper-cased: "ſpy".upper() would be a symbol that nobody asked for.
    symbol = entry.strip().upper() if entry.isascii() else ""
    good = _SYMBOL.fullmatch(symbol) or (allow_wildcard and symbol == "*")
    return symbol if good else None


def symbols_of(entries: Iterable[str], *, allow_wildcard: bool = False) -> list[str]:
    """The symbols that entries mean, each once. Raises ValueError naming the malformed ones."""
    meaning = {entry: symbol_of(entry, allow_wildcard=allow_wildcard) for entry in entries}
    malformed = [repr(entry[:64]) for entry, symbol in meaning.items() if symbol is None]
    if malformed:
        raise ValueError(f"not a symbol: {', '.join(malformed)}")
    return list(dict.fromkeys(symbol for symbol in meaning.values() if symbol is not None))


class SpotClient:
    """The newest prices of any symbols, and how they stand::

        async with SpotClient("redis://127.0.0.1:6379/0") as spot:
            async for update in spot.updates("SPY", "QQQ"):
                print(update.symbol, update.mid_price)

    While an iteration runs, its symbols are demanded by leases that lapse ``lease_ttl_s`` seconds
    after this process died. Losing Redis does not end an iteration: it joins again by itself.
    Other calls raise RedisUnavailableError. ``redis`` is a connected pool of your own (Sentinel's
    master, say) instead of ``url``, with bytes as replies; it is not closed here.
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
        redis: Redis | None = None,
    ) -> None:
        if lease_ttl_s <= 0 or heartbeat_s <= 0:
            raise ValueError("lease_ttl_s and heartbeat_s must be greater than 0")
        self.owner = owner or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._owns_redis = redis is None
        self._redis = connect(url) if redis is None else redis
        self._keys = Keys(key_prefix, channel_prefix)
        self._leases = Leases(self._redis, self._keys, self.owner, lease_ttl_s)
        self._heartbeat_s = heartbeat_s
        self._counts = Counts()
        self._feeds: set[Feed[Any]] = set()

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
        for feed in tuple(self._feeds):
            await feed.aclose()
        if self._owns_redis:
            await self._redis.aclose()

    @property
    def malformed(self) -> int:
        """How many messages and stored values could not be read, and were skipped."""
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
        """The last known price of each symbol, then every newer one; newest wins, none is old.

        With ``demand`` (the default) the symbols are held by leases while the iteration runs;
        without it, only what others demand arrives. After a ``break`` the leases end when the
        iterator is collected, or with ``contextlib.aclosing`` at once. Raises ValueError naming
        malformed symbols, RedisUnavailableError where the first join fails.
        """
        wanted = symbols_of(symbols)
        if not wanted:
            raise ValueError("updates() needs at least one symbol")
        leases = self._leases if demand else None
        return self._iterate(
            lambda: UpdatesFeed(
                self._redis, self._keys, wanted, leases, self._counts, self._heartbeat_s
            )
        )

    def events(self) -> AsyncGenerator[Event, None]:
        """The daemon's and all symbols' present states, then every change of them."""
        return self._iterate(
            lambda: EventsFeed(self._redis, self._keys, self._counts, self._heartbeat_s)
        )

    async def latest(self, *symbols: str) -> dict[str, SpotPriceUpdate | None]:
        """The last known price of each symbol, None where there is none; of all, if none named."""
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
        """How the daemon stands; None: no daemon runs here."""
        return self._read(DaemonStatus.from_json, await self._call("GET", self._keys.status))

    async def states(self) -> dict[str, SymbolState]:
        """How every desired symbol, and every refused entry, stands."""
        stored = await self._call("HGETALL", self._keys.states)
        read = {_text(name): self._read(SymbolState.from_json, raw) for name, raw in stored.items()}
        return {name: state for name, state in read.items() if state is not None}

    async def desired(self) -> set[str]:
        """The symbols wanted now, by the set or by a live lease; malformed entries as written.

        With SPOTD_SUBSCRIBERS_ARE_DEMAND the daemon may know of more.
        """
        entries = await self._call("SMEMBERS", self._keys.symbols)
        leases = await self._call("ZRANGEBYSCORE", self._keys.leases, f"({time.time()}", "+inf")
        written = [_text(entry) for entry in entries] + [_text(lease) for lease in leases]
        return {symbol_of(e.partition("@")[0], allow_wildcard=True) or e for e in written}

    async def add(self, *symbols: str) -> list[str]:
        """Demand symbols until ``remove``, and wake the daemon. ``*`` is the whole market.

        Gives those that were not there before.
        """
        wanted = symbols_of(symbols, allow_wildcard=True)
        if not wanted:
            return []
        stored = {_text(entry) for entry in await self._call("SMEMBERS", self._keys.symbols)}
        await self._call("SADD", self._keys.symbols, *wanted)
        await self._call("PUBLISH", self._keys.wake, self.owner)
        return [symbol for symbol in wanted if symbol not in stored]

    async def remove(self, *symbols: str) -> list[str]:
        """End what ``add`` began, and wake the daemon; leases are not touched. Gives what went.

        All entries that mean the same go (``SPY``, ``spy ``), and malformed ones that are stored
        exactly so; others raise ValueError.
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
            # A pooled connection may have died since; all commands here may be sent twice.
            retry=retry_if_exception_type(RedisConnectionError),
            stop=stop_after_attempt(2),
            wait=wait_random(0.02, 0.1),
            reraise=True,
        )
        with translated(self._redis):
            return await trying(self._redis.execute_command, *command)

    def _read(self, decode: Callable[[bytes], T], raw: bytes | None) -> T | None:
        if raw is None:
            return None
        try:
            return decode(raw)
        except MALFORMED:
            self._counts.malformed += 1
            return None

    async def _iterate(self, feed_of: Callable[[], Feed[T]]) -> AsyncGenerator[T, None]:
        # Built on the first step: an iterator that nobody starts has nothing to end.
        feed = feed_of()
        self._feeds.add(feed)
        try:
            await feed.open()
            while (item := await feed.next()) is not None:
                yield item
        finally:
            await feed.aclose()
            self._feeds.discard(feed)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
