"""Follower: symbols that come and go on one connection, through every fault of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from redis.exceptions import RedisError

from spotd.client import Follower, SpotClient
from spotd.client.calls import Calls
from spotd.client.leases import Leases
from spotd.client.subscription import Subscription
from spotd.client.telling import Counts
from spotd.errors import RedisUnavailableError
from spotd.models import SpotPriceUpdate
from tests.client.told import Told
from tests.kit.ports import free_port
from tests.kit.publisher import KEYS, Publisher, state_of, status_of, update_of
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until

# A server that stands still for a second is not taken for dead. What is stored is read as often.
HEARTBEAT_S = 1.5


@pytest.fixture
def told() -> Told:
    """A listener."""
    return Told()


@pytest.fixture
async def spot(url: str) -> AsyncIterator[SpotClient]:
    """A client that reads what is stored, and finds a dead connection, sooner than by default."""
    async with SpotClient(url, owner="me", heartbeat_s=HEARTBEAT_S) as client:
        yield client


@pytest.fixture
async def follower(spot: SpotClient, told: Told) -> AsyncIterator[Follower]:
    """A follower that is joined, with SPY."""
    async with spot.follow(told) as running:
        running.add("SPY")
        await told.until("connection", True)
        yield running


async def subscriptions(daemon: Publisher) -> int:
    """Return how many connections are subscribed to anything."""
    return len(await daemon.redis.client_list(_type="pubsub"))


class TestTelling:
    async def test_stored_then_newer(self, spot: SpotClient, told: Told, daemon: Publisher) -> None:
        """The connection, then what is stored, then what is newer, each with its bytes."""
        await daemon.write_status(status_of())
        await daemon.announce("SPY", "live")
        await daemon.publish("SPY", 10)
        async with spot.follow(told) as follower:
            follower.add("spy ")
            calls = await told.until("SPY", "live")
            assert calls[0] == ("connection", True)
            assert sorted(calls[1:], key=str) == [
                ("SPY", "live"),
                ("SPY", 10),
                ("daemon", "streaming"),
            ]
            assert follower.connected
            assert follower.status == status_of()
            await daemon.publish("SPY", 9, 10, 11)
            await daemon.announce("SPY", "live")
            await daemon.announce("SPY", "stale")
            assert await told.until("SPY", "stale") == [("SPY", 11), ("SPY", "stale")]

    async def test_come_and_go(self, follower: Follower, told: Told, daemon: Publisher) -> None:
        """A symbol joins and leaves the connection that is there; others are not disturbed."""
        [before] = await daemon.redis.client_list(_type="pubsub")
        await daemon.publish("QQQ", 1)
        follower.add("QQQ", "SPY", "QQQ")
        assert await told.until("QQQ", 1) == [("QQQ", 1)]
        assert follower.symbols == {"SPY", "QQQ"}
        follower.remove("qqq", "IWM")
        follower.remove("QQQ")

        async def left() -> bool:
            return not await daemon.subscribers(KEYS.channel("QQQ"))

        await until(left, "QQQ to leave")
        await daemon.publish("QQQ", 2)
        await daemon.announce("QQQ", "stale")
        await daemon.publish("SPY", 1)
        assert await told.until("SPY", 1) == [("SPY", 1)]
        follower.add("QQQ")
        await told.until("QQQ", "stale")
        [after] = await daemon.redis.client_list(_type="pubsub")
        assert after["id"] == before["id"]

    async def test_no_gap(self, follower: Follower, told: Told, daemon: Publisher) -> None:
        """Whenever a symbol is added, the price published at that moment is told."""
        for seq in range(1, 101):
            follower.add("QQQ")
            for _ in range(seq % 12):
                await asyncio.sleep(0)
            await daemon.publish("QQQ", seq)
            await told.until("QQQ", seq)
            follower.remove("QQQ")

    async def test_several_followers(self, spot: SpotClient, daemon: Publisher) -> None:
        """Each follower is told what is stored, also of a symbol that another one follows."""
        await daemon.publish("SPY", 1)
        async with AsyncExitStack() as stack:
            for _ in range(3):
                told = Told()
                follower = await stack.enter_async_context(spot.follow(told, demand=False))
                follower.add("SPY")
                await told.until("SPY", 1)
            assert await subscriptions(daemon) == 1

    async def test_ends(self, follower: Follower, told: Told, daemon: Publisher) -> None:
        """A state that is removed, and a status that lapses, are told, each once."""
        await daemon.write_status(status_of())
        await daemon.announce("SPY", "live")
        await told.until("daemon", "streaming")
        await daemon.redis.delete(KEYS.states)
        await told.until("SPY", "ended")
        await daemon.redis.pexpire(KEYS.status, 1)
        calls = await told.until("daemon", None)
        assert ("SPY", "ended") not in calls
        assert follower.status is None
        await daemon.announce("SPY", "live")
        assert await told.until("SPY", "live") == [("SPY", "live")]

    async def test_status_that_lapses_for_a_poor_user(
        self, url: str, told: Told, daemon: Publisher
    ) -> None:
        """A user who may not ask for PTTL is told of the end of a daemon all the same."""
        await daemon.write_status(status_of())
        await daemon.redis.execute_command(
            "ACL", "SETUSER", "poor", "on", ">pass", "~*", "&*", "+@all", "-pttl"
        )
        try:
            poor = url.replace("://", "://poor:pass@")
            async with SpotClient(poor, heartbeat_s=HEARTBEAT_S) as spot, spot.follow(told):
                await told.until("daemon", "streaming")
                for state in ("idle", "streaming"):
                    await daemon.write_status(status_of(state))
                    await told.until("daemon", state)
                await daemon.redis.delete(KEYS.status)
                assert ("connection", False) not in await told.until("daemon", None)
        finally:
            await daemon.redis.execute_command("ACL", "DELUSER", "poor")

    async def test_refreshed_status(
        self, follower: Follower, told: Told, daemon: Publisher
    ) -> None:
        """A status that is refreshed without an announcement is told too."""
        for state in ("streaming", "idle"):
            await daemon.write_status(status_of(state))
            await told.until("daemon", state)
        assert follower.status == status_of("idle")

    async def test_burst(self, follower: Follower, told: Told, daemon: Publisher) -> None:
        """A burst of messages does not keep other tasks from running."""
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while ("SPY", 8_000) not in told.calls[-1:]:
                turns += 1
                await asyncio.sleep(0)

        assert follower.connected
        turning = asyncio.create_task(turn())
        for start in range(1, 8_001, 1_000):
            await daemon.publish("SPY", *range(start, start + 1_000))
        async with asyncio.timeout(GUARD_S):
            await turning
        assert turns > 8_000 / 64
        assert told.calls == [("SPY", seq) for seq in range(1, 8_001)]

    async def test_malformed(self, follower: Follower, spot: SpotClient, told: Told) -> None:
        """Malformed symbols are named, and the others of the same call not followed."""
        for call in (follower.add, follower.remove):
            with pytest.raises(ValueError, match=r"not a symbol: 'b!'"):
                call("QQQ", "b!")
        with pytest.raises(ValueError, match=r"not a symbol: 'b!'"):
            await follower.confirm("b!")
        assert follower.symbols == {"SPY"}
        for ttl_s in (0, -1):
            with pytest.raises(ValueError, match="lease_ttl_s"):
                spot.follow(told, lease_ttl_s=ttl_s)

    async def test_junk(self, follower: Follower, spot: SpotClient, daemon: Publisher) -> None:
        """What cannot be read is counted and not told; the same stored junk is counted once."""
        await daemon.redis.publish(KEYS.events, b"{}")
        await daemon.redis.publish(KEYS.channel("SPY"), b"{}")
        await until(lambda: spot.malformed == 2, "the messages")
        await daemon.redis.hset(KEYS.states, "SPY", b"{}")
        await daemon.redis.set(KEYS.status, b"{}")
        await until(lambda: spot.malformed == 4, "the stored values")
        assert follower.status is None


class TestOneConnection:
    async def test_iterations_and_followers(
        self, spot: SpotClient, follower: Follower, daemon: Publisher
    ) -> None:
        """150 iterations, events and a follower share one subscription connection."""
        symbols = [f"A{a}{b}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJKLMNO"]
        for symbol in symbols:
            await daemon.publish(symbol, 1)
        await daemon.announce("SPY", "live")
        async with AsyncExitStack() as stack:
            iterations: list[Any] = [spot.updates(symbol) for symbol in symbols]
            for iteration in (*iterations, spot.events()):
                await stack.enter_async_context(aclosing(iteration))
                await anext(iteration)
            assert follower.connected
            assert await subscriptions(daemon) == 1
            assert len(await daemon.leases()) == 151

    async def test_closed_with_the_last(self, spot: SpotClient, daemon: Publisher) -> None:
        """The connection is closed with its last reader, and opened again for the next."""
        await daemon.publish("SPY", 1)
        for _ in range(2):
            async with aclosing(spot.updates("SPY")) as updates:
                await anext(updates)
                assert await subscriptions(daemon) == 1

            async def none_left() -> bool:
                return await subscriptions(daemon) == 0

            await until(none_left, "the connection to be closed")
        assert spot.reconnects == 0


class TestDemand:
    async def test_leases(self, spot: SpotClient, told: Told, daemon: Publisher) -> None:
        """Leases in the follower's own name, while it follows; ``confirm`` waits for them."""
        async with spot.follow(told, owner="relay", lease_ttl_s=60) as follower:
            follower.add("SPY", "QQQ")
            await follower.confirm("SPY", "QQQ")
            leases = await daemon.leases()
            own = "relay:" + spot.owner.partition(":")[2]
            assert set(leases) == {f"SPY@{own}", f"QQQ@{own}"}
            await follower.confirm("SPY")
            await daemon.redis.zadd(KEYS.leases, {"SPY@other": leases[f"SPY@{own}"]})
            follower.remove("SPY")

            async def removed() -> bool:
                return set(await daemon.leases()) == {f"QQQ@{own}", "SPY@other"}

            await until(removed, "the lease to be removed")
            with pytest.raises(ValueError, match="not followed: SPY"):
                await follower.confirm("SPY")
        assert set(await daemon.leases()) == {"SPY@other"}

    async def test_ttl(self, spot: SpotClient, told: Told, daemon: Publisher) -> None:
        """The leases of one owner last as long as the longest time that was asked for."""
        async with spot.follow(told, lease_ttl_s=1_000) as long, spot.follow(told) as short:
            long.add("SPY")
            short.add("QQQ")
            await long.confirm("SPY")
            await short.confirm("QQQ")
            now = (await daemon.redis.time())[0]
            assert all(lapses > now + 500 for lapses in (await daemon.leases()).values())

    @pytest.mark.parametrize("announced", [True, False])
    async def test_lost_leases(self, url: str, daemon: Publisher, *, announced: bool) -> None:
        """Where a state ends that is demanded, the leases were lost: they are written at once."""
        calls, told = Calls(daemon.redis), Told()
        leases = Leases(calls, KEYS, "me", 600.0, renew_every_s=600.0)
        subscription = Subscription(calls, KEYS, Counts(), HEARTBEAT_S, leases.rewrite)
        async with Follower(subscription, told, leases) as follower:
            follower.add("SPY", "QQQ")
            await daemon.announce("SPY", "live")
            await told.until("SPY", "live")
            await daemon.redis.flushall()
            if announced:
                await daemon.redis.publish(KEYS.events, state_of("SPY", "ended").to_json())
            await told.until("SPY", "ended")

            async def restored() -> bool:
                return set(await daemon.leases()) == {"SPY@me", "QQQ@me"}

            await until(restored, "the leases")
        await leases.aclose()

    async def test_without_demand(self, spot: SpotClient, told: Told, daemon: Publisher) -> None:
        """A follower that only listens demands nothing, and has nothing to confirm."""
        await daemon.publish("SPY", 1)
        async with spot.follow(told, demand=False) as follower:
            follower.add("SPY")
            await follower.confirm("SPY")
            await told.until("SPY", 1)
            assert await daemon.leases() == {}

    async def test_want(self, spot: SpotClient, daemon: Publisher) -> None:
        """A lease is held without an iteration, and shared with those of the same client."""
        async with spot.want("spy", "QQQ"):
            assert set(await daemon.leases()) == {f"SPY@{spot.owner}", f"QQQ@{spot.owner}"}
            async with spot.want("SPY"):
                pass
            assert set(await daemon.leases()) == {f"SPY@{spot.owner}", f"QQQ@{spot.owner}"}
            assert await subscriptions(daemon) == 0
        assert await daemon.leases() == {}
        with pytest.raises(ValueError, match=r"'b!'"):
            spot.want("b!")
        with pytest.raises(ValueError, match="at least one"):
            spot.want()

    async def test_redis_away(self, own_server: Server, told: Told) -> None:
        """Where demand cannot be written, ``confirm`` and ``want`` raise; it is written later."""
        own_server.kill()
        async with (
            SpotClient(own_server.url, owner="me", lease_ttl_s=30) as spot,
            spot.follow(told) as follower,
        ):
            follower.add("SPY")
            with pytest.raises(RedisUnavailableError):
                await follower.confirm("SPY")
            with pytest.raises(RedisUnavailableError):
                await spot.want("SPY").__aenter__()
            own_server.start()
            async with Publisher(own_server.url) as daemon:
                await until(daemon.leases, "the lease")


