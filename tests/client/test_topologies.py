"""The client behind Sentinels and in a cluster: all calls, prices, events, and a fail-over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from redis.asyncio.cluster import RedisCluster

from spotd.client import SpotClient
from spotd.client.iterations import Event
from spotd.errors import RedisUnavailableError, SettingsError
from spotd.keys import Keys
from spotd.models import SymbolState
from spotd.redis.clients import connect
from tests.client.told import Told
from tests.kit.ports import free_port
from tests.kit.publisher import Publisher, state_of, status_of, update_of
from tests.kit.recorder import Recorder
from tests.kit.servers import (
    ClusterServers,
    SentinelServers,
    Server,
    make_certificates,
    redis_server,
    was_promoted,
)
from tests.kit.waiting import GUARD_S, until

IN_ONE_SLOT = Keys("{spotd}:", "spot:")


async def publish(daemon: Publisher, symbol: str, *seqs: int) -> None:
    """Store and publish updates, one call after the other: a cluster's pipeline cannot publish."""
    for seq in seqs:
        json = update_of(symbol, seq).to_json()
        await daemon.redis.hset(daemon.keys.last, symbol, json)
        await daemon.redis.execute_command("PUBLISH", daemon.keys.channel(symbol), json)


async def check_calls(spot: SpotClient, daemon: Publisher, symbol: str = "SPY") -> None:
    """Assert that every call that is not an iteration works."""
    keys = daemon.keys
    assert await spot.status() is None
    assert await spot.add(symbol, "QQQ") == [symbol, "QQQ"]
    assert await spot.remove("QQQ") == ["QQQ"]
    assert await spot.desired() == {symbol}
    await daemon.redis.hset(keys.states, symbol, state_of(symbol).to_json())
    await daemon.write_status(status_of())
    assert await spot.states() == {symbol: state_of(symbol)}
    assert await spot.status() == status_of()
    await publish(daemon, symbol, 1)
    assert await spot.latest(symbol, "QQQ") == {symbol: update_of(symbol, 1), "QQQ": None}
    assert await spot.latest() == {symbol: update_of(symbol, 1)}


async def _next(events: AsyncIterator[Event], symbol: str) -> Event:
    """Return the next event that is not about another test's symbol: such may arrive late."""
    while isinstance(event := await anext(events), SymbolState) and event.symbol != symbol:
        pass
    return event


async def check_iterations(spot: SpotClient, daemon: Publisher, symbol: str = "SPY") -> None:
    """Assert that prices, events and leases work, from what is stored to what is published."""
    await daemon.write_status(status_of())
    await daemon.redis.hset(daemon.keys.states, symbol, state_of(symbol).to_json())
    await publish(daemon, symbol, 1)
    async with aclosing(spot.updates(symbol)) as updates, aclosing(spot.events()) as events:
        assert (await anext(updates)).seq == 1
        assert set(await daemon.leases()) == {f"{symbol}@{spot.owner}"}
        assert [await _next(events, symbol) for _ in range(2)] == [status_of(), state_of(symbol)]
        await publish(daemon, symbol, 2)
        assert (await anext(updates)).seq == 2
        stale = state_of(symbol, "stale").to_json()
        await daemon.redis.execute_command("PUBLISH", daemon.keys.events, stale)
        assert await _next(events, symbol) == state_of(symbol, "stale")
    assert await daemon.leases() == {}


