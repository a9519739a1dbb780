"""The relay on a real server: joining, demand, faults of Redis, and a real daemon behind it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp

from spotd.relay.server import run_relay
from spotd.simulator import Simulator
from tests.daemon.rig import KEY, SECRET, Rig
from tests.kit.publisher import Publisher, gap_of, status_of
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until
from tests.relay.conftest import websocket
from tests.relay.examples import settings_of

SUBSCRIBE = "/api/positions/subscribe-spot-prices"


@asynccontextmanager
async def relay(server: Server, **settings: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Run a relay on this server, with these settings. Yield a client of its HTTP."""
    given = settings_of(**({"redis_url": server.url, "relay_port": 0} | settings))
    stop_asked = asyncio.Event()
    addresses: list[str] = []
    running = asyncio.create_task(run_relay(given, stop_asked, addresses.append))
    try:
        await until(lambda: addresses or running.done(), "the relay to listen")
        async with aiohttp.ClientSession(addresses[0]) as http:
            yield http
    finally:
        stop_asked.set()
        async with asyncio.timeout(GUARD_S):
            await running


def ready(http: aiohttp.ClientSession) -> Any:
    """Return a condition: the relay says that it is ready."""

    async def asked() -> bool:
        return (await http.get("/readyz")).status == 200

    return asked


async def test_a_client_joins_without_a_gap(server: Server, daemon: Publisher) -> None:
    """First the stored price, then every newer one, through the relay's one connection."""
    await daemon.publish("SPY", 1)
    async with relay(server) as http:
        await until(ready(http), "the relay to be ready")
        async with websocket(http, "SPY") as one, websocket(http, "SPY") as other:
            for client in (one, other):
                assert client.hello["daemon"]["state"] == "streaming"
                await client.price("SPY", 1)
            await daemon.publish("SPY", 2)
            for client in (one, other):
                assert await client.price("SPY", 2) == [("SPY", 2)]
            assert await daemon.subscribers("spot:SPY") == 1
            await daemon.announce("SPY", "halted")
            message = await one.next()
            while message["type"] != "symbol":
                message = await one.next()
            assert message["state"] == "halted"


async def test_a_gap_reaches_every_kind_of_client(server: Server, daemon: Publisher) -> None:
    """A websocket, and an event stream as an event of that type; as the daemon wrote it."""
    await daemon.publish("SPY", 1)
    gap = gap_of("leader_changed")
    async with relay(server) as http:
        await until(ready(http), "the relay to be ready")
        async with websocket(http, "SPY") as client, http.get("/sse?symbols=SPY") as events:
            await client.price("SPY", 1)
            async with asyncio.timeout(GUARD_S):
                await events.content.readuntil(b'"seq":1')
                await daemon.announce_gap(gap)
                await events.content.readuntil(b"event: gap\ndata: " + gap.to_json() + b"\n\n")
            message = await client.next()
            while message["type"] != "gap":
                message = await client.next()
            assert message == json.loads(gap.to_json())


async def test_demand_is_leases_that_end_with_the_last_client(
    server: Server, daemon: Publisher
) -> None:
    """So do leases of a POST while a websocket is open. A relay that stops leaves none behind."""
    async with relay(server) as http:
        await until(ready(http), "the relay to be ready")
        async with websocket(http, "QQQ"):

            async def demanded() -> set[str]:
                return {member.partition("@")[0] for member in await daemon.leases()}

            async def both() -> bool:
                return await demanded() == {"QQQ"}

            await until(both, "the websocket's demand")
            asked_at = time.time()
            answer = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
            assert (await answer.json())["symbols"] == ["SPY"]
            leases = await daemon.leases()
            [lapses] = [at for member, at in leases.items() if member.startswith("SPY@")]
            assert asked_at + 55 < lapses

        async def only_spy() -> bool:
            return await demanded() == {"SPY"}

        await until(only_spy, "the websocket's demand to end")
    assert await daemon.leases() == {}


