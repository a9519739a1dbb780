"""A cluster in which the owner of the slot hangs, moves, or is replaced with all other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.calls import CALL_TIMEOUT_S
from spotd.redis.port import RedisPort
from spotd.simulator import Simulator
from tests.daemon.rig import KEY, SECRET, Rig, quote
from tests.kit.recorder import Recorder
from tests.kit.redis_port import lead_and_publish, patient
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import ClusterServers, Server, make_certificates, redis_server, was_promoted
from tests.kit.waiting import GUARD_S, until

KEYS = Keys("{spotd}:", "spot:")


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[tuple[ClusterServers, Server, Server]]:
    """Yield a cluster, the owner of the keys' slot, and its replica."""
    # A node that only pauses for a second is not taken for dead.
    with ClusterServers(tmp_path, node_timeout_ms=1_500) as cluster:
        owner = cluster.owner(KEYS.leader)
        yield cluster, owner, cluster.add_replica(owner)


async def goes_on(port: RedisPort, token: str = "t") -> None:
    """Wait until leading and publishing work, as the daemon's loops do: by trying again."""

    async def works() -> bool:
        with suppress(RedisUnavailableError):
            await lead_and_publish(port, token)
            return True
        return False

    await until(works, "publishing")


async def listening(port: RedisPort) -> tuple[list[None], asyncio.Task[None]]:
    """Return what ``wakes`` yields, once it listens, and the task that listens."""
    heard: list[None] = []

    async def listen() -> None:
        while True:
            with suppress(RedisUnavailableError):
                async for _ in port.wakes():
                    heard.append(None)  # noqa: PERF401 - it never ends

    task = asyncio.create_task(listen())
    await until(lambda: heard, "listening")
    return heard, task


def listeners(node: Server) -> int:
    """Return how many listen for wakes at a node."""
    with node.client() as client:
        [(_, number)] = client.pubsub_numsub(KEYS.wake)
    return int(number)


async def test_the_owner_hangs_and_its_replica_is_promoted(
    replicated: tuple[ClusterServers, Server, Server],
) -> None:
    """The port goes on at the new owner while the former one hangs, and stays there."""
    cluster, owner, replica = replicated
    port = RedisPort(cluster.url, KEYS)
    await goes_on(port)
    owner.freeze()
    try:
        with replica.client() as client:
            await until(lambda: was_promoted(client), "the promotion")
            await goes_on(port)
            assert client.hget(KEYS.last, "SPY") == '{"symbol":"SPY"}'
    finally:
        owner.thaw()
    with replica.client() as client:
        client.delete(KEYS.last)
        await goes_on(port)
        assert client.hexists(KEYS.last, "SPY")
    await port.close()


async def test_a_call_under_way_ends_when_the_owner_is_replaced(
    replicated: tuple[ClusterServers, Server, Server],
) -> None:
    """A call with no limit of its own waits for an owner that hangs, until there is another."""
    cluster, owner, _ = replicated
    port = RedisPort(cluster.url, KEYS, call_timeout_s=1e6, connect_timeout_s=1e6)
    assert await port.leader() is None
    owner.freeze()
    try:
        with pytest.raises(RedisUnavailableError, match="another node owns the slot now"):
            await port.leader()
        assert await port.leader() is None
    finally:
        owner.thaw()
    await port.close()


async def test_a_daemon_goes_on_after_a_promotion(
    replicated: tuple[ClusterServers, Server, Server],
) -> None:
    """It leads and publishes at the new owner, and the newest price of every symbol is there."""
    cluster, owner, replica = replicated
    with owner.client() as services:
        services.sadd(KEYS.symbols, "SPY", "QQQ")
    async with (
        Simulator(keys={KEY: SECRET}) as sim,
        Recorder(cluster.nodes[1].url, keys=KEYS) as recorder,
        Rig(
            replica.url,
            sim,
            redis_url=SecretStr(cluster.url),
            key_prefix=KEYS.key_prefix,
            leader_ttl_s=5.0,
            pause_in_row_s=0.0,
            redis_call_s=CALL_TIMEOUT_S,
        ) as rig,
    ):
        await until(lambda: rig.active == {"SPY", "QQQ"}, "both to be live")
        await rig.send(quote("SPY", 1.0), quote("QQQ", 2.0))
        await until(lambda: recorder.bids("SPY") and recorder.bids("QQQ"), "the prices")
        owner.freeze()
        try:
            with replica.client() as client:
                await until(lambda: was_promoted(client), "promotion")
            await until(rig.works, "the daemon to work again")
            await rig.send(quote("SPY", 3.0))
            await until(lambda: recorder.bids("SPY")[-1:] == [3.0], "the newer price")
            await until(lambda: rig.values.has("SPY", 3.0), "the newer price to be stored")
            await until(lambda: rig.values.has("QQQ", 2.0), "the price that did not change")
        finally:
            owner.thaw()