class TestSentinel:
    @pytest.fixture
    def sentinels(self, tmp_path: Path) -> Iterator[SentinelServers]:
        """Yield a master, a replica and a Sentinel."""
        with SentinelServers(tmp_path) as running:
            yield running

    async def test_calls_and_iterations(self, sentinels: SentinelServers) -> None:
        """Calls and iterations go to the master that the Sentinel names."""
        async with Publisher(sentinels.master.url) as daemon, SpotClient(sentinels.url) as spot:
            assert "prices/0" in repr(spot)
            await check_calls(spot, daemon)
            await check_iterations(spot, daemon)

    async def test_fail_over(self, sentinels: SentinelServers) -> None:
        """After a fail-over the iteration goes on at the new master, with leases and prices."""
        async with (
            Publisher(sentinels.replica.url) as successor,
            SpotClient(sentinels.url) as spot,
            aclosing(spot.updates("SPY")) as updates,
        ):
            async with Publisher(sentinels.master.url) as daemon:
                await publish(daemon, "SPY", 1)
                assert (await anext(updates)).seq == 1
            taking = asyncio.ensure_future(anext(updates))
            sentinels.master.kill()
            await until(lambda: spot.reconnects, "the client to join again")
            assert f"SPY@{spot.owner}" in await successor.leases()
            await publish(successor, "SPY", 2)
            assert (await taking).seq == 2
            assert (await spot.latest("SPY"))["SPY"] == update_of("SPY", 2)

    async def test_follower_in_a_fail_over(self, sentinels: SentinelServers) -> None:
        """A follower is told of the loss and of the return, and goes on at the new master."""
        told = Told()
        async with (
            Publisher(sentinels.replica.url) as successor,
            SpotClient(sentinels.url, owner="me") as spot,
            spot.follow(told) as follower,
        ):
            follower.add("SPY")
            await told.until("connection", True)
            sentinels.master.kill()
            assert await told.until("connection", True) == [
                ("connection", False),
                ("connection", True),
            ]
            assert set(await successor.leases()) == {f"SPY@{spot.owner}"}
            await publish(successor, "SPY", 1)
            await told.until("SPY", 1)

    async def test_frozen_sentinel(self, sentinels: SentinelServers, tmp_path: Path) -> None:
        """A Sentinel that hangs is passed over, and the next one names the master."""
        with Server(tmp_path / "frozen") as frozen:
            frozen.freeze()
            url = f"redis+sentinel://127.0.0.1:{frozen.port},127.0.0.1:{sentinels.sentinel.port}"
            async with SpotClient(f"{url}/prices") as spot:
                assert await spot.status() is None
            frozen.thaw()

    async def test_no_sentinel(self) -> None:
        """Without a Sentinel a call fails with an error of ours, without the passwords."""
        address = f"u:hunter2@127.0.0.1:{free_port()}/prices?sentinel_password=hunter2"
        async with SpotClient(f"redis+sentinel://{address}") as spot:
            with pytest.raises(RedisUnavailableError, match="prices/0") as raised:
                await spot.status()
            with pytest.raises(RedisUnavailableError):
                await anext(spot.updates("SPY"))
        assert "hunter2" not in str(raised.value) + repr(spot)


@pytest.fixture
async def daemon(cluster: ClusterServers) -> AsyncIterator[Publisher]:
    """Yield the publishing side."""
    async with Publisher(connect(cluster.url), IN_ONE_SLOT) as publisher:
        yield publisher


def cut_off(cluster: ClusterServers, symbol: str) -> None:
    """Close the connections of a symbol's subscribers, at the one node where there are some.

    Where they subscribe meanwhile is left alone.
    """
    for node in cluster.nodes:
        with node.client() as client:
            if client.pubsub_numsub(IN_ONE_SLOT.channel(symbol))[0][1]:
                client.client_kill_filter(_type="pubsub")
                return
    raise AssertionError(f"nobody subscribes {symbol}")


