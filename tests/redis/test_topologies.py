"""Every form of SPOTD_REDIS_URL reaches a real server, and publishing goes on through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.exceptions import ConnectionError as RedisConnectionError

from spotd.errors import RedisUnavailableError, SettingsError
from spotd.keys import Keys
from spotd.redis.calls import CALL_TIMEOUT_S
from spotd.redis.clients import connect
from spotd.redis.port import RedisPort
from spotd.simulator import Simulator
from tests.daemon.rig import KEY, SECRET, Rig
from tests.kit.ports import free_port
from tests.kit.recorder import Recorder
from tests.kit.redis_port import lead_and_publish, patient
from tests.kit.servers import (
    ClusterServers,
    SentinelServers,
    Server,
    make_certificates,
    redis_server,
)
from tests.kit.waiting import GUARD_S, until

KEYS = Keys()
IN_ONE_SLOT = Keys("{spotd}:", "spot:")
needs_redis = pytest.mark.skipif(redis_server() is None, reason="redis-server is not installed")


async def publishes(port: RedisPort) -> bool:
    """Return whether leading and publishing work."""
    return await lead_and_publish(port) != "another"


async def published(daemon: Rig, bid: float) -> int:
    """Have Alpaca send a quote, and wait until its price is stored. Return the price's ``seq``."""
    await daemon.quote("SPY", bid)

    async def stored() -> bool:
        with suppress(RedisConnectionError):  # a server that becomes the master closes connections
            return await daemon.values.has("SPY", bid)
        return False

    await until(stored, f"the bid {bid}")
    last = await daemon.values.last("SPY")
    assert last is not None
    return int(last["seq"])


# One server


async def test_plain(tmp_path: Path) -> None:
    """``redis://`` with the number of a database."""
    with Server(tmp_path) as server:
        port = patient(f"redis://127.0.0.1:{server.port}/3", KEYS)
        assert await publishes(port)
        await port.close()
        with server.client(db=3) as client:
            assert client.hget(KEYS.last, "SPY") == '{"symbol":"SPY"}'


async def test_unix(tmp_path: Path) -> None:
    """``unix://`` with the number of a database."""
    with Server(tmp_path) as server:
        port = patient(f"unix://{server.socket_path}?db=3", KEYS)
        assert await publishes(port)
        await port.close()
        with server.client(db=3) as client:
            assert client.hget(KEYS.last, "SPY") == '{"symbol":"SPY"}'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return an authority, a certificate and its key."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@needs_redis
async def test_tls(tmp_path: Path, certificates: tuple[Path, Path, Path]) -> None:
    """``rediss://`` trusts the authority that the URL names, and no unknown one."""
    with Server(tmp_path, binary=redis_server(), tls=certificates) as server:
        address = f"rediss://127.0.0.1:{server.port}/0"
        trusting = patient(f"{address}?ssl_ca_certs={certificates[0]}", KEYS)
        assert await publishes(trusting)
        await trusting.close()
        doubting = patient(address, KEYS)
        with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
            await doubting.leader()
        await doubting.close()