class TestFaults:
    async def test_killed_connection(
        self, follower: Follower, told: Told, daemon: Publisher
    ) -> None:
        """What was stored while the connection was gone is told after it."""
        await daemon.publish("SPY", 1)
        await told.until("SPY", 1)
        async with daemon.redis.pipeline(transaction=True) as batch:
            batch.client_kill_filter(_type="pubsub")
            batch.hset(KEYS.last, "SPY", update_of("SPY", 2).to_json())
            await batch.execute()
        calls = await told.until("SPY", 2)
        assert calls == [("connection", False), ("connection", True), ("SPY", 2)]
        assert follower.connected

    async def test_killed_calls(self, follower: Follower, told: Told, daemon: Publisher) -> None:
        """A pooled connection that died is replaced, without a word to the listener."""
        await daemon.publish("SPY", 1)
        await told.until("SPY", 1)
        await daemon.redis.client_kill_filter(_type="normal", skipme=True)
        follower.add("QQQ")
        await daemon.publish("QQQ", 1)
        assert await told.until("QQQ", 1) == [("QQQ", 1)]

    async def test_restart(self, own_server: Server, told: Told) -> None:
        """A server that comes back empty: ends are told, leases written again, prices go on."""
        async with (
            SpotClient(own_server.url, owner="me", heartbeat_s=HEARTBEAT_S) as spot,
            spot.follow(told) as follower,
        ):
            async with Publisher(own_server.url) as daemon:
                await daemon.write_status(status_of())
                await daemon.announce("SPY", "live")
                follower.add("SPY")
                await told.until("SPY", "live")
                await until(lambda: follower.status is not None, "the status")
                told.calls.clear()
            own_server.kill()
            assert await told.until("connection", False) == [("connection", False)]
            assert not follower.connected
            assert follower.status == status_of()
            own_server.start()
            assert await told.until("SPY", "ended") == [
                ("connection", True),
                ("daemon", None),
                ("SPY", "ended"),
            ]
            async with Publisher(own_server.url) as daemon:
                assert set(await daemon.leases()) == {f"SPY@{spot.owner}"}
                await daemon.publish("SPY", 5)
                await told.until("SPY", 5)
            assert spot.reconnects == 1

    async def test_frozen(self, own_server: Server, told: Told) -> None:
        """A server that hangs is left, and joined again when it answers."""
        async with (
            Publisher(own_server.url) as daemon,
            SpotClient(own_server.url, owner="me", heartbeat_s=HEARTBEAT_S) as spot,
            spot.follow(told) as follower,
        ):
            follower.add("SPY")
            await told.until("connection", True)
            own_server.freeze()
            await until(lambda: not follower.connected, "the loss")
            own_server.thaw()
            assert await told.until("connection", True) == [
                ("connection", False),
                ("connection", True),
            ]
            await daemon.publish("SPY", 1)
            await told.until("SPY", 1)
            assert set(await daemon.leases()) == {f"SPY@{spot.owner}"}

    async def test_changes_meanwhile(self, own_server: Server, told: Told) -> None:
        """Symbols that come and go while Redis is away count from its return on."""
        async with (
            SpotClient(own_server.url, owner="me", heartbeat_s=HEARTBEAT_S) as spot,
            spot.follow(told) as follower,
        ):
            follower.add("SPY", "QQQ")
            await told.until("connection", True)
            own_server.kill()
            await told.until("connection", False)
            follower.remove("QQQ")
            follower.add("IWM")
            own_server.start()
            await told.until("connection", True)
            async with Publisher(own_server.url) as daemon:
                await daemon.publish("QQQ", 1)
                await daemon.publish("IWM", 1)
                assert await told.until("IWM", 1) == [("IWM", 1)]
                assert set(await daemon.leases()) == {f"SPY@{spot.owner}", f"IWM@{spot.owner}"}

    async def test_away_from_the_start(self, own_server: Server, told: Told) -> None:
        """Without Redis a follower begins all the same, says so, and joins when Redis is there."""
        own_server.kill()
        async with (
            SpotClient(own_server.url, owner="me", heartbeat_s=HEARTBEAT_S) as spot,
            spot.follow(told) as follower,
        ):
            follower.add("SPY")
            assert not follower.connected
            assert await told.until("connection", False) == [("connection", False)]
            own_server.start()
            async with Publisher(own_server.url) as daemon:
                await daemon.publish("SPY", 1)
                # A message may come in front of the answer that completes the join.
                await told.until("SPY", 1)
                await until(lambda: follower.connected, "the join")
            assert spot.reconnects == 0

    async def test_iteration_beside_it(self, own_server: Server, told: Told) -> None:
        """Where Redis is away, a new iteration raises, and the follower goes on."""
        async with (
            SpotClient(own_server.url, heartbeat_s=HEARTBEAT_S) as spot,
            spot.follow(told, demand=False) as follower,
        ):
            follower.add("SPY")
            await told.until("connection", True)
            own_server.kill()
            await told.until("connection", False)
            with pytest.raises(RedisUnavailableError):
                await anext(spot.updates("SPY", demand=False))
            own_server.start()
            await told.until("connection", True)

    async def test_close_while_frozen(self, own_server: Server, told: Told) -> None:
        """A client ends although Redis hangs, with many iterations as with one."""
        url = f"{own_server.url}?socket_timeout=2"
        async with Publisher(own_server.url) as daemon:
            await daemon.publish("SPY", 1)
        async with asyncio.timeout(GUARD_S):
            async with SpotClient(url) as spot, spot.follow(told) as follower:
                follower.add("SPY")
                iterations = [spot.updates("SPY") for _ in range(50)]
                for iteration in iterations:
                    await anext(iteration)
                own_server.freeze()
        own_server.thaw()