class TestCluster:
    # Each test has a symbol of its own: what the test before published may arrive late, over the
    # cluster's bus.

    async def test_calls_and_iterations(self, cluster: ClusterServers, daemon: Publisher) -> None:
        """Keys are read at their node, and channels at any node."""
        async with SpotClient(cluster.url, key_prefix="{spotd}:") as spot:
            await check_calls(spot, daemon)
            await check_iterations(spot, daemon)

    async def test_follower(self, cluster: ClusterServers, daemon: Publisher) -> None:
        """A follower works from any node, and at another one after the loss of its connection."""
        told = Told()
        async with (
            SpotClient(cluster.url, key_prefix="{spotd}:", owner="me") as spot,
            spot.follow(told) as follower,
        ):
            follower.add("DIA")
            await follower.confirm("DIA")
            assert set(await daemon.leases()) == {f"DIA@{spot.owner}"}
            await publish(daemon, "DIA", 1)
            await told.until("DIA", 1)
            await until(lambda: follower.connected, "the join")
            told.calls.clear()
            await daemon.redis.hset(IN_ONE_SLOT.last, "DIA", update_of("DIA", 2).to_json())
            cut_off(cluster, "DIA")
            assert await told.until("DIA", 2) == [
                ("connection", False),
                ("connection", True),
                ("DIA", 2),
            ]

    async def test_own_client(self, cluster: ClusterServers, daemon: Publisher) -> None:
        """A cluster's client of the caller's own works too, and stays open."""
        node = cluster.nodes[1]
        async with RedisCluster(host="127.0.0.1", port=node.port) as redis:
            async with SpotClient(redis=redis, key_prefix="{spotd}:") as spot:
                await check_calls(spot, daemon, "IBM")
                await check_iterations(spot, daemon, "IBM")
            assert await redis.exists("{spotd}:last") == 1

    async def test_wakes(self, cluster: ClusterServers, daemon: Publisher) -> None:
        """A change of the demand wakes the daemon up, whichever node it listens to."""
        async with (
            Recorder(cluster.nodes[0].url, IN_ONE_SLOT.wake) as recorder,
            SpotClient(cluster.url, key_prefix="{spotd}:", owner="me") as spot,
        ):
            await spot.add("SPY")
            # A client of the test before may be heard too.
            own = spot.owner.encode()
            await until(lambda: own in [heard.raw for heard in recorder.heard], "the wake-up")

    async def test_lost_connections(self, cluster: ClusterServers, daemon: Publisher) -> None:
        """A subscription that is lost joins again, and fetches what it missed."""
        async with (
            SpotClient(cluster.url, key_prefix="{spotd}:") as spot,
            aclosing(spot.updates("IWM")) as updates,
        ):
            await publish(daemon, "IWM", 1)
            assert (await anext(updates)).seq == 1
            await daemon.redis.hset(IN_ONE_SLOT.last, "IWM", update_of("IWM", 2).to_json())
            cut_off(cluster, "IWM")
            assert (await anext(updates)).seq == 2
            assert spot.reconnects == 1

    async def test_promotion(self, tmp_path: Path) -> None:
        """When the node of the keys hangs and its replica is promoted, the client goes on there."""
        told = Told()
        with ClusterServers(tmp_path) as cluster:
            owner = cluster.owner(IN_ONE_SLOT.leases)
            replica = cluster.add_replica(owner)
            async with (
                SpotClient(cluster.url, key_prefix="{spotd}:", owner="me", heartbeat_s=0.5) as spot,
                spot.follow(told) as follower,
            ):
                follower.add("SPY")
                await follower.confirm("SPY")
                owner.freeze()
                with replica.client() as client:
                    await until(lambda: was_promoted(client), "promotion")
                    assert await spot.add("QQQ") == ["QQQ"]
                    follower.add("IWM")
                    own = f"IWM@{spot.owner}"
                    await until(lambda: client.zscore(IN_ONE_SLOT.leases, own), "the lease")
                    client.hset(IN_ONE_SLOT.last, "SPY", update_of("SPY", 7).to_json())

                    def hears() -> bool:
                        client.publish("spot:SPY", update_of("SPY", 7).to_json())
                        return ("SPY", 7) in told.calls

                    await until(hears, "a price")
                owner.thaw()

    async def test_prefix(self, cluster: ClusterServers) -> None:
        """A prefix that scatters the keys over the cluster is refused before anything is sent."""
        with pytest.raises(SettingsError, match=r"key_prefix.*\{spotd\}:"):
            SpotClient(cluster.url)
        async with RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as redis:
            with pytest.raises(SettingsError, match="key_prefix"):
                SpotClient(redis=redis)

    async def test_nobody_there(self) -> None:
        """Without a node a call fails with an error of ours, without the password."""
        url = f"redis+cluster://:hunter2@127.0.0.1:{free_port()}"
        async with SpotClient(url, key_prefix="{spotd}:") as spot:
            with pytest.raises(RedisUnavailableError, match=r"cluster of 127\.0\.0\.1") as raised:
                await spot.status()
            with pytest.raises(RedisUnavailableError):
                await anext(spot.updates("SPY"))
        assert "hunter2" not in str(raised.value) + repr(spot)


@pytest.mark.skipif(redis_server() is None, reason="redis-server is not installed")
async def test_cluster_with_tls(tmp_path: Path) -> None:
    """``rediss+cluster://`` uses TLS for calls and for the subscription."""
    certificates = make_certificates(tmp_path)
    options = ("--cluster-enabled", "yes", "--tls-cluster", "yes")
    with Server(tmp_path / "node", *options, binary=redis_server(), tls=certificates) as node:
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            await until(
                lambda: "ok" in str(client.execute_command("CLUSTER INFO")["cluster_state"]),
                "the cluster",
            )
        # Handshakes of TLS take as long as the machine is busy, so the limits only guard.
        limits = f"socket_connect_timeout={GUARD_S:g}&socket_timeout={GUARD_S:g}"
        place = f"127.0.0.1:{node.port}"
        address = f"rediss+cluster://{place}?ssl_ca_certs={certificates[0]}&{limits}"
        async with (
            Publisher(connect(address), IN_ONE_SLOT) as daemon,
            SpotClient(address, key_prefix="{spotd}:") as spot,
        ):
            await check_iterations(spot, daemon)
