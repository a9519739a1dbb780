"""The load: quotes and trades as Alpaca sends them, and services that change their demand.

Talks to the simulator and to Redis. All choices follow from the seed; when they are made does not.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from spotd.simulator import Simulator
from tests.soak.prices import SPREAD, Prices, bid_of
from tests.soak.topologies import Servers

ALWAYS = tuple(f"A{letter}" for letter in "ABCDEFGHIJKL")
SOMETIMES = tuple(f"S{a}{b}" for a in "ABCD" for b in "ABCDEFGH")
SYMBOLS = ALWAYS + SOMETIMES
GARBAGE = "not a symbol!"
_TICK_S = 0.02
_ODD_LOT = ["@", "I"]  # does not set the last sale
_REASSURE_S = 0.4  # services say again what they need: Redis may have lost it
_CALL_S = 1.0


class Source:
    """Sends quotes and trades of all symbols. ``last_sales`` are the newest that set one."""

    def __init__(self, sim: Simulator, prices: Prices, seed: int, quotes_per_s: float) -> None:
        self.paused = False
        self.last_sales: dict[str, float] = {}
        self._sim, self._prices = sim, prices
        self._rng = random.Random(f"{seed}/source")
        self._quotes_per_s = quotes_per_s

    async def run(self) -> None:
        """Send until cancelled."""
        rng, due = self._rng, 0.0
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            due += min(now - before, 0.25) * self._quotes_per_s
            before = now
            number, due = int(due), due % 1.0
            if not self.paused:
                await self._sim.send(
                    [self._message(symbol) for symbol in rng.choices(SYMBOLS, k=number)]
                )

    async def send_final(self) -> None:
        """Send a sale and a quote of every symbol, after which nothing comes while paused."""
        await self._sim.send([self._sale(symbol) for symbol in SYMBOLS])
        await self._sim.send([self._quote(symbol) for symbol in SYMBOLS])

    def _message(self, symbol: str) -> dict[str, Any]:
        luck = self._rng.random()
        if luck < 0.02:  # one-sided: counted, never published
            return {"T": "q", "S": symbol, "bp": 0.0, "ap": 5.0, "bx": " ", "bs": 0}
        if luck < 0.06:
            return self._sale(symbol)
        if luck < 0.08:
            return {"T": "t", "S": symbol, "p": 1.0, "c": _ODD_LOT}
        return self._quote(symbol)

    def _quote(self, symbol: str) -> dict[str, Any]:
        number = self._prices.next_number(symbol)
        self._prices.sent(symbol, number, time.monotonic())
        bid = bid_of(number)
        return {"T": "q", "S": symbol, "bp": bid, "ap": round(bid + SPREAD, 2)}

    def _sale(self, symbol: str) -> dict[str, Any]:
        price = bid_of(max(0, self._prices.newest(symbol)[0]))
        self.last_sales[symbol] = price
        return {"T": "t", "S": symbol, "p": price, "c": ["@"]}


class Services:
    """Programs that want symbols: some always, others for a while, by the set or by leases."""

    def __init__(self, servers: Servers, seed: int) -> None:
        self.changes = 0
        self.paused = False
        self._servers = servers
        self._keys = servers.keys
        self._rng = random.Random(f"{seed}/services")
        self._set: set[str] = {*ALWAYS[:8], GARBAGE}
        self._leased: dict[str, float] = dict.fromkeys(ALWAYS[8:], float("inf"))
        self._forget: set[str] = set()

    async def run(self) -> None:
        """Change the demand again and again, and say it again where Redis lost it."""
        while True:
            wake = self._rng.random() < 0.5
            if not self.paused:
                self._change()
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_CALL_S):
                    await self._say(wake=wake)
            await asyncio.sleep(self._rng.uniform(0.1, 2 * _REASSURE_S))

    def _change(self) -> None:
        rng = self._rng
        self.changes += 1
        symbol = rng.choice(SOMETIMES)
        if rng.random() < 0.5:
            if symbol in self._set:
                self._set.discard(symbol)
                self._forget.add(symbol)
            else:
                self._set.add(symbol)
        elif symbol in self._leased:
            self._leased[symbol] = 0.0
        else:
            self._leased[symbol] = time.monotonic() + rng.uniform(1.0, 15.0)

    async def _say(self, *, wake: bool) -> None:
        now, keys = time.monotonic(), self._keys
        owner = await asyncio.to_thread(self._servers.owner)
        async with aioredis.Redis(host="127.0.0.1", port=owner.port) as client:
            seconds, micros = await client.time()  # a lease's score is by Redis' own clock
            unix_s = int(seconds) + int(micros) / 1e6
            async with client.pipeline(transaction=True) as pipe:
                pipe.sadd(keys.symbols, *sorted(self._set))
                if self._forget:
                    pipe.srem(keys.symbols, *sorted(self._forget - self._set))
                held = {
                    f"{s}@soak": unix_s + 6.0 for s, until in self._leased.items() if until > now
                }
                ended = [f"{s}@soak" for s, until in self._leased.items() if until == 0.0]
                pipe.zadd(keys.leases, held)
                if ended:
                    pipe.zrem(keys.leases, *ended)
                if wake:
                    pipe.publish(keys.wake, "")
                await pipe.execute()
        self._forget.clear()
        self._leased = {s: until for s, until in self._leased.items() if until > now}
