"""SpotClient, what a consuming program holds: iterations, followers, and the leases of both.

Talks to Redis by one subscription and by leases; ``requests`` has the calls that it answers once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, TypeVar, overload
from weakref import WeakSet

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from spotd.client.async_iteration import AsyncIteration
from spotd.client.calls import Calls
from spotd.client.closing import ClosedByAsyncWith
from spotd.client.follower import Follower
from spotd.client.iterations import (
    Event,
    EventIteration,
    Iteration,
    PriceIteration,
    StateIteration,
)
from spotd.client.leases import Leases
from spotd.client.listener import FollowerListener
from spotd.client.requests import Requests
from spotd.client.subscription import Subscription
from spotd.client.symbols import symbols_of
from spotd.errors import SymbolRefusedError
from spotd.keys import Keys
from spotd.models import SpotPriceUpdate, SymbolState
from spotd.redis.clients import check_prefix, connect, master_of, place_of

T = TypeVar("T")

_TIMEOUT_S = 5.0  # of each answer


class SpotClient(Requests, ClosedByAsyncWith):
    """The newest prices of any symbols, and their states::

        async with SpotClient("redis://127.0.0.1:6379/0") as spot:
            async for update in spot.updates("SPY", "QQQ"):
                print(update.symbol, update.mid_price)

    ``url`` is an address of one server, of Sentinels or of a cluster, as SPOTD_REDIS_URL takes it.
    ``redis`` is a client of redis-py of your own instead, with bytes as replies; it is not closed
    here. Raises SettingsError for an address that is not valid, and for a ``key_prefix`` that
    would scatter the keys over a cluster; ValueError for a time that is not greater than 0.

    While an iteration runs, its symbols are demanded by leases, which lapse ``lease_ttl_s``
    seconds after this process died. ``owner`` is the readable part of their names: each client adds
    a part of its own behind a colon (``svc:host-4711-ab12``), so that many may have the same
    ``owner``. All iterations and followers share one subscription connection. Losing Redis does not
    end them: they join again by themselves. ``heartbeat_s`` is the silence after which that
    connection is tried. Where a symbol of ``updates`` has no price ``warn_after_s`` seconds after
    joining, or only the stored ones because no daemon publishes here, the reason is logged, as a
    warning of the logger ``spotd.client``. Other calls raise RedisUnavailableError, and all calls
    RuntimeError after ``aclose``.
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
        warn_after_s: float = 5.0,
        redis: Redis | RedisCluster | None = None,
    ) -> None:
        if lease_ttl_s <= 0 or heartbeat_s <= 0 or warn_after_s <= 0:
            raise ValueError("lease_ttl_s, heartbeat_s and warn_after_s must be greater than 0")
        self._id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._warn_after_s = warn_after_s
        self._owns_redis = redis is None
        self._redis: Any = redis
        if redis is None:
            self._redis = connect(url, answer_timeout_s=_TIMEOUT_S)
        keys = Keys(key_prefix, channel_prefix)
        check_prefix(self._redis, keys, "key_prefix (the daemon's SPOTD_KEY_PREFIX)")
        super().__init__(Calls(self._redis), keys, self._owned_by(owner))
        self._lease_ttl_s = lease_ttl_s
        self._leases: dict[str, Leases] = {}  # by owner, with the client's own part
        self._subscription = Subscription(
            self._calls, self._keys, self._counts, heartbeat_s, self._rewrite_leases
        )
        master = master_of(self._redis)
        if master is not None and redis is None:
            # What was written last may have gone to the server that was the wrong one.
            master.on_drop(self._renew_leases)
        self._readers: WeakSet[Iteration[Any] | Follower] = WeakSet()

    def __repr__(self) -> str:
        return f"<SpotClient {place_of(self._redis)} owner={self.owner}>"

    async def aclose(self) -> None:
        """End all iterations and followers, remove all leases, close the connections.

        Where Redis hangs, this waits for 2 s; the leases then lapse. May be called twice.
        """
        self._closed = True
        # All at once: where Redis hangs, each would wait for the removal of its own leases.
        await asyncio.gather(*(reader.aclose() for reader in self._readers))
        await asyncio.gather(*(leases.aclose() for leases in self._leases.values()))
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
        """How often the subscription was lost and joined again."""
        return self._counts.reconnects

    @overload
    def updates(
        self,
        *symbols: str,
        demand: bool = True,
        timeout: float | None = None,
        max_hz: float | None = None,
        with_states: Literal[False] = False,
    ) -> AsyncIteration[SpotPriceUpdate]: ...

    @overload
    def updates(
        self,
        *symbols: str,
        demand: bool = True,
        timeout: float | None = None,
        max_hz: float | None = None,
        with_states: Literal[True],
    ) -> AsyncIteration[SpotPriceUpdate | SymbolState]: ...

    def updates(
        self,
        *symbols: str,
        demand: bool = True,
        timeout: float | None = None,
        max_hz: float | None = None,
        with_states: bool = False,
    ) -> AsyncIteration[Any]:
        """Yield the last known price of each symbol, then newer ones; the newest replaces others.

        With ``demand`` (the default) leases hold the symbols while the iteration runs. Without it,
        only what others demand arrives. A consumer that is slow gets the newest price of each
        symbol; ``skipped`` of the iterator counts the others. ``max_hz`` limits the
        prices of a symbol in a second.

        A step that has waited ``timeout`` seconds raises TimeoutError, and the next one goes on::

            updates = spot.updates("SPY", timeout=5.0)
            while True:
                try:
                    update = await anext(updates)
                except TimeoutError:
                    print("no new price for 5 s")
                except StopAsyncIteration:
                    break  # the client was closed
                else:
                    print(update.symbol, update.mid_price)

        With ``with_states`` the states of the symbols come beside the prices, as SymbolState:
        ``stale`` never before a price that it calls suspect. While no daemon runs or Redis is away,
        each symbol is ``stale``, with the code ``no_daemon`` or ``redis_away``. A change of state
        lets the newest price pass at once, also with ``max_hz``.

        After a ``break`` the leases end when the iterator is collected, or at once with ``async
        with spot.updates(…) as updates``. Raises TypeError for a list instead of ``*symbols``,
        ValueError with malformed symbols, RedisUnavailableError where the first join fails.
        """
        self._check_open()
        _check_timeout(timeout)
        wanted = _at_least_one(symbols, "updates()")
        kind: Any = StateIteration if with_states else PriceIteration
        iteration: Iteration[Any] = kind(
            self._subscription,
            self._counts,
            symbols=wanted,
            leases=self._leases_of(self.owner) if demand else None,
            explain=lambda missing: self._why_no_price(missing, demanded=demand),
            warn_after_s=self._warn_after_s,
            max_hz=max_hz,
        )
        return self._face(iteration, timeout)

    def events(self, *, timeout: float | None = None) -> AsyncIteration[Event]:
        """Yield the present states of the daemon and of all symbols, then every change of them.

        A step that has waited ``timeout`` seconds raises TimeoutError, and the next one goes on.
        """
        self._check_open()
        _check_timeout(timeout)
        iteration = EventIteration(self._subscription, self._counts, events=True, everything=True)
        return self._face(iteration, timeout)

    def follow(
        self,
        listener: FollowerListener,
        *,
        demand: bool = True,
        owner: str | None = None,
        lease_ttl_s: float | None = None,
    ) -> Follower:
        """Return a follower, whose symbols may change; it works while its ``async with`` does::

            async with spot.follow(listener) as follower:
                follower.add("SPY", "QQQ")

        With ``demand`` leases hold its symbols, in the name of ``owner`` and for ``lease_ttl_s``
        seconds; without these, as the client's own. All leases of one owner in one client last as
        long as the longest that was asked for.
        """
        self._check_open()
        if lease_ttl_s is not None and lease_ttl_s <= 0:
            raise ValueError("lease_ttl_s must be greater than 0")
        owner = self._owned_by(owner) if owner else self.owner
        leases = self._leases_of(owner, lease_ttl_s) if demand else None
        follower = Follower(self._subscription, listener, leases)
        self._readers.add(follower)
        return follower

    def want(self, *symbols: str) -> AbstractAsyncContextManager[None]:
        """Demand symbols while an ``async with`` runs, without reading their prices.

        Entering it waits until the leases are written. Raises ValueError with malformed symbols,
        RedisUnavailableError where the leases cannot be written.
        """
        self._check_open()
        return self._want(_at_least_one(symbols, "want()"))

    async def wait_live(
        self, *symbols: str, timeout: float | None = 30.0
    ) -> dict[str, SymbolState]:
        """Wait until all symbols are live, by a daemon that runs. Return their states.

        It demands nothing: use it beside ``updates``, or within ``want``::

            async with spot.want("SPY", "QQQ"):
                await spot.wait_live("SPY", "QQQ", timeout=10.0)

        Raises SymbolRefusedError as soon as one is refused; TimeoutError, which says why, after
        ``timeout`` seconds; ValueError with malformed symbols; RedisUnavailableError.
        """
        self._check_open()
        _check_timeout(timeout)
        wanted = _at_least_one(symbols, "wait_live()")
        states: dict[str, SymbolState] = {}
        try:
            async with asyncio.timeout(timeout):
                await self._until_live(wanted, states)
        except TimeoutError:
            not_live = [s for s in wanted if s not in states or states[s].state != "live"]
            why = "; ".join(await self._why_no_price(not_live, demanded=False))
            raise TimeoutError(f"not live after {timeout:g} s: {why}") from None
        return {symbol: states[symbol] for symbol in wanted}

    def _face(self, iteration: Iteration[T], timeout: float | None) -> AsyncIteration[T]:
        self._readers.add(iteration)
        return AsyncIteration(iteration, timeout, self._check_open)

    async def _until_live(self, symbols: Sequence[str], states: dict[str, SymbolState]) -> None:
        iteration = self.updates(*symbols, demand=False, with_states=True)
        async with iteration as items:
            async for item in items:
                if not isinstance(item, SymbolState):
                    continue
                states[item.symbol] = item
                if item.state == "refused":
                    why = ": ".join(text for text in (item.reason, item.detail) if text)
                    raise SymbolRefusedError(f"{item.symbol} is refused: {why}")
                if all(s in states and states[s].state == "live" for s in symbols):
                    return
        self._check_open()

    @asynccontextmanager
    async def _want(self, symbols: Sequence[str]) -> AsyncIterator[None]:
        self._check_open()
        leases = self._leases_of(self.owner)
        leases.hold(symbols)
        try:
            await leases.confirm(symbols)
            yield
        finally:
            leases.release(symbols)
            await leases.settle()

    def _owned_by(self, owner: str | None) -> str:
        return f"{owner}:{self._id}" if owner else self._id

    def _leases_of(self, owner: str, ttl_s: float | None = None) -> Leases:
        ttl_s = ttl_s or self._lease_ttl_s
        leases = self._leases.get(owner)
        if leases is None:
            leases = Leases(self._calls, self._keys, owner, ttl_s)
            self._leases[owner] = leases
        leases.ttl_s = max(leases.ttl_s, ttl_s)
        return leases

    async def _rewrite_leases(self) -> None:
        for leases in tuple(self._leases.values()):
            await leases.rewrite()

    def _renew_leases(self, _: str) -> None:
        for leases in tuple(self._leases.values()):
            leases.renew()


def _at_least_one(symbols: Sequence[str], call: str) -> list[str]:
    wanted = symbols_of(symbols)
    if not wanted:
        raise ValueError(f"{call} needs at least one symbol")
    return wanted


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout > 0:
        raise ValueError("timeout must be greater than 0")
