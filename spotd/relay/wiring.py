"""WIRES. A relay and its prices from Redis, for every edge. Must not know any framework."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


async def serve_until(stop_asked: asyncio.Event, relay: Relay) -> None:
    """Return when asked to stop. Raises what ended the relay's loops: a defect."""
    running = asyncio.create_task(relay.run(), name="relay")
    stopping = asyncio.create_task(stop_asked.wait(), name="stop")
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.wait((running, stopping))
