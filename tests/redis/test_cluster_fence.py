"""The fence by Redis' clock in a cluster: a deposed leader's call comes late, and does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.port import RedisPort
from tests.kit.recorder import Recorder
from tests.kit.redis_port import clock_after, led
from tests.kit.servers import ClusterServers, was_promoted
from tests.kit.waiting import until
from tests.redis.test_cluster import goes_on

KEYS = Keys("{spotd}:", "spot:")


@pytest.mark.long  # a promotion takes 4 s
async def test_a_late_call_of_a_deposed_leader_publishes_nothing(tmp_path: Path) -> None:
    """The owner of the slot freezes with a call in its socket, and its replica leads meanwhile.

    When it goes on, it takes itself for the owner, and the key of its data is the deposed leader's.
    Subscribers at other nodes would hear the call behind what the new leader published.
    """
    with ClusterServers(tmp_path, node_timeout_ms=1_500) as cluster:
        owner = cluster.owner(KEYS.leader)
        replica = cluster.add_replica(owner)
        spared = next(node for node in cluster.nodes if node not in (owner, replica))
        deposed = RedisPort(cluster.url, KEYS, call_timeout_s=0.2)
        successor = RedisPort(cluster.url, KEYS)
        ends: list[Exception | None] = []
        async with Recorder(spared.url, keys=KEYS) as heard:
            clock_is_off_s = await led(deposed, "deposed")

            async def publishes() -> bool:
                seq = len(ends) + 1
                deposed.begin_publishing("deposed", _update("first"), seq, ends.append)
                await until(lambda: len(ends) == seq, "the end of a call")
                return ends[-1] is None

            await until(publishes, "a call that succeeds")
            seq = len(ends) + 1
            owner.freeze()
            try:
                deposed.begin_publishing("deposed", _update("late"), seq, ends.append)
                await until(lambda: len(ends) == seq, "the end of the call")
                assert isinstance(ends[-1], RedisUnavailableError)
                over = clock_after(clock_is_off_s)
                with replica.client() as client:
                    await until(lambda: was_promoted(client), "promotion")
                    client.delete(KEYS.leader)
                await goes_on(successor, "successor")
                await until(over, "the end of its time")
            finally:
                owner.thaw()
            with owner.client() as client:
                await until(lambda: client.info("replication")["role"] == "slave", "its demotion")
            before = len(heard.of("SPY"))
            await goes_on(successor, "successor")
            await until(lambda: len(heard.of("SPY")) > before, "its next update")
        await deposed.close()
        await successor.close()
    assert {raw for raw in heard.raw("SPY") if b"by" in raw} == {_update("first").strip()}


def _update(by: str) -> bytes:
    return b'{"symbol":"SPY","by":"%s"}\n' % by.encode()