async def test_the_owner_dies(replicated: tuple[ClusterServers, Server, Server]) -> None:
    """The port and its wakes go on without a node that is gone."""
    cluster, owner, replica = replicated
    port = RedisPort(cluster.url_of(owner), KEYS)  # the URL names the one that dies
    await goes_on(port)
    heard, task = await listening(port)
    owner.kill()
    await goes_on(port)
    with replica.client() as client:

        def wakes() -> bool:
            client.publish(KEYS.wake, "")
            return len(heard) > 1

        await until(wakes, "a wake")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await port.close()


async def test_all_nodes_are_replaced(tmp_path: Path) -> None:
    """When no known node answers, the addresses of the URL lead to the cluster that is there."""
    with ClusterServers(tmp_path / "former") as former:
        async with RedisProxy.to(former.nodes[0]) as address:
            port = RedisPort(f"redis+cluster://127.0.0.1:{address.port}", KEYS)
            await goes_on(port)
            for node in former.nodes:
                node.kill()
            with ClusterServers(tmp_path / "new") as new:
                address.lead_to(new.nodes[0])
                await goes_on(port)
                with new.owner(KEYS.leader).client() as client:
                    assert client.hexists(KEYS.last, "SPY")
                await port.close()


async def test_the_slot_moves(cluster: ClusterServers) -> None:
    """While the slot is moved to another node, and after that, every call finds its keys."""
    source = cluster.owner(KEYS.leader)
    target = next(node for node in cluster.nodes if node is not source)
    port = patient(cluster.url, KEYS)
    await goes_on(port)
    with source.client() as old, target.client() as new:
        try:
            slot = old.execute_command("CLUSTER", "KEYSLOT", KEYS.leader)
            ids = [client.execute_command("CLUSTER", "MYID") for client in (old, new)]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
            assert await port.leader() == "t"
            for key in old.keys("*"):
                old.migrate("127.0.0.1", target.port, key, 0, 5_000)
            assert await port.leader() == "t"
            await goes_on(port)
            for client in (new, old):
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            await goes_on(port)
            assert await port.leader() == "t"
        finally:
            move_back(slot, old, new)
    await port.close()


def move_back(slot: int, old: Any, new: Any) -> None:
    """Give an empty slot back to its former owner."""
    new.flushall()
    identity = old.execute_command("CLUSTER", "MYID")
    for client in (old, new):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identity)


async def test_a_listener_leaves_a_node_that_was_taken_out(
    replicated: tuple[ClusterServers, Server, Server],
) -> None:
    """A node outside the cluster answers pings and hears no wake, so another one is listened to."""
    cluster, _owner, replica = replicated
    port = RedisPort(cluster.url, KEYS, wake_silence_s=0.1)
    heard, task = await listening(port)
    with replica.client() as client:
        while not listeners(replica):  # until it listens there
            heard.clear()
            for node in cluster.nodes[:3]:
                with node.client() as other:
                    other.client_kill_filter(_type="pubsub")
            await until(lambda: heard, "listening")
        identity = client.execute_command("CLUSTER", "MYID")
        for node in cluster.nodes[:3]:
            with node.client() as other:
                other.execute_command("CLUSTER", "FORGET", identity)
        await until(lambda: any(map(listeners, cluster.nodes[:3])), "listening at another node")
        await until(lambda: not listeners(replica), "the end of listening at the former one")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await port.close()


@pytest.mark.skipif(redis_server() is None, reason="redis-server is not installed")
async def test_wakes_over_tls(tmp_path: Path) -> None:
    """With TLS the port publishes and hears wakes, whichever nodes the URL names."""
    with ClusterServers(tmp_path, tls=make_certificates(tmp_path)) as cluster:
        for url in (cluster.url, cluster.url_of(cluster.nodes[2])):
            port = RedisPort(url, KEYS)
            heard, task = await listening(port)
            await goes_on(port)
            with cluster.nodes[0].client() as client:
                client.publish(KEYS.wake, "")
            await until(lambda heard=heard: len(heard) > 1, "the wake")  # type: ignore[misc]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await port.close()


async def test_subscribers_are_found_while_a_node_hangs(
    replicated: tuple[ClusterServers, Server, Server],
) -> None:
    """A node that hangs hides its own subscribers, and not those of the others."""
    cluster, owner, _ = replicated
    hanging = next(node for node in cluster.nodes if node is not owner)
    others = [node for node in cluster.nodes if node is not hanging]
    port = RedisPort(cluster.url, KEYS)
    with ExitStack() as stack:
        for name, node in zip("ABC", others, strict=True):
            subscriber = stack.enter_context(stack.enter_context(node.client()).pubsub())
            subscriber.subscribe(f"spot:S{name}")
            assert subscriber.get_message(timeout=GUARD_S)  # that it is subscribed

        async def all_found() -> bool:
            # On a busy machine a node that does not hang may take longer than its limit too.
            with suppress(RedisUnavailableError):
                return sorted(await port.subscribed_channels()) == [b"SA", b"SB", b"SC"]
            return False

        await until(all_found, "the subscribers of all nodes")
        hanging.freeze()
        try:
            await until(all_found, "the subscribers of the nodes that do not hang")
        finally:
            hanging.thaw()
    await port.close()
