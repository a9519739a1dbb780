"""Demand that dies with its owner: ``SPY@owner`` in ``spotd:leases``, renewed while it is held.

Talks to Redis. Must not know for what the symbols are wanted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any, NoReturn

from spotd.keys import Keys
from spotd.redis.errors import FAILURES

_RETRY_S = 1.0

log = logging.getLogger("spotd.client")


class Leases:
    """The leases of one owner. A symbol that is held twice is released after its second release."""

    def __init__(self, redis: Any, keys: Keys, owner: str, ttl_s: float) -> None:
        self._redis = redis
        self._keys = keys
        self._owner = owner
        self._ttl_s = ttl_s
        self._held: Counter[str] = Counter()
        self._renewing: asyncio.Task[NoReturn] | None = None
        # A renewal under way must not arrive after the removal, which would bring the lease back.
        self._writing = asyncio.Lock()

    def hold(self, symbols: Collection[str]) -> None:
        """Count the symbols as held from now on; ``write`` tells Redis."""
        self._held.update(symbols)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="spotd-client-leases")

    async def write(self, *, wake: bool) -> None:
        """Write all that is held, for one TTL from now; with ``wake``, wake the daemon up."""
        async with self._writing:
            if not self._held:
                return
            lapses_at = time.time() + self._ttl_s
            leases = {self._member(symbol): lapses_at for symbol in self._held}
            # Not in a pipeline: that of a cluster takes no PUBLISH.
            await self._redis.zadd(self._keys.leases, leases)
            if wake:
                await self._redis.publish(self._keys.wake, self._owner)

    async def release(self, symbols: Collection[str]) -> None:
        """Remove the leases. Where Redis is away they lapse by themselves, so it raises nothing."""
        self._held.subtract(symbols)
        gone = [symbol for symbol in symbols if self._held[symbol] <= 0]
        for symbol in gone:
            del self._held[symbol]
        if not self._held:
            await self._stop_renewing()
        if not gone:
            return
        async with self._writing:
            # A symbol that was held again meanwhile keeps its lease.
            members = [self._member(symbol) for symbol in gone if symbol not in self._held]
            if not members:
                return
            with suppress(*FAILURES):
                await self._redis.zrem(self._keys.leases, *members)
                await self._redis.publish(self._keys.wake, self._owner)

    async def _stop_renewing(self) -> None:
        task, self._renewing = self._renewing, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _renew(self) -> NoReturn:
        failing = False
        while True:
            await asyncio.sleep(min(_RETRY_S, self._ttl_s / 3) if failing else self._ttl_s / 3)
            try:
                await self.write(wake=False)
            except FAILURES as error:
                if not failing:
                    log.warning("leases not renewed, trying again: %s", type(error).__name__)
                failing = True
            else:
                if failing:
                    log.info("leases renewed again")
                failing = False

    def _member(self, symbol: str) -> str:
        return f"{symbol}@{self._owner}"
