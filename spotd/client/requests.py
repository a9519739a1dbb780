"""The calls of a client that Redis answers at once: what is stored, and the plain demand.

Talks to Redis. Must not hold leases or a subscription.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

from spotd.client.calls import Calls
from spotd.client.clock import RedisClock
from spotd.client.missing import Found, listening_patterns, reasons
from spotd.client.symbols import check_texts, symbol_of, symbols_of
from spotd.client.telling import MALFORMED, Counts
from spotd.errors import RedisUnavailableError, SpotdError
from spotd.keys import Keys
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolState
from spotd.redis.errors import RefusedError, answered, translated

T = TypeVar("T")


class Requests:
    """What ``SpotClient`` asks for once. ``owner`` is told with each wake of the daemon.

    Each call raises RedisUnavailableError, and RuntimeError once the client is closed.
    """

    def __init__(self, calls: Calls, keys: Keys, owner: str) -> None:
        self.owner = owner
        self._calls = calls
        self._keys = keys
        self._counts = Counts()
        self._closed = False

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
        """Return the status of the daemon; None where no daemon runs: then no state counts."""
        return self._read(DaemonStatus.from_json, await self._call("GET", self._keys.status))

    async def states(self) -> dict[str, SymbolState]:
        """Return the state of every desired symbol and of every refused entry.

        They count only while ``status`` is not None: a daemon that was killed leaves them behind.
        """
        stored = await self._call("HGETALL", self._keys.states)
        read = {_text(name): self._read(SymbolState.from_json, raw) for name, raw in stored.items()}
        return {name: state for name, state in read.items() if state is not None}

    async def frame(self, *symbols: str) -> Any:
        """Return the last known prices as a pandas DataFrame: a row per symbol, a column per field.

        Without symbols, all there are. A symbol without a price has a row without values. Needs
        pandas, which nothing else here imports; raises SpotdError where it is not installed.
        """
        try:
            pandas = await asyncio.to_thread(import_module, "pandas")
        except ModuleNotFoundError as error:
            raise SpotdError("frame() needs pandas: pip install pandas") from error
        last = await self.latest(*symbols)
        rows = [{} if update is None else update.to_dict() for update in last.values()]
        names = [name for name in SpotPriceUpdate.__struct_fields__ if name != "symbol"]
        frame = pandas.DataFrame(rows, index=pandas.Index(last, name="symbol"), columns=names)
        frame["timestamp"] = pandas.to_datetime(frame["timestamp"], utc=True)
        prices = [name for name in names if name.endswith("_price")]
        return frame.astype(dict.fromkeys(prices, "float64") | {"seq": "Int64"})

    async def desired(self) -> set[str]:
        """Return the symbols in the set or in a live lease, and malformed entries as written.

        With SPOTD_SUBSCRIBERS_ARE_DEMAND the daemon may know of more.
        """
        entries = await self._call("SMEMBERS", self._keys.symbols)
        unix_s = await RedisClock(self._call).ask()
        leases = await self._call("ZRANGEBYSCORE", self._keys.leases, f"({unix_s}", "+inf")
        # Only a lease has an owner: an @ in an entry of the set makes the entry malformed.
        demands = [(entry, entry) for entry in map(_text, entries)]
        demands += [(lease.partition("@")[0], lease) for lease in map(_text, leases)]
        return {symbol_of(name, allow_wildcard=True) or written for name, written in demands}

    async def add(self, *symbols: str) -> list[str]:
        """Demand symbols until ``remove``, and wake the daemon up. ``*`` is the whole market.

        Return those that were not in the set before.
        """
        wanted = symbols_of(symbols, allow_wildcard=True)
        if not wanted:
            return []
        stored = {_text(entry) for entry in await self._call("SMEMBERS", self._keys.symbols)}
        await self._call("SADD", self._keys.symbols, *wanted)
        await self._wake()
        return [symbol for symbol in wanted if symbol not in stored]

    async def remove(self, *symbols: str) -> list[str]:
        """End what ``add`` began, and wake the daemon up; leases stay. Return what was removed.

        All entries that mean the same are removed (``SPY``, ``spy ``), and malformed ones that are
        stored exactly so. Raises ValueError with other malformed ones.
        """
        check_texts(symbols)
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
            await self._wake()
        gone = [_text(entry) for entry in doomed]
        return sorted({symbol_of(entry, allow_wildcard=True) or entry for entry in gone})

    async def _call(self, *command: str | bytes) -> Any:
        self._check_open()
        with translated(self._calls.redis, str(command[1] if command[1:] else "a key")):
            return await self._calls(*command)

    async def _wake(self) -> None:
        with translated(self._calls.redis):
            await self._calls.wake(self._keys.wake, self.owner)

    def _read(self, decode: Callable[[bytes], T], raw: bytes | None) -> T | None:
        if raw is None:
            return None
        try:
            return decode(raw)
        except MALFORMED:
            self._counts.malformed += 1
            return None

    async def _why_no_price(self, symbols: Sequence[str], *, demanded: bool) -> list[str]:
        """Return why symbols have no price. Raises RedisUnavailableError."""
        status = await self.status()
        states = await self._call("HMGET", self._keys.states, *symbols) if symbols else []
        read = [self._read(SymbolState.from_json, raw) for raw in states]
        by_symbol = {state.symbol: state for state in read if state is not None}
        listening: list[str] | None
        try:
            asked = [await self._call("PUBSUB", "CHANNELS", p) for p in listening_patterns()]
            listening = [_text(channel) for channels in asked for channel in channels]
        except RedisUnavailableError as error:
            if not answered(error):
                raise
            listening = None
        found = Found(status, await self._led(), by_symbol, listening)
        return reasons(self._keys, symbols, found, demanded=demanded)

    async def _led(self) -> bool | None:
        """Return whether a daemon holds the leader key; None where our user may not read it."""
        try:
            return await self._call("GET", self._keys.leader) is not None
        except RefusedError:
            return None

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
