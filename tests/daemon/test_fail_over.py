"""Redis' master is replaced: one leader, which publishes at the new master and tells the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from spotd.keys import Keys
from spotd.simulator import Simulator
from tests.daemon.rig import Rig
from tests.kit.recorder import Recorder
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import SentinelServers, Server
from tests.kit.values import Values
from tests.kit.waiting import until

KEYS = Keys()
TTL_S = 20.0  # a fail-over must not end the term, nor a process that stands still meanwhile


@pytest.fixture
def successor(tmp_path: Path, server: Server) -> Iterator[Server]:
    """Yield a replica of the server."""
    replica = Server(tmp_path / "successor", "--replicaof", "127.0.0.1", str(server.port))
    with replica as running:
        yield running


@pytest.fixture
async def address(server: Server) -> AsyncIterator[RedisProxy]:
    """Yield an address that leads to the server."""
    async with RedisProxy.to(server) as proxy:
        yield proxy


async def test_a_planned_fail_over_has_one_leader(
    sentinels: SentinelServers, sim: Simulator
) -> None:
    """The leader moves to the new master, with its term, and the standby stays one."""
    url, at = sentinels.url, sentinels.master.url
    leader = Rig(url, sim, leader_ttl_s=TTL_S, values_url=at)
    standby = Rig(url, sim, leader_ttl_s=TTL_S, values_url=at, leads=False)
    leads: list[tuple[bool, bool]] = []

    async def watching() -> None:
        while True:
            leads.append((leader.leads(), standby.leads()))
            await asyncio.sleep(0.005)

    async with (
        leader,
        standby,
        Values(sentinels.replica.url, decode_responses=True) as new,
        Recorder(sentinels.replica.url) as heard,
    ):
        await until(standby.stands_by, "the standby")
        await leader.want("SPY")
        await leader.quote("SPY", 10)
        await until(lambda: heard.bids("SPY")[-1:] == [10], "the price at the replica")
        token = leader.daemon.leadership.get().token
        watch = asyncio.create_task(watching())
        await until(sentinels.fail_over, "a replica that can be promoted")
        reason = "name another master"
        await until(lambda: reason in str(leader.status["reason"]), "the leader to notice")
        assert leader.status["state"] == "waiting"
        assert reason in leader.daemon.not_ready()[0]
        await leader.quote("SPY", 11)
        async with Recorder(sentinels.replica.url) as later:
            await leader.quote("SPY", 12)
            await until(lambda: later.bids("SPY")[-1:] == [12], "the price at the new master")
        await until(leader.works, "the leader at work")
        await until(standby.stands_by, "the standby")
        assert await new.token() == token == leader.daemon.leadership.get().token
        with sentinels.replica.client() as client:
            assert client.role()[0] == "master"
        assert await new.bid("SPY") == 12
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        assert not any(second for _, second in leads)


async def test_a_demoted_server_behind_one_address_is_left(
    address: RedisProxy, server: Server, successor: Server, sim: Simulator
) -> None:
    """The daemon goes on at the new server with its term, and writes there all that it knows."""
    async with (
        Rig(address.url, sim, leader_ttl_s=TTL_S) as daemon,
        Values(successor.url, decode_responses=True) as new,
    ):
        await daemon.want("SPY")
        await daemon.quote("SPY", 10)

        async def replicated() -> bool:
            return await new.bid("SPY") == 10 and await new.live("SPY")

        await until(replicated, "the price at the replica")
        with successor.client() as client, server.client() as admin:
            client.replicaof("NO", "ONE")
            # Written to the old server alone, and so missing at the new one.
            await daemon.quote("SPY", 11)
            await until(lambda: admin.hget(KEYS.last, "SPY"), "the price at the old server")
            address.lead_to(successor)
            admin.replicaof("127.0.0.1", "1")
        await until(lambda: new.bid("SPY"), "the new server")

        async def has_moved() -> bool:
            return await new.bid("SPY") == 11 and daemon.works() and await new.live("SPY")

        await until(has_moved, "the price at the new server")
        await daemon.quote("SPY", 12)
        await until(lambda: new.has("SPY", 12), "the next price")
        # A change of the demand at the new server wakes the daemon up there.
        await new.want("QQQ")
        await until(lambda: "QQQ" in daemon.active, "the new symbol")
