"""A stream that is behind is stale and made anew; a wrong clock is told apart.

What counts as behind is proved in tests/core/test_lag.py.
"""

from __future__ import annotations

import time
from typing import Any

from spotd.core.lag import LagTimes
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

LATE_NS = 42_000_000_000
BRISK: dict[str, Any] = {
    "lag": LagTimes(sustained_s=0.1, clock_retry_s=0.05, read_clock_every_s=0.1),
    "measure_lag_every_s": 0.02,
}


async def late(daemon: Rig) -> None:
    """Have Alpaca send a quote of 42 s ago."""
    await daemon.send(quote("SPY", 1.0, t=time.time_ns() - LATE_NS))


async def test_a_stream_that_is_behind_is_stale_until_it_is_in_time(
    rig: NewRig, sim: Simulator, server: Server
) -> None:
    """States, status and readiness say so and why; the backlog is dropped with the connection."""
    async with Recorder(server.url) as recorder, rig(max_lag_s=10, timing=BRISK) as daemon:
        await daemon.want("SPY")
        await until(lambda: recorder.states("SPY")[-1:] == ["live"], "live")
        await late(daemon)
        await until(lambda: recorder.states("SPY")[-1] == "stale", "stale")
        [stale] = [event for event in recorder.events("symbol") if event["state"] == "stale"]
        assert stale["code"] == "lagging"
        assert "42 s" in stale["reason"]
        await until(lambda: daemon.daemon.metrics.reconnects == {"lagging": 1}, "a new connection")
        await until(lambda: daemon.active, "the new session")

        await late(daemon)
        status = daemon.status
        assert (status["state"], status["code"]) == ("streaming", "lagging")
        assert status["lag_ms"] > 41_000
        assert [reason.partition(":")[0] for reason in daemon.daemon.not_ready()] == ["lagging"]
        assert await daemon.values.state("SPY") == "stale"

        async def in_time() -> bool:  # until the median is
            await daemon.quote("SPY", 2.0)
            return daemon.daemon.not_ready() == []

        await until(in_time, "in time")
        await until(lambda: daemon.values.live("SPY"), "live")
        assert daemon.status["code"] is None
        assert daemon.daemon.metrics.reconnects == {"lagging": 1}


async def test_a_backlog_is_dropped_with_the_connection(rig: NewRig, sim: Simulator) -> None:
    """What Alpaca held back for the old session never comes, and the new one is in time."""
    timing = BRISK | {"lag": LagTimes(sustained_s=0.5)}
    async with rig(max_lag_s=1, timing=timing) as daemon:
        await daemon.want("SPY")
        sim.faults.data_delay_s = 2.0

        async def remade() -> bool:
            await sim.send([quote("SPY", 1.0)])
            return daemon.daemon.metrics.reconnects["lagging"] == 1

        await until(remade, "the connection to be remade")
        sim.faults.data_delay_s = 0.0
        await until(lambda: daemon.active, "the new session")
        await daemon.quote("SPY", 2.0)
        await until(lambda: daemon.daemon.not_ready() == [], "in time")
        assert await until(lambda: daemon.values.bid("SPY"), "the price") == 2.0


async def test_without_a_limit_a_stream_is_never_behind(rig: NewRig, sim: Simulator) -> None:
    """The lag is told all the same."""
    async with rig(max_lag_s=0, timing=BRISK) as daemon:
        await daemon.want("SPY")
        await late(daemon)
        assert daemon.status["lag_ms"] > 41_000
        assert daemon.status["code"] is None
        assert not daemon.daemon.lag.get().behind


async def test_a_wrong_clock_is_said_and_not_held_against_the_stream(
    rig: NewRig, sim: Simulator, server: Server
) -> None:
    """REST's time shows that our clock is ahead; the lag is told without its error."""
    sim.faults.clock_behind_s = 3_600.0
    async with Recorder(server.url) as recorder, rig(max_lag_s=10, timing=BRISK) as daemon:
        await daemon.want("SPY")

        async def said() -> bool:
            await daemon.quote("SPY", 1.0)
            return bool(daemon.status["code"] == "clock_wrong")

        await until(said, "the clock to be read")
        status = daemon.status
        assert status["reason"] == "the clock of this machine is 60 minutes ahead of Alpaca's"
        assert abs(status["lag_ms"]) < 2_000
        assert daemon.daemon.not_ready() == []
        assert daemon.daemon.metrics.reconnects_total == 0
        assert "stale" not in recorder.states("SPY")

        sim.faults.clock_behind_s = 0.0  # as if the clock was set

        async def right() -> bool:
            await daemon.quote("SPY", 1.0)
            return daemon.status["code"] is None

        await until(right, "the clock to be right")
