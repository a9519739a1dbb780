"""Demand by lease: held during an iteration, renewed, and gone afterwards."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Redis

from spotd.client import SpotClient
from spotd.client.calls import Calls
from spotd.client.leases import Leases
from tests.kit.publisher import KEYS, Publisher
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until


async def wakes_of(daemon: Publisher) -> asyncio.Task[list[bytes]]:
    """Listen to the wake channel; the task returns the first two messages."""
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
    hearing = await wakes_of(daemon)
    async with SpotClient(url) as spot:
        async with aclosing(spot.updates("SPY", "QQQ")) as updates:
            await anext(updates)
            leases = await daemon.leases()
            assert set(leases) == {f"SPY@{spot.owner}", f"QQQ@{spot.owner}"}
            assert all(time.time() < lapses <= time.time() + 30 for lapses in leases.values())
        assert await daemon.leases() == {}
        assert await hearing == [spot.owner.encode()] * 2


@pytest.mark.parametrize("first", ["iteration", "client"])
async def test_an_end_does_not_wait_for_a_redis_that_hangs(own_server: Server, first: str) -> None:
    """It is over before a call is given up that began when Redis was hanging already."""
    async with Publisher(own_server.url) as daemon:
        await daemon.publish("SPY", 1)
        await daemon.publish("QQQ", 1)
    async with SpotClient(own_server.url) as other:
        await other.status()
        spot = SpotClient(own_server.url)
        iterations = [spot.updates(symbol) for symbol in ("SPY", "QQQ")]
        for iteration in iterations:
            await anext(iteration)
        own_server.freeze()
        given_up = asyncio.create_task(other.status())
        if first == "iteration":
            await iterations[0].aclose()
        await spot.aclose()
        assert not given_up.done()
        own_server.thaw()
        assert await given_up is None


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
    """An iteration that only listens demands nothing."""
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
            assert set(await daemon.leases()) == {f"SPY@{spot.owner}"}
        assert await daemon.leases() == {}


async def test_renewed(url: str, daemon: Publisher) -> None:
    """A lease is written again before it lapses."""
    await daemon.publish("SPY", 1)
    async with (
        SpotClient(url, owner="me", lease_ttl_s=0.3) as spot,
        aclosing(spot.updates("SPY")) as updates,
    ):
        await anext(updates)
        first = (await daemon.leases())[f"SPY@{spot.owner}"]

        async def renewed() -> bool:
            return (await daemon.leases())[f"SPY@{spot.owner}"] > first + 0.5

        await until(renewed, "a renewal")


@pytest.mark.parametrize("wrong_s", [-40.0, 3_600.0])
async def test_the_clock_is_that_of_redis(
    url: str, daemon: Publisher, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    """Where our own is wrong, a lease lapses at the right time all the same, and is listed."""
    await daemon.publish("SPY", 1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + wrong_s)
    async with SpotClient(url, owner="me") as spot, aclosing(spot.updates("SPY")) as updates:
        await anext(updates)
        lapses_in_s = (await daemon.leases())[f"SPY@{spot.owner}"] - real()
        assert 0.0 < lapses_in_s <= 30.0
        assert await spot.desired() == {"SPY"}


async def test_the_clock_is_asked_at_renewals_only(url: str, daemon: Publisher) -> None:
    """A new symbol costs no round trip more; a renewal, or a new connection, asks anew."""
    asked: list[str] = []

    class Heard(Redis):
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            asked.append(args[0])
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async with Heard.from_url(url) as redis:
        leases = Leases(Calls(redis), KEYS, "me", 600.0)
        for symbol in ("SPY", "QQQ", "IWM"):
            leases.hold([symbol])
            await leases.confirm([symbol])
        assert asked == ["TIME", *["ZADD", "PUBLISH"] * 3]
        asked.clear()
        await leases.rewrite()
        assert asked == ["TIME", "ZADD", "PUBLISH"]
        asked.clear()
        leases.renew()  # all connections were dropped
        await until(lambda: len(asked) == 3, "the renewal")
        assert asked == ["TIME", "ZADD", "PUBLISH"]
        await leases.aclose()
        assert await daemon.leases() == {}


async def test_lost_leases_are_restored_by_a_renewal(url: str, daemon: Publisher) -> None:
    """Those without a follower are restored, too, and the daemon is woken up as for new ones."""
    leases = Leases(Calls(daemon.redis), KEYS, "me", 600.0, renew_every_s=0.05)
    leases.hold(["SPY", "QQQ"])
    await leases.confirm(["SPY", "QQQ"])
    hearing = await wakes_of(daemon)
    for _ in range(2):
        await daemon.redis.flushall()

        async def restored() -> bool:
            return set(await daemon.leases()) == {"SPY@me", "QQQ@me"}

        await until(restored, "the leases")
    assert await hearing == [b"me", b"me"]
    await leases.aclose()


async def test_leases_in_doubt_are_restored_before_their_renewal(
    url: str, daemon: Publisher
) -> None:
    """All of them where one symbol has ended, once for all ends that come together."""
    asked: list[str] = []

    class Heard(Redis):
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            asked.append(args[0])
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async with Heard.from_url(url) as redis:
        leases = Leases(Calls(redis), KEYS, "me", 600.0, renew_every_s=600.0)
        leases.hold(["SPY", "QQQ"])
        await leases.confirm(["SPY", "QQQ"])
        asked.clear()
        leases.restore("IWM")  # not held
        await daemon.redis.flushall()
        for symbol in ("SPY", "QQQ") * 10:
            leases.restore(symbol)
            await asyncio.sleep(0)

        async def restored() -> bool:
            return set(await daemon.leases()) == {"SPY@me", "QQQ@me"}

        await until(restored, "the leases")
        leases.restore("SPY")  # they are there: nothing to wake the daemon up for
        await until(lambda: asked.count("ZADD") == 2, "another renewal")
        await leases.aclose()
    assert asked == ["TIME", "ZADD", "PUBLISH", "TIME", "ZADD", "ZREM", "PUBLISH"]


async def test_renewal_fails(url: str, daemon: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    """Failed renewals are logged once and tried again, and their recovery is logged once."""
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
            await until(lambda: "not written" in caplog.text, "the failure to be logged")
            refused = await failures()

            async def tried_on() -> bool:
                return await failures() >= refused + 3

            await until(tried_on, "three more tries")
        finally:
            await daemon.redis.config_set("min-replicas-to-write", 0)
        await until(lambda: "written again" in caplog.text, "the recovery to be logged")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_held_again_while_released(url: str, daemon: Publisher) -> None:
    """A symbol that is held again while its release waits for a renewal keeps its lease."""
    renewing, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Redis):
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            if args[0] == "ZADD":
                renewing.set()
                await go_on.wait()
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async with Slow.from_url(url) as redis:
        leases = Leases(Calls(redis), KEYS, "me", 30.0)
        leases.hold(["SPY"])
        await renewing.wait()
        leases.release(["SPY"])
        leases.hold(["SPY"])
        go_on.set()
        await leases.confirm(["SPY"])
        assert set(await daemon.leases()) == {"SPY@me"}
        leases.release(["SPY"])
        await leases.settle()
        assert await daemon.leases() == {}
        await leases.aclose()


async def test_redis_away_at_the_end(own_server: Server) -> None:
    """Without Redis there is nothing to remove: the iteration ends without an error."""
    async with Publisher(own_server.url) as daemon:
        await daemon.publish("SPY", 1)
    async with asyncio.timeout(GUARD_S):
        async with SpotClient(own_server.url) as spot:
            updates = spot.updates("SPY")
            await anext(updates)
            taking = asyncio.ensure_future(anext(updates))
            own_server.kill()
        with pytest.raises(StopAsyncIteration):
            await taking


@pytest.mark.parametrize("wrong", [{"lease_ttl_s": 0}, {"heartbeat_s": -1}])
def test_wrong_times(wrong: dict[str, float]) -> None:
    """Times that could never work are refused."""
    with pytest.raises(ValueError, match="greater than 0"):
        SpotClient(**wrong)  # type: ignore[arg-type]