@needs_redis
async def test_tls_with_a_client_certificate(
    tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> None:
    """Where the server asks for a certificate, that of the URL lets us in; else it says so."""
    authority, certificate, key = certificates
    with Server(tmp_path, binary=redis_server(), tls=certificates) as server:
        with server.client() as admin:
            admin.config_set("tls-auth-clients", "yes")
        address = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={authority}"
        known = patient(f"{address}&ssl_certfile={certificate}&ssl_keyfile={key}", KEYS)
        assert await publishes(known)
        await known.close()
        unknown = patient(address, KEYS)

        async def told() -> bool:
            with pytest.raises(RedisUnavailableError) as raised:
                await unknown.leader()
            # The server resets the connection behind its words. If we still write then, they are
            # lost.
            return "certificate required" in str(raised.value)

        await until(told, "the server's words")
        await unknown.close()


@needs_redis
async def test_tls_that_is_not_verified(
    tmp_path: Path, certificates: tuple[Path, Path, Path]
) -> None:
    """Query parameters mean the same in every form, also words like ``false`` and ``none``."""
    with Server(tmp_path, binary=redis_server(), tls=certificates) as server:
        assert connect(
            f"rediss+cluster://127.0.0.1:{server.port}?ssl_check_hostname=false"
        ).connection_pool.connection_kwargs["ssl_check_hostname"] is False  # fmt: skip
        port = patient(
            f"rediss://127.0.0.1:{server.port}/0?ssl_cert_reqs=none&ssl_check_hostname=false", KEYS
        )
        assert await publishes(port)
        await port.close()


# Sentinel


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_sentinel_fails_over(sentinels: SentinelServers, how: str) -> None:
    """The master is gone, Sentinel makes the replica the master, and publishing goes on there."""
    with sentinels.master.client() as client:
        client.sadd(KEYS.symbols, "SPY")
    url, replica = SecretStr(sentinels.url), sentinels.replica.url
    limits: dict[str, Any] = {"leader_ttl_s": 2.0, "redis_call_s": CALL_TIMEOUT_S}
    async with (
        Simulator(keys={KEY: SECRET}) as sim,
        Rig(replica, sim, redis_url=url, **limits) as daemon,
    ):
        await until(lambda: daemon.active, "the symbol to be active")
        before = await published(daemon, 10.0)
        if how == "killed":
            sentinels.master.kill()
        else:
            sentinels.master.freeze()
        assert await published(daemon, 11.0) > before
        with sentinels.replica.client() as client:
            assert client.info("replication")["role"] == "master"
        await published(daemon, 12.0)


async def test_sentinels_that_are_away_are_unavailable() -> None:
    """Without a Sentinel a call fails with an error of ours."""
    port = patient(f"redis+sentinel://127.0.0.1:{free_port()}/prices", KEYS)
    with pytest.raises(RedisUnavailableError):
        await port.leader()
    await port.close()


# Cluster


@pytest.fixture
async def clustered(cluster: ClusterServers) -> AsyncIterator[RedisPort]:
    """Yield the port under test."""
    port = patient(cluster.url, IN_ONE_SLOT)
    yield port
    await port.release("t")
    await port.close()


async def test_a_price_reaches_every_node_of_a_cluster(
    cluster: ClusterServers, clustered: RedisPort
) -> None:
    """A subscriber of any node receives what the script publishes."""
    async with AsyncExitStack() as stack:
        recorders = [
            await stack.enter_async_context(Recorder(node.url, "spot:*")) for node in cluster.nodes
        ]
        assert await publishes(clustered)
        for recorder in recorders:
            await until(lambda heard=recorder.heard: heard, "the price")  # type: ignore[misc]
            assert recorder.raw("SPY") == [b'{"symbol":"SPY"}']


async def test_everything_works_in_a_cluster(cluster: ClusterServers, clustered: RedisPort) -> None:
    """Demand, wakes, states, status: each call finds its node."""
    keys = IN_ONE_SLOT
    assert (await clustered.lead("t", 60.0)).held != "another"
    await clustered.write_states("t", {"SPY": b"{}"}, {"QQQ": b"{}"})
    await clustered.write_status("t", b"{}", 5.0, announce=True)
    assert await publishes(clustered)
    assert await clustered.state_fields() == {"SPY"}
    assert await clustered.states() == [b"{}"]
    assert await clustered.last_fields() == {"SPY"}
    await clustered.drop_last("t", ["SPY"])
    assert await clustered.last_fields() == set()
    client = connect(cluster.url)
    await client.sadd(keys.symbols, "SPY")
    await client.zadd(keys.leases, {"QQQ@a": 100, "IWM@a": "inf"})
    assert [e async for some in clustered.demand_set() for e in some] == [b"SPY"]
    leases = await clustered.leases()
    assert (leases.lapsed, leases.live) == ([(b"QQQ@a", 100.0)], [b"IWM@a"])
    await client.aclose()
    heard: list[None] = []

    async def listen() -> None:
        async for _ in clustered.wakes():
            heard.append(None)  # noqa: PERF401 - it never ends

    listening = asyncio.create_task(listen())
    await until(lambda: len(heard) == 1, "listening")
    with cluster.nodes[0].client() as node:
        node.publish(keys.wake, "")
    await until(lambda: len(heard) == 2, "the wake")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_a_daemon_works_in_a_cluster(cluster: ClusterServers) -> None:
    """In a cluster a demanded symbol's price reaches a subscriber of any node, until it leaves."""
    url, owner = SecretStr(cluster.url), cluster.owner(IN_ONE_SLOT.leader).url
    async with (
        Simulator(keys={KEY: SECRET}) as sim,
        Rig(owner, sim, redis_url=url, key_prefix=IN_ONE_SLOT.key_prefix) as daemon,
        Recorder(cluster.nodes[2].url, keys=IN_ONE_SLOT) as recorder,
    ):
        await daemon.want("SPY")
        await published(daemon, 421.35)
        await until(lambda: recorder.raw("SPY"), "the price")
        await until(lambda: recorder.states("SPY")[-1:] == ["live"], "live")
        await daemon.values.unwant("SPY")
        await until(lambda: daemon.values.forgotten("SPY"), "its price and state to go")
        assert await daemon.stop() == 0
        assert await daemon.values.token() is None


async def test_subscribers_of_every_node_are_found(
    cluster: ClusterServers, clustered: RedisPort
) -> None:
    """Each node of a cluster knows only its own subscribers, so all are asked."""
    with ExitStack() as stack:
        for name, node in zip("ABC", cluster.nodes, strict=True):
            subscriber = stack.enter_context(stack.enter_context(node.client()).pubsub())
            subscriber.subscribe(f"spot:S{name}")
            assert subscriber.get_message(timeout=GUARD_S)  # that it is subscribed

        async def found() -> bool:
            # A node that does not answer at once is left out.
            return sorted(await clustered.subscribed_channels()) == [b"SA", b"SB", b"SC"]

        await until(found, "the subscribers of all nodes")


async def test_a_prefix_that_spreads_over_slots_is_refused(cluster: ClusterServers) -> None:
    """The error comes before anything is written, and says what to set."""
    with pytest.raises(SettingsError, match=r"SPOTD_KEY_PREFIX.*\{spotd\}:"):
        patient(cluster.url, KEYS)
    for node in cluster.nodes:
        with node.client() as client:
            assert client.keys("spotd:*") == []


async def test_a_cluster_that_is_away_is_unavailable() -> None:
    """Without a node, calls and wakes fail with an error of ours."""
    port = patient(f"redis+cluster://127.0.0.1:{free_port()}", IN_ONE_SLOT)
    with pytest.raises(RedisUnavailableError):
        await port.leader()
    with pytest.raises(RedisUnavailableError):
        await anext(aiter(port.wakes()))
    await port.close()