async def test_a_relay_that_only_shows_demands_nothing(server: Server, daemon: Publisher) -> None:
    """It shows what is streamed anyway."""
    async with relay(server, relay_demand=False) as http:
        await until(ready(http), "the relay to be ready")
        async with websocket(http, "SPY") as client:
            await client.synced()
            answer = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
            assert answer.status == 200

            async def followed() -> bool:
                return await daemon.subscribers("spot:SPY") == 1

            await until(followed, "the relay to follow SPY")
            await daemon.publish("SPY", 5)
            await client.price("SPY", 5)
        assert await daemon.leases() == {}


async def test_a_relay_starts_and_waits_where_redis_is_away(server: Server) -> None:
    """It listens, says why it is not ready, and POST is 503; then it joins by itself."""
    server.kill()
    async with relay(server) as http:
        reasons = await (await http.get("/readyz")).json()
        assert reasons[0].startswith("redis_away: ")
        async with websocket(http, "SPY") as client:
            assert client.hello["relay"]["state"] == "redis_away"
            answer = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
            assert answer.status == 503
            assert (await answer.json())["status"] == "error"
            server.restart()
            async with Publisher(server.url) as daemon:
                await daemon.redis.set(daemon.keys.status, status_of().to_json())
                await daemon.publish("SPY", 3)
                await client.price("SPY", 3)
                await until(ready(http), "the relay to be ready")


async def test_clients_survive_a_restart_of_redis(server: Server, daemon: Publisher) -> None:
    """They are told, stay connected, and get the newest price; the demand is written anew."""
    async with relay(server) as http:
        await until(ready(http), "the relay to be ready")
        async with websocket(http, "SPY") as client:
            await daemon.publish("SPY", 1)
            await client.price("SPY", 1)
            server.kill()
            assert (await client.next_of("relay"))["state"] == "redis_away"
            server.restart(lose_data=True)
            await daemon.redis.set(daemon.keys.status, status_of().to_json())
            await daemon.publish("SPY", 2)
            assert (await client.price("SPY", 2))[-1] == ("SPY", 2)

            await until(daemon.leases, "the demand to be written anew")
            await until(ready(http), "the relay to be ready")


async def test_two_relays_show_the_same_and_demand_in_their_own_names(
    server: Server, daemon: Publisher
) -> None:
    """When one stops, its clients find the other, whose demand stands."""
    async with relay(server) as other, websocket(other, "SPY") as stays:
        async with relay(server) as one, websocket(one, "SPY") as moves:

            async def demanded_twice() -> bool:
                return len(await daemon.leases()) == 2

            await until(demanded_twice, "two leases")
            await daemon.publish("SPY", 1)
            for client in (moves, stays):
                await client.price("SPY", 1)
        async with websocket(other, "SPY") as moved:
            await moved.price("SPY", 1)
            assert len(await daemon.leases()) == 1


async def test_a_browser_asks_and_a_quote_of_alpaca_reaches_it(server: Server) -> None:
    """From POST to Alpaca's subscription, and from Alpaca's quote to the websocket."""
    async with Simulator(keys={KEY: SECRET}) as sim:
        rig: AbstractAsyncContextManager[Rig] = Rig(server.url, sim)
        async with rig as daemon, relay(server) as http:
            await until(ready(http), "the relay to be ready")
            answer = await http.post(SUBSCRIBE, json={"symbols": ["SPY", "QQQ"]})
            assert answer.status == 200
            await until(lambda: daemon.active >= {"SPY", "QQQ"}, "Alpaca to acknowledge")
            async with websocket(http, "SPY") as client:
                await daemon.quote("SPY", 421.35, 421.39)
                message = await client.next_of("spot_price_update")
                assert message["update"]["mid_price"] == 421.37
                prices = await (await http.get("/api/spot-prices?symbols=SPY,QQQ")).json()
                assert prices["prices"]["SPY"]["bid_price"] == 421.35
                assert prices["prices"]["QQQ"] is None
                async with websocket(http, "IWM"):
                    await until(lambda: "IWM" in daemon.active, "Alpaca to acknowledge")
                await until(lambda: "IWM" not in daemon.active, "IWM to be given up")
