"""WIRES. A relay and its prices from Redis, for every edge. Must not know any framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import NoReturn

from spotd.client import SpotClient
from spotd.relay.limits import Limits
from spotd.relay.relay import Relay

_LEASE_S = 60.0  # how long the demand of a relay that died stays


@asynccontextmanager
async def wired(
    redis_url: str,
    limits: Limits,
    *,
    demand: bool,
    key_prefix: str,
    channel_prefix: str,
    simulated: bool = False,
) -> AsyncIterator[tuple[Relay, SpotClient]]:
    """Yield a relay that is told of prices, and the client that tells it.

    At the end its leases are removed. Raises SettingsError for an address that is not valid.
    """
    relay = Relay(limits, demand=demand, simulated=simulated)
    spot = SpotClient(
        redis_url, key_prefix=key_prefix, channel_prefix=channel_prefix, lease_ttl_s=_LEASE_S
    )
    async with spot, spot.follow(relay, demand=demand) as source:
        relay.attach(source)
        yield relay, spot


async def serve_until(
    stop_asked: asyncio.Event, **loops: Coroutine[object, object, NoReturn]
) -> None:
    """Run loops, by their names, until asked to stop. Raises what ended one of them: a defect."""
    running = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
    stopping = asyncio.create_task(stop_asked.wait(), name="stop")
    try:
        await asyncio.wait((*running, stopping), return_when=asyncio.FIRST_COMPLETED)
        for ended in filter(asyncio.Task.done, running):
            ended.result()
    finally:
        for task in (*running, stopping):
            task.cancel()
        await asyncio.wait((*running, stopping))