class TestClosing:
    async def test_calls_after_close(self, spot: SpotClient, told: Told) -> None:
        """After its end a follower's calls raise, and its listener is told nothing."""
        follower = spot.follow(told)
        with pytest.raises(RuntimeError, match="not open"):
            follower.add("SPY")
        async with follower:
            await told.until("connection", True)
        await follower.aclose()
        assert not follower.connected
        for call in (follower.add, follower.remove):
            with pytest.raises(RuntimeError, match="not open"):
                call("SPY")
        with pytest.raises(RuntimeError, match="not open"):
            await follower.confirm()
        with pytest.raises(RuntimeError, match="opened before"):
            await follower.__aenter__()
        assert told.calls == []

    async def test_closed_client(self, url: str, told: Told, daemon: Publisher) -> None:
        """A closed client ends its followers, iterations and leases, and no task is left."""
        spot = SpotClient(url)
        async with spot.follow(told) as follower, spot.want("IWM"):
            follower.add("SPY")
            await follower.confirm("SPY")
            begun = spot.updates("SPY")
            await spot.aclose()
            assert await daemon.leases() == {}
            with pytest.raises(RuntimeError, match="not open"):
                follower.add("QQQ")
            with pytest.raises(RuntimeError, match="the client is closed"):
                await anext(begun)
        assert len(asyncio.all_tasks()) == 1

    @pytest.mark.parametrize("defect", [ZeroDivisionError, BrokenPipeError, RedisError])
    @pytest.mark.parametrize("stored", [True, False])
    async def test_defect_of_the_listener(
        self,
        spot: SpotClient,
        daemon: Publisher,
        caplog: pytest.LogCaptureFixture,
        *,
        defect: type[Exception],
        stored: bool,
    ) -> None:
        """A listener that raises ends its follower, whose calls and whose end raise it.

        What it raises is no failure of Redis, whatever it is.
        """

        class Broken(Told):
            def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
                raise defect

        if stored:
            await daemon.publish("SPY", 1)
        listener = Broken()
        follower = await spot.follow(listener).__aenter__()
        follower.add("SPY")
        if not stored:
            await until(lambda: daemon.subscribers(KEYS.channel("SPY")), "a subscriber")
            await daemon.publish("SPY", 1)
        await listener.until("connection", False)
        assert "a follower was ended by a defect" in caplog.text
        assert not follower.connected
        with pytest.raises(RuntimeError, match="ended by a defect"):
            follower.add("QQQ")
        with pytest.raises(defect):
            await follower.__aexit__(None, None, None)
        assert await daemon.leases() == {}
        async with aclosing(spot.updates("SPY")) as updates:
            assert (await anext(updates)).seq == 1


async def test_no_server() -> None:
    """A password does not get into what a listener is told."""
    words = []

    class Words(Told):
        def connection(self, connected: bool, why: str) -> None:
            super().connection(connected, why)
            words.append(why)

    listener = Words()
    url = f"redis://:hunter2@127.0.0.1:{free_port()}"
    async with SpotClient(url) as spot, spot.follow(listener):
        await listener.until("connection", False)
    assert words
    assert "hunter2" not in words[0]
