"""Demand that dies with its owner: ``SPY@owner`` in ``spotd:leases``, renewed while it is held.

Talks to Redis. Must not know what the symbols are wanted for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import NoReturn

from redis.asyncio import Redis

from spotd.client.link import FAILURES
from spotd.keys import Keys

_RETRY_S = 1.0

log = logging.getLogger("spotd.client")


class Leases:
    """The leases of one owner; a symbol that is held twice is released when both have let go."""

    def __init__(self, redis: Redis, keys: Keys, owner: str, ttl_s: float) -> None:
        self._redis = redis
        self._keys = keys
        self._owner = owner
        self._ttl_s = ttl_s
        self._held: Counter[str] = Counter()
        self._renewing: asyncio.Task[NoReturn] | None = None
        # A renewal on its way must not arrive after the removal, and bring the lease back.
        self._writing = asyncio.Lock()

    def hold(self, symbols: Collection[str]) -> None:
        """Count the symbols as held from here on; ``write`` tells Redis."""
        self._held.update(symbols)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="spotd-client-leases")

    async def write(self, *, wake: bool) -> None:
        """Write all that is held, good for one TTL from now; with ``wake``, call the daemon."""
        async with self._writing:
            if not self._held:
                return
            lapses_at = time.time() + self._ttl_s
            async with self._redis.pipeline(transaction=False) as batch:
                batch.zadd(self._keys.leases, {self._member(s): lapses_at for s in self._held})
                if wake:
                    batch.publish(self._keys.wake, self._owner)
                await batch.execute()

    async def release(self, symbols: Collection[str]) -> None:
        """Let go. Where Redis is away the leases lapse by themselves, so that is no error."""
        self._held.subtract(symbols)
        gone = [symbol for symbol in symbols if self._held[symbol] <= 0]
        for symbol in gone:
            del self._held[symbol]
        if not self._held:
            await self._stop_renewing()
        if not gone:
            return
        async with self._writing:
            # Taken again while this waited: then it is wanted.
            members = [self._member(symbol) for symbol in gone if symbol not in self._held]
            if not members:
                return
            with suppress(*FAILURES):
                async with self._redis.pipeline(transaction=False) as batch:
                    batch.zrem(self._keys.leases, *members)
                    batch.publish(self._keys.wake, self._owner)
                    await batch.execute()

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
                    log.warning("leases not renewed, trying on: %s", type(error).__name__)
                failing = True
            else:
                if failing:
                    log.info("leases renewed again")
                failing = False

    def _member(self, symbol: str) -> str:
        return f"{symbol}@{self._owner}"
