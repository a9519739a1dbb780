"""A daemon whose Redis is far away: slower, and right."""

from __future__ import annotations

from typing import Any

import pytest

from spotd.keys import Keys
from spotd.redis.calls import CALL_TIMEOUT_S
from spotd.simulator import Simulator
from tests.daemon.rig import Rig
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.waiting import until

KEYS = Keys()


@pytest.mark.long  # quick, of the port alone: tests/redis/test_network.py
async def test_a_round_trip_of_600_ms_costs_nothing_but_time(
    server: Server, sim: Simulator
) -> None:
    """The daemon leads without a break, publishes, takes new symbols, and releases its key."""
    async with RedisProxy.to(server) as way:
        way.delay_s = 0.6
        limits: dict[str, Any] = {"leader_ttl_s": 5.0, "redis_call_s": CALL_TIMEOUT_S}
        async with Rig(way.url, sim, **limits, values_url=server.url) as daemon:
            await daemon.want("SPY")
            await until(daemon.works, "a leader at work")
            await daemon.quote("SPY", 10)
            await until(lambda: daemon.values.has("SPY", 10), "the price")
            await daemon.want("QQQ")
            assert daemon.metric("spotd_redis_errors_total") == 0
            assert daemon.daemon.leadership.get().term == 1
            await daemon.stop()
            assert await daemon.values.token() is None
            assert await daemon.values.status() is None
