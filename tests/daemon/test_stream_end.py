"""How the daemon ends the stream itself: when it leads no more, at a stop, and refused for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from spotd.core.pacing import Pauses
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig
from tests.kit.stream import (
    nothing_unheard,  # noqa: F401 - a fixture for every test
    sockets_to,
)
from tests.kit.waiting import GUARD_S, until

# An hour after every failure: no test gets past it.
SLOW = Pauses(first_s=3600.0, most_s=3600.0)

_PHASES: dict[str, tuple[str | None, Callable[[Simulator, Rig], object]]] = {
    "connecting": ("handshake_hang", lambda sim, _: sim.stats.connections),
    "greeting": ("no_greeting", lambda sim, _: sim.sessions),
    "authenticating": ("auth_silent", lambda sim, _: sim.received.messages("auth")),
    "subscribing": ("ack_silent", lambda sim, _: sim.received.messages("subscribe")),
    "streaming": (None, lambda _, daemon: daemon.active),
}


async def in_phase(phase: str, sim: Simulator, daemon: Rig) -> None:
    """Wait until the daemon is in this phase of its session."""
    await daemon.values.want("SPY")
    await until(lambda: _PHASES[phase][1](sim, daemon), phase)


async def closed_in(phase: str, sim: Simulator) -> None:
    """Wait until the session is over. Assert that it ended with a close frame, if it had begun."""
    if phase == "connecting":
        await until(lambda: sockets_to(sim.port) == 0, "the end of the try")
    else:
        await until(lambda: sim.received.of("close"), "the end of the session")
        assert [record.data for record in sim.received.of("close")] == [1000]


@pytest.fixture(params=_PHASES)
async def phase(request: pytest.FixtureRequest, sim: Simulator) -> AsyncIterator[str]:
    """Yield a phase of a session in which Alpaca lets the daemon wait until the test is over."""
    knob, _ = _PHASES[request.param]
    if knob is not None:
        setattr(sim.faults, knob, True)
    yield request.param
    if knob is not None:
        setattr(sim.faults, knob, False)


async def test_a_daemon_that_leads_no_more_leaves(rig: NewRig, sim: Simulator, phase: str) -> None:
    """It closes at once, whatever it waits for, and connects when it leads again: no failure."""
    async with rig() as daemon:
        await in_phase(phase, sim, daemon)
        await daemon.lose_leadership()
        await closed_in(phase, sim)
        await until(lambda: daemon.daemon.stream.get().phase == "closed", "the closed stream")
        assert daemon.status["state"] == "standby"
        sim.faults.handshake_hang = sim.faults.no_greeting = False
        sim.faults.auth_silent = sim.faults.ack_silent = False
        await daemon.lead_again()
        await until(lambda: daemon.active, "the next session")
        assert sim.stats.connections == 2
        assert not daemon.daemon.metrics.reconnects


async def test_a_stop_leaves_nothing_behind(rig: NewRig, sim: Simulator, phase: str) -> None:
    """The session ends with a close frame, in whatever phase, and no task is left."""
    others = asyncio.all_tasks()
    async with rig() as daemon:
        await in_phase(phase, sim, daemon)
        assert await daemon.stop() == 0
        await closed_in(phase, sim)
    sim.faults.handshake_hang = False  # the simulator's own task ends
    await until(
        lambda: asyncio.all_tasks() <= others,
        "the end of every task",
        logs=lambda: str(asyncio.all_tasks() - others),
    )
    assert sim.stats.connections == 1


async def test_a_stop_ends_a_pause(rig: NewRig, sim: Simulator) -> None:
    """Nobody waits for the next try."""
    sim.faults.handshake_status = 503
    async with rig(pauses=SLOW) as daemon:
        await daemon.values.want("SPY")
        await until(daemon.waits, "waiting")
        assert await daemon.stop() == 0
    assert sim.stats.connections == 1


async def test_a_pause_ends_with_the_leadership(rig: NewRig, sim: Simulator) -> None:
    """The daemon is a standby at once, and tries at once when it leads again."""
    sim.faults.handshake_status = 503
    async with rig(pauses=SLOW) as daemon:
        await daemon.values.want("SPY")
        await until(lambda: daemon.waits("503"), "waiting")
        await daemon.lose_leadership()
        await until(lambda: daemon.daemon.stream.get().phase == "closed", "the end of the pause")
        assert daemon.status["state"] == "standby"
        sim.faults.handshake_status = 0
        await daemon.lead_again()
        await until(lambda: daemon.active, "the session")
        assert sim.stats.connections == 2


async def test_an_open_breaker_outlasts_the_leadership(rig: NewRig, sim: Simulator) -> None:
    """A daemon that leads again says that it waits for the breaker, and does not try."""
    sim.faults.handshake_status = 503
    async with rig(breaker_failures=1, breaker_recovery_s=600) as daemon:
        await daemon.values.want("SPY")
        await until(lambda: daemon.waits("503"), "waiting")
        await daemon.lose_leadership()
        await until(lambda: daemon.status["state"] == "standby", "standby")
        await daemon.lead_again()
        await until(lambda: daemon.waits("spot_price_stream is open"), "waiting again")
        await daemon.lose_leadership()
        await until(lambda: daemon.status["state"] == "standby", "standby again")
        assert daemon.status["breaker"] == "open"
        assert sim.stats.connections == 1


# Refused for good


@pytest.mark.parametrize("code", [402, 409])
async def test_a_refusal_for_good_ends_the_daemon(rig: NewRig, sim: Simulator, code: int) -> None:
    """It exits with 3 after one try: another one would be refused. Key and status are gone."""
    sim.faults.auth_error = code
    refused = rig(leads=False)
    await refused.values.want("SPY")
    async with asyncio.timeout(GUARD_S):
        assert await refused.daemon.run() == 3
    assert sim.stats.connections == 1
    assert await refused.values.token() is None
    assert await refused.values.status() is None
    await refused.values.aclose()
