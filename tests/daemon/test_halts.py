"""Halts over sessions, restarts and reigns: what the states say.

What ends a halt is proved in tests/core/test_halts.py and tests/core/test_prices.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until


def states(daemon: Rig, spy: str, qqq: str) -> Callable[[], Awaitable[bool]]:
    """Return a condition: Redis holds these two states."""

    async def found() -> bool:
        values = daemon.values
        return (await values.state("SPY"), await values.state("QQQ")) == (spy, qqq)

    return found


async def halt_spy(daemon: Rig, sim: Simulator) -> None:
    """Halt SPY, of SPY and QQQ."""
    await daemon.want("SPY", "QQQ")
    await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
    await sim.halt("SPY")
    await until(states(daemon, "halted", "live"), "the halt")


async def test_a_halt_stands_over_a_reconnect(rig: NewRig, sim: Simulator, server: Server) -> None:
    """Until its resumption is told: SPY has no other state meanwhile."""
    async with Recorder(server.url) as recorder, rig() as daemon:
        await halt_spy(daemon, sim)
        sim.faults.handshake_hang = True  # until the test has seen that QQQ is stale
        await sim.drop_sessions("abort")
        await until(states(daemon, "halted", "stale"), "the interruption")
        sim.faults.handshake_hang = False
        await until(states(daemon, "halted", "live"), "the next session")
        await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
        await sim.resume("SPY")
        await until(states(daemon, "live", "live"), "the resumption")
        assert recorder.states("SPY")[-2:] == ["halted", "live"]
        assert "stale" not in recorder.states("SPY")


@pytest.mark.parametrize("trades", [True, False])
async def test_a_trade_ends_a_halt_whose_resumption_was_missed(
    rig: NewRig, sim: Simulator, trades: bool
) -> None:
    """It comes over the stream, or in the snapshot of the next session."""
    async with rig(snapshots=not trades, trades=trades) as daemon:
        await halt_spy(daemon, sim)
        if trades:
            await sim.drop_sessions("close", 1012)
            await until(lambda: sim.stats.connections == 2, "the next session")
            await daemon.want("SPY", "QQQ")
            await daemon.send(quote("SPY", 1.0), trade("SPY", 1.5, c=["@", "I"]))
            await until(lambda: daemon.values.last("SPY"), "the price")
            assert await daemon.values.state("SPY") == "halted"
            await daemon.send(trade("SPY", 1.5))
        else:
            sim.faults.mute = True
            await sim.send([trade("SPY", 1.5)])
            await sim.drop_sessions("close", 1012)
        await until(states(daemon, "live", "live"), "the end of the halt")


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_new_leader_takes_over_halts(rig: NewRig, sim: Simulator, orderly: bool) -> None:
    """From the states that its predecessor left, whether it stopped in order or not."""
    async with rig() as daemon:
        await halt_spy(daemon, sim)
        left = await daemon.values.redis.hgetall("spotd:states")
    async with rig(leads=False) as daemon:
        if not orderly:
            await daemon.values.redis.hset("spotd:states", mapping=left)
        await until(states(daemon, "halted", "live"), "the halt")
        await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
        await daemon.send(trade("SPY", 1.5))
        await until(states(daemon, "live", "live"), "the end of the halt")


async def test_a_daemon_that_leads_again_believes_its_predecessor(
    rig: NewRig, sim: Simulator
) -> None:
    """Another daemon led meanwhile: it has seen a resumption, and another halt."""
    async with rig() as daemon:
        await halt_spy(daemon, sim)
        await daemon.lose_leadership()
        stored = await daemon.values.redis.hgetall("spotd:states")
        swapped = {
            "SPY": stored["QQQ"].replace("QQQ", "SPY"),
            "QQQ": stored["SPY"].replace("SPY", "QQQ"),
        }
        await daemon.values.redis.hset("spotd:states", mapping=swapped)
        await daemon.lead_again()
        await until(states(daemon, "live", "halted"), "what the other daemon knew")
