"""A publisher that speaks the contract, and waiting on conditions."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from spotd.keys import Keys
from spotd.models import SpotPriceUpdate, SymbolState

AT = datetime(2026, 1, 20, 5, 12, tzinfo=UTC)
KEYS = Keys()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait for a condition, itself awaited if need be; fail when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)


def update_of(symbol: str, seq: int, bid: float = 421.35) -> SpotPriceUpdate:
    """An update as the daemon would publish it."""
    return SpotPriceUpdate(
        symbol=symbol,
        bid_price=bid,
        ask_price=bid + 0.04,
        mid_price=round(bid + 0.02, 6),
        last_price=None,
        timestamp=AT,
        seq=seq,
    )


def state_of(symbol: str, state: str = "live") -> SymbolState:
    """A state as the daemon would write it."""
    return SymbolState(symbol=symbol, state=state, reason=None, since=AT)  # type: ignore[arg-type]


class Publisher:
    """What the daemon does to Redis, without a daemon."""

    def __init__(self, client: Redis) -> None:
        self.redis = client

    async def publish(self, symbol: str, *seqs: int) -> None:
        async with self.redis.pipeline(transaction=False) as batch:
            for seq in seqs:
                json = update_of(symbol, seq).to_json()
                batch.hset(KEYS.last, symbol, json)
                batch.publish(KEYS.channel(symbol), json)
            await batch.execute()

    async def state(self, symbol: str, state: str) -> None:
        json = state_of(symbol, state).to_json()
        await self.redis.hset(KEYS.states, symbol, json)
        await self.redis.publish(KEYS.events, json)

    async def leases(self) -> dict[str, float]:
        stored: Any = await self.redis.zrange(KEYS.leases, 0, -1, withscores=True)
        return {member.decode(): score for member, score in stored}

    async def subscribers(self, channel: str) -> int:
        [(_, number)] = await self.redis.pubsub_numsub(channel)
        return int(number)
