"""Every form of SPOTD_REDIS_URL reaches a real server, and publishing goes on through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from spotd.errors import RedisUnavailableError, SettingsError
from spotd.keys import Keys
from spotd.redis.addresses import connect
from spotd.redis.port import RedisPort
from spotd.settings import Settings
from tests.daemon.rig import Ear, Rig, eventually
from tests.kit.servers import (
    ClusterServers,
    SentinelServers,
    Server,
    free_port,
    make_certificates,
    redis_server,
)

KEYS = Keys()
IN_ONE_SLOT = Keys("{spotd}:", "spot:")
needs_redis = pytest.mark.skipif(redis_server() is None, reason="redis-server is not installed")


async def publishes(port: RedisPort) -> bool:
    """Whether leading and publishing work."""
    answer = await port.lead("t", 60.0)
    await port.publish("t", b'{"symbol":"SPY"}\n', (answer.highest_seq or 0) + 1)
    return answer.granted


def test_the_settings_know_these_forms() -> None:
    """What the settings let through is what the adapter reads."""
    for url in (
        "redis://h:1/0",
        "rediss://h:1/0?ssl_ca_certs=ca.crt",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://u:p@h:1,[::1]:2/prices/3?sentinel_password=x",
        "rediss+sentinel://h/prices?ssl_check_hostname=false",
        "redis+cluster://h:1,h:2",
        "rediss+cluster://u:p@h",
    ):
        named: dict[str, Any] = {"redis_url": url}
        connect(Settings(**named).redis_url.get_secret_value())


# One server


async def test_plain(tmp_path: Path) -> None:
    """``redis://`` with the number of a database."""
    with Server(tmp_path) as server:
        port = RedisPort(f"redis://127.0.0.1:{server.port}/3", KEYS)
        assert await publishes(port)
        await port.close()
        with server.client(db=3) as client:
            assert client.hget(KEYS.last, "SPY") == '{"symbol":"SPY"}'


async def test_unix(tmp_path: Path) -> None:
    """``unix://`` with the number of a database."""
    with Server(tmp_path) as server:
        port = RedisPort(f"unix://{server.socket_path}?db=3", KEYS)
        assert await publishes(port)
        await port.close()
        with server.client(db=3) as client:
            assert client.hget(KEYS.last, "SPY") == '{"symbol":"SPY"}'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An authority, a certificate and its key."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@needs_redis
async def test_tls(tmp_path: Path, certificates: tuple[Path, Path, Path]) -> None:
    """``rediss://`` trusts the authority it is told of, and no unknown one."""
    with Server(tmp_path, binary=redis_server(), tls=certificates) as server:
        address = f"rediss://127.0.0.1:{server.port}/0"
        trusting = RedisPort(f"{address}?ssl_ca_certs={certificates[0]}", KEYS)
        assert await publishes(trusting)
        await trusting.close()
        doubting = RedisPort(address, KEYS)
        with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
            await doubting.leader()
        await doubting.close()


@needs_redis
async def test_tls_that_is_not_verified(
    tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> None:
    """Query parameters mean the same in every form, also words like ``false`` and ``none``."""
    with Server(tmp_path, binary=redis_server(), tls=certificates) as server:
        assert connect(
            f"rediss+cluster://127.0.0.1:{server.port}?ssl_check_hostname=false"
        ).connection_kwargs["ssl_check_hostname"] is False  # fmt: skip
        port = RedisPort(
            f"rediss://127.0.0.1:{server.port}/0?ssl_cert_reqs=none&ssl_check_hostname=false", KEYS
        )
        assert await publishes(port)
        await port.close()


# Sentinel


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelServers]:
    """A master, a replica and a Sentinel."""
    with SentinelServers(tmp_path) as running:
        yield running


async def test_sentinel_fails_over(sentinels: SentinelServers) -> None:
    """The master dies, the Sentinel makes the replica the master, and publishing goes on there."""
    async with Rig(
        sentinels.url, own_client=sentinels.replica.url, leader_ttl_s=2
    ) as daemon:  # fmt: skip
        await daemon.leads()
        with sentinels.master.client() as client:
            client.sadd(KEYS.symbols, "SPY")
            client.wait(1, 1_000)
        await eventually(lambda: daemon.wanted("SPY"), "the demand")
        daemon.quote("SPY", 10)

        async def at(bid: float) -> bool:
            return await daemon.bid("SPY") == bid

        await eventually(lambda: at(10), "the price on the replica")
        before = await daemon.last("SPY")
        sentinels.master.kill()
        daemon.quote("SPY", 11)
        await eventually(lambda: at(11), "the newest price on the new master", 15.0)
        after = await daemon.last("SPY")
        assert before is not None
        assert after is not None
        assert after["seq"] > before["seq"]
        with sentinels.replica.client() as client:
            assert client.info("replication")["role"] == "master"
            client.publish(KEYS.wake, "")
        daemon.quote("SPY", 12)
        await eventually(lambda: at(12), "the next price")


async def test_sentinels_that_are_away_are_unavailable() -> None:
    """No Sentinel is no crash."""
    port = RedisPort(f"redis+sentinel://127.0.0.1:{free_port()}/prices", KEYS)
    with pytest.raises(RedisUnavailableError):
        await port.leader()
    await port.close()


# Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """Three masters."""
    with ClusterServers(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def clustered(cluster: ClusterServers) -> AsyncIterator[RedisPort]:
    """What is tested."""
    port = RedisPort(cluster.url, IN_ONE_SLOT)
    yield port
    await port.release("t")
    await port.close()


async def test_a_price_reaches_every_node_of_a_cluster(
    cluster: ClusterServers, clustered: RedisPort
) -> None:
    """PUBLISH from the script is heard by a subscriber of any node."""
    ears = []
    for node in cluster.nodes:
        client = node.client()
        pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        pubsub.subscribe("spot:SPY")
        ears.append((client, pubsub))
    try:
        for _, pubsub in ears:
            await asyncio.to_thread(pubsub.get_message, timeout=5)  # subscribed
        assert await publishes(clustered)
        for _, pubsub in ears:
            message = await asyncio.to_thread(pubsub.get_message, timeout=5)
            assert message is not None
            assert message["data"] == '{"symbol":"SPY"}'
    finally:
        for client, pubsub in ears:
            pubsub.close()
            client.close()


async def test_everything_works_in_a_cluster(cluster: ClusterServers, clustered: RedisPort) -> None:
    """Demand, wakes, states, status, ping: each call finds its node."""
    keys = IN_ONE_SLOT
    assert (await clustered.lead("t", 60.0)).granted
    await clustered.write_states("t", {"SPY": b"{}"}, ["QQQ"])
    await clustered.write_status("t", b"{}", 5.0, announce=True)
    assert await publishes(clustered)
    assert await clustered.state_fields() == {"SPY"}
    assert await clustered.last_fields() == {"SPY"}
    await clustered.drop_last("t", ["SPY"])
    assert await clustered.last_fields() == set()
    assert await clustered.ping() == {"redis_mode": "cluster"}
    client = connect(cluster.url)
    await client.sadd(keys.symbols, "SPY")
    await client.zadd(keys.leases, {"QQQ@a": 100, "IWM@a": 300})
    assert [e async for some in clustered.demand_set() for e in some] == [b"SPY"]
    assert await clustered.live_leases(200.0) == [b"IWM@a"]
    await client.aclose()
    heard: list[None] = []

    async def listen() -> None:
        async for _ in clustered.wakes():
            heard.append(None)  # noqa: PERF401 - an endless one

    listening = asyncio.create_task(listen())
    await eventually(lambda: len(heard) == 1, "listening")
    with cluster.nodes[0].client() as node:
        node.publish(keys.wake, "")
    await eventually(lambda: len(heard) == 2, "the wake")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_daemon_works_in_a_cluster(cluster: ClusterServers) -> None:
    """From SADD to a price that a subscriber of any one node hears, and back to nothing."""
    client = connect(cluster.url)
    async with (
        Rig(cluster.url, own_client=cluster.nodes[0].url, key_prefix="{spotd}:") as daemon,
        Ear(cluster.nodes[2].url, "spot:*", "{spotd}:events") as ear,
    ):
        await daemon.leads()
        await client.sadd("{spotd}:symbols", "SPY")
        await client.publish("{spotd}:wake", "")
        assert await eventually(lambda: daemon.wanted("SPY"), "the demand") < 1.0
        daemon.quote("SPY", 421.35)
        await eventually(lambda: ear.raw("SPY"), "a price")
        assert await client.hget("{spotd}:last", "SPY") == ear.raw("SPY")[0]
        await eventually(
            lambda: [event["state"] for event in ear.events("symbol")][-1:] == ["live"], "live"
        )
        await client.srem("{spotd}:symbols", "SPY")

        async def gone() -> bool:
            left: int = await client.exists("{spotd}:last", "{spotd}:states")
            return left == 0

        await eventually(gone, "its fields to go")
    assert await client.exists("{spotd}:leader") == 0
    await client.aclose()


async def test_subscribers_of_every_node_are_found(
    cluster: ClusterServers, clustered: RedisPort
) -> None:
    """A cluster's nodes know only their own."""
    ears = []
    for number, node in enumerate(cluster.nodes):
        client = node.client()
        pubsub = client.pubsub()  # type: ignore[no-untyped-call]
        pubsub.subscribe(f"spot:S{'ABC'[number]}")
        await asyncio.to_thread(pubsub.get_message, timeout=5)
        ears.append((client, pubsub))
    found = await clustered.subscribed_channels()
    for client, pubsub in ears:
        pubsub.close()
        client.close()
    assert sorted(found) == [b"SA", b"SB", b"SC"]


async def test_a_prefix_that_spreads_over_slots_is_refused(cluster: ClusterServers) -> None:
    """Before anything is written, with a hint at what to set."""
    with pytest.raises(SettingsError, match=r"SPOTD_KEY_PREFIX.*\{spotd\}:"):
        RedisPort(cluster.url, KEYS)
    for node in cluster.nodes:
        with node.client() as client:
            assert client.keys("spotd:*") == []


async def test_a_cluster_that_is_away_is_unavailable() -> None:
    """No node is no crash, neither for calls nor for wakes."""
    port = RedisPort(f"redis+cluster://127.0.0.1:{free_port()}", IN_ONE_SLOT)
    with pytest.raises(RedisUnavailableError):
        await port.leader()
    with pytest.raises(RedisUnavailableError):
        await anext(aiter(port.wakes()))
    await port.close()
