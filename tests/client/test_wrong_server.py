"""A client at an address that leads to another server one day, and at a replica by choice."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from spotd.client import SpotClient
from tests.client.told import Told
from tests.kit.publisher import KEYS, Publisher, update_of
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.waiting import until


def replace(address: RedisProxy, servers: tuple[Server, Server], master: Server | None) -> None:
    """Have the address lead to the second server. The first one becomes a replica of ``master``.

    Without it, it is one that never finds its master, so nothing arrives there any more.
    """
    old, new = servers
    address.lead_to(new)
    with old.client() as client:
        client.replicaof("127.0.0.1", str(master.port if master else 1))


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("demand", [True, False])
async def test_an_iteration_goes_on_at_the_new_server(
    servers: tuple[Server, Server], address: RedisProxy, demand: bool, follows: bool
) -> None:
    """It reads what was stored meanwhile and then each message, and its leases are there too."""
    old, new = servers
    async with (
        Publisher(old.url) as before,
        Publisher(new.url) as after,
        SpotClient(address.url, owner="me") as spot,
        aclosing(spot.updates("SPY", demand=demand)) as updates,
    ):
        await before.publish("SPY", 1)
        assert (await anext(updates)).seq == 1
        with old.client() as client:
            # The role of the server is known before it changes.
            await until(
                lambda: "calls" in str(client.info("commandstats").get("cmdstat_role")), "ROLE"
            )
        await after.publish("SPY", 2)
        replace(address, servers, new if follows else None)
        assert (await anext(updates)).seq == 2
        await until(lambda: spot.reconnects, "the join")
        await after.publish("SPY", 3)
        assert (await anext(updates)).seq == 3
        if demand:
            await until(after.leases, "the lease")
            assert set(await after.leases()) == {f"SPY@{spot.owner}"}


async def test_a_follower_is_told_what_happened(
    servers: tuple[Server, Server], address: RedisProxy
) -> None:
    """It is told of the loss and of the return, and no older price again."""
    old, new = servers
    told = Told()
    async with (
        Publisher(old.url) as before,
        Publisher(new.url) as after,
        SpotClient(address.url, lease_ttl_s=1.0, owner="me") as spot,
        spot.follow(told) as follower,
    ):
        follower.add("SPY")
        await before.publish("SPY", 1)
        await told.until("SPY", 1)
        await until(lambda: follower.connected, "the join")
        told.calls.clear()
        await after.publish("SPY", 2)
        replace(address, servers, new)
        assert await told.until("SPY", 2) == [
            ("connection", False),
            ("connection", True),
            ("SPY", 2),
        ]
        await until(after.leases, "the lease")


async def test_leases_alone_move_too(servers: tuple[Server, Server], address: RedisProxy) -> None:
    """Without any subscription a refused renewal is what says that the server was replaced."""
    async with (
        Publisher(servers[1].url) as after,
        SpotClient(address.url, lease_ttl_s=1.0, owner="me") as spot,
        spot.want("SPY"),
    ):
        replace(address, servers, None)
        await until(after.leases, "the lease")


async def test_a_command_is_tried_again(
    servers: tuple[Server, Server], address: RedisProxy
) -> None:
    """A person's command that the old server refuses is carried out by the new one."""
    async with Publisher(servers[1].url) as after, SpotClient(address.url) as spot:
        assert await spot.add("QQQ") == ["QQQ"]
        replace(address, servers, None)
        await spot.add("SPY")
        assert await after.redis.smembers(KEYS.symbols) == {b"SPY"}


async def test_a_client_of_your_own_is_freed_of_the_old_server(
    servers: tuple[Server, Server], address: RedisProxy
) -> None:
    """The connections of a client of redis-py that a program brings are closed, not the client."""
    redis = Redis.from_url(address.url)
    async with Publisher(servers[1].url) as after:
        async with SpotClient(redis=redis) as spot:
            await spot.add("QQQ")
            replace(address, servers, None)
            await spot.add("SPY")
            assert await after.redis.smembers(KEYS.symbols) == {b"SPY"}
        assert await redis.sismember(KEYS.symbols, "SPY")
    await redis.aclose()


async def test_a_replica_is_read_by_choice(servers: tuple[Server, Server]) -> None:
    """A client whose address leads to a replica stays there, even if that loses its master."""
    replica, master = servers
    with replica.client() as client:
        client.replicaof("127.0.0.1", str(master.port))
        await until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        async with (
            Publisher(master.url) as daemon,
            SpotClient(replica.url) as spot,
            aclosing(spot.updates("SPY", demand=False)) as updates,
        ):
            await daemon.publish("SPY", 1)
            assert (await anext(updates)).seq == 1
            with master.client() as admin:
                admin.client_kill_filter(_type="slave")

            def asked() -> int:
                return int(client.info("commandstats").get("cmdstat_role", {}).get("calls", 0))

            before = asked()
            await until(lambda: asked() >= before + 3, "its role to be asked for")
            await daemon.publish("SPY", 2)
            assert (await anext(updates)).seq == 2
            assert spot.reconnects == 0


async def test_a_price_is_the_same_as_before(
    servers: tuple[Server, Server], address: RedisProxy
) -> None:
    """Stored values can be read through the new server at once."""
    async with Publisher(servers[1].url) as after, SpotClient(address.url) as spot:
        await after.publish("SPY", 2)
        assert await spot.latest("SPY") == {"SPY": None}
        replace(address, servers, None)
        await spot.add("SPY")
        assert await spot.latest("SPY") == {"SPY": update_of("SPY", 2)}
